"""Pieces of sentences that many of them need."""

from __future__ import annotations

from collections.abc import Iterable


def some(items: Iterable[object], most: int = 5, between: str = ", ") -> str:
    """The first of them, and how many more there are: ``a, b and 3 more``."""
    found = [str(item) for item in items]
    more = f"{between.rstrip(', ')} and {len(found) - most} more" if len(found) > most else ""
    return between.join(found[:most]) + more
