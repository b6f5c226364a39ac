defmodule Counter do
  use GenServer

  def init(n), do: {:ok, n}

  def handle_call(:get, _from, n) do
    {:reply, n, n}
  end
end
