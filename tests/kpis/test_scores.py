"""How an answer's text becomes a score, and scores an NPS."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kpibackfill.kpis.evaluations import nps, score
from tests.kpis import oracle

almost_numbers = st.text(alphabet="0123456789.+-eE \t\n\r\v\f\0x５\u00a0", max_size=8)
numbers = st.from_regex(r"\A[ \t\n\r\v\f]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?[ \t\n\r\v\f]*\Z")


@given(st.text() | almost_numbers | numbers)
@example("1e400")
@example("-1e400")
@example("9" * 400)
@example("5 - Very likely")
@example("4/5")
@example("1e5x")
def test_a_score_is_read_as_the_definition_says(text: str) -> None:
    assert score(text.encode("utf-8", "surrogatepass")) == (oracle.score(text), oracle.is_number(text))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_printed_number_is_cut_to_its_whole_part(number: float) -> None:
    assert score(repr(number).encode()) == (math.trunc(number), True)


@given(st.integers(-(10**15), 10**15), st.sampled_from([" ", "\t", "\n", "\r", "\v", "\f"]))
def test_a_whole_number_is_itself_with_blanks_around(number: int, blank: str) -> None:
    assert score(f"{blank}{number}{blank}".encode()) == (number, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3.999999999999999999", (4, True)),
        ("+5", (5, True)),
        ("1e1", (10, True)),
        ("5.", (5, True)),
        ("-.9", (0, True)),
        ("5 - Very likely", (0, False)),
        ("5 (very likely)", (5, False)),
        ("4/5", (45, False)),
        ("3,5", (35, False)),
        ("５", (0, False)),
        ("5\u00a0", (5, False)),
        ("5\0", (5, False)),
        ("1.5.2", (0, False)),
        ("", (0, False)),
    ],
)
def test_odd_answers(text: str, expected: tuple[int, bool]) -> None:
    assert score(text.encode()) == expected


def test_bytes_that_are_not_utf8_are_read_too() -> None:
    assert score(b"\xff5\xe9") == (5, False)


def test_every_nps_up_to_400_scores_is_rounded_half_away_from_zero() -> None:
    seen = 0
    for scores in range(1, 401):
        for net in range(-scores, scores + 1):
            seen += 1
            exact = Fraction(1000 * net, scores)
            tenths = math.floor(abs(exact) + Fraction(1, 2))
            value = nps(max(net, 0), max(-net, 0), scores)
            assert value == float(Fraction(tenths if net > 0 else -tenths, 10))
            assert str(value) != "-0.0"
    assert seen == 160_800
    assert nps(1, 0, 16) == 6.3
    assert nps(0, 1, 16) == -6.3
    assert nps(0, 0, 0) is None
