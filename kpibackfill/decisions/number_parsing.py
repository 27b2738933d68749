"""Numbers as people and spreadsheets write them in a decisions file: read as they were meant, or not at all."""

from __future__ import annotations

import re

# Four ways to write a number; the second and the third group digits by thousands.
_PLAIN = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_GROUPED_BY_COMMA = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_GROUPED_BY_DOT = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d{1,3})?", re.ASCII)
_TWO_READINGS = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}", re.ASCII)
# The largest 4-byte float: MariaDB refuses a larger number even if it would be rounded to this one.
_LARGEST = 3.4028234663852886e38


def number(text: str, *, decimal_comma_likely: bool = False) -> float:
    """Return the number that a person or a spreadsheet meant.

    Raises
    ------
    ValueError : it is not a finite number, or it is ambiguous, such as ``1,234``; the message says which.
    """
    text = re.sub(r"(?<=\d)[\u00a0\u202f\u2009 '’](?=\d{3}(?!\d))", "", text.strip()).replace("\u2212", "-")
    two = _TWO_READINGS.fullmatch(text)
    if two and (two[1] == "," or decimal_comma_likely):
        digits = text.replace(two[1], "")
        raise ValueError(f"{text!r} may mean {digits} or {text.replace(two[1], '.')}: write {digits} or {text}0")
    if _PLAIN.fullmatch(text):
        found = float(text)
    elif _GROUPED_BY_COMMA.fullmatch(text):
        found = float(text.replace(",", ""))
    elif _GROUPED_BY_DOT.fullmatch(text):
        found = float(text.replace(".", "").replace(",", "."))
    elif _DECIMAL_COMMA.fullmatch(text):
        found = float(text.replace(",", "."))
    else:
        raise ValueError(f"{text[:40]!r} is not a number")
    if abs(found) > _LARGEST:
        raise ValueError(f"{text[:40]!r} is too large for the fact table")
    return found


def spelled(value: float, *, decimal_comma: bool) -> str:
    """Write a number, with a decimal comma or not, so that `number` reads it back unchanged."""
    text = repr(float(value))
    if not decimal_comma:
        return text
    text = text.replace(".", ",")
    return f"{text}0" if _TWO_READINGS.fullmatch(text) else text
