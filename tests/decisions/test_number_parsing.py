"""Numbers as people write them: read to the last digit as meant, and refused if the fact table can't hold them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpibackfill.decisions.number_parsing import number, spelled


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30))
def test_a_number_is_read_to_its_last_digit(value: float) -> None:
    assert number(repr(value)) == value


@given(st.floats(-1e30, 1e30) | st.integers(-(10**6), 10**6).map(lambda thousandths: thousandths / 1000), st.booleans())
def test_a_written_number_can_be_read_in_only_one_way(value: float, decimal_comma: bool) -> None:
    assert number(spelled(value, decimal_comma=decimal_comma), decimal_comma_likely=decimal_comma) == value


@given(st.integers(-(10**9), 10**9), st.integers(0, 99))
def test_a_number_grouped_by_thousands_is_read_either_way(whole: int, cents: int) -> None:
    english = f"{whole:,}.{cents:02}"
    german = english.translate(str.maketrans(",.", ".,"))
    for text in (english, german, german.replace(".", "\u202f"), english.replace("-", "\u2212")):
        assert number(text) == float(f"{whole}.{cents:02}"), text


def test_numbers_too_large_for_four_bytes_are_refused() -> None:
    assert number("3.4028234663852886e38") == float(np.finfo("float32").max)
    for text in ("3.4028234663852888e38", "-3.4028235e38", "1e400"):
        with pytest.raises(ValueError, match="too large for the fact table"):
            number(text)
