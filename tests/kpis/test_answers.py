"""How an answer about ethnicity is split and sorted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpibackfill.kpis import ethnicity, instructors
from kpibackfill.kpis.ethnicity import is_bipoc
from tests.kpis import oracle

PARTICIPANTS, INSTRUCTORS = ethnicity.SEPARATORS, instructors.SEPARATORS
pieces = st.sampled_from(
    [
        *("\0", "\x01", "\x02", "|", ",", ";", " ", "\t", "\n", "\r", "\v", "\f", "\u00a0", "\u212a", "İ", "é"),
        *("white", "WHITE", "Caucasian", "asian", "Black", "other", "unspecified", "Not Specified", "not_specified"),
        *("unknown", "prefer not", "decline", "N/A", "n/", "not provided"),
    ]
)


@given(st.lists(pieces | st.text(max_size=3), max_size=8).map("".join))
def test_an_answer_is_sorted_as_the_definition_says(text: str) -> None:
    for separators, texts in ((PARTICIPANTS, "\x01\x02|"), (INSTRUCTORS, "\0\x01\x02|;")):
        rate, reported, _ = oracle.rate([[text]], texts)
        expected = None if not reported else rate == 1
        assert is_bipoc(text.encode("utf-8", "surrogatepass"), separators) is expected


@pytest.mark.parametrize(
    ("text", "of_participant", "of_instructor"),
    [
        ("", None, None),
        ("\x01decline\x01", None, None),
        ("\x01decline\x01black\x01", True, True),
        ("\x01white\x01other\x01", True, True),
        ("white;asian", False, True),
        ("white\0asian", False, True),
        ("\0", None, None),
        ("Non-White", False, False),
        ("white|MÉTIS", True, True),
        ("\u00a0", True, True),
        ("prefer not to say|n/a,unknown", None, None),
    ],
)
def test_answers(text: str, of_participant: bool | None, of_instructor: bool | None) -> None:
    assert is_bipoc(text.encode(), PARTICIPANTS) is of_participant
    assert is_bipoc(text.encode(), INSTRUCTORS) is of_instructor
