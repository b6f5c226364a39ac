class Stack
  attr_reader :items

  def initialize
    @items = []
  end

  def push(item)
    @items << item
    self
  end

  def each
    @items.each { |i| yield i }
  end
end

stack = Stack.new
5.times do |n|
  stack.push(n)
end
puts stack.items.inspect
