"""Keeps track of what is in stock."""

from collections import Counter


class OutOfStock(Exception):
    """Asked for more than there is."""


class Inventory:
    def __init__(self):
        self._items = Counter()

    def add(self, name, amount=1):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self._items[name] += amount

    def take(self, name, amount=1):
        available = self._items[name]
        if amount > available:
            raise OutOfStock(f"{name}: wanted {amount}, have {available}")
        self._items[name] = available - amount
        return amount
