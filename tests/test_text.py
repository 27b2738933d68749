"""Sentences name a few and count the rest."""

from __future__ import annotations

import pytest

from kpibackfill.text import count, some


@pytest.mark.parametrize(
    ("count", "between", "text"),
    [(0, ", ", ""), (2, ", ", "1, 2"), (3, ", ", "1, 2 and 1 more"), (12, "; ", "1; 2; and 10 more")],
)
def test_the_first_are_named_and_the_rest_is_counted(count: int, between: str, text: str) -> None:
    assert some(range(1, count + 1), 2, between) == text


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("row",), "0 rows"),
        (1, ("row",), "1 row"),
        (1234, ("row",), "1,234 rows"),
        (2, ("query", "queries"), "2 queries"),
    ],
)
def test_a_number_agrees_with_its_noun(number: int, words: tuple[str, ...], text: str) -> None:
    assert count(number, *words) == text
