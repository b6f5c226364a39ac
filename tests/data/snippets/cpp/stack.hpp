#pragma once

#include <stdexcept>
#include <vector>

template <typename T>
class Stack {
public:
    void push(T item) { items_.push_back(std::move(item)); }

    T pop() {
        if (items_.empty()) {
            throw std::out_of_range("stack is empty");
        }
        T top = std::move(items_.back());
        items_.pop_back();
        return top;
    }

    bool empty() const noexcept { return items_.empty(); }

private:
    std::vector<T> items_;
};
