"""How numbers are compared and shown.

The fact table stores 4-byte floats, so two values are equal if they are equal as 4-byte floats.
"""

from __future__ import annotations

import math
import struct
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Literal

Unit = Literal["count", "points", "fraction"]
FEW_PEOPLE = 5
FEW = "< 5"
NONE = "–"
NOT_FOR_PUBLICATION = "not for publication"


def float4(value: float) -> float:
    """The value as the fact table stores it, as a double; infinite where 4 bytes can't hold it."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def same(one: float, other: float) -> bool:
    """Whether two values are the same stored number; NaN equals NaN."""
    one, other = float4(one), float4(other)
    return one == other or (math.isnan(one) and math.isnan(other))


def rounded(value: float, digits: int) -> float:
    """The value rounded as people do: half away from zero, by the digits shown, so that 0.125 becomes 0.13."""
    last = Decimal(1).scaleb(-digits)
    return float(Decimal(repr(float(value))).quantize(last, ROUND_HALF_UP, Context(prec=400)))


def amount(value: float | None, unit: Unit | None) -> str:
    """A value as people see it: ``1,234``, ``22.0`` or ``57.6 %``; an en dash for none.

    Without a unit it is the shortest text for the stored number, such as ``0.41``.
    """
    if value is None or math.isnan(value):
        return NONE
    if unit is None:
        value = _shortest(float4(value))
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if unit is None:
        text = f"{value:,.15g}"
    elif unit == "fraction":
        text = f"{value * 100:,.1f} %"
    elif unit == "points":
        text = f"{value:,.1f}"
    else:
        text = f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
    return text.replace("-", "−")


def measure(delta: float | None, change: float | None, unit: Unit) -> str:
    """Drift in the KPI's own measure: percent for counts, points for scores and rates, or ``under 0.1 points``."""
    number = change if unit == "count" else delta
    if number is None or math.isnan(number):
        return NONE
    if unit == "points":
        text = f"{number:+,.1f} points"
    else:
        text = f"{number * 100:+,.1f} " + ("%" if unit == "count" else "points")
    if number and text[1:].startswith("0.0 "):
        return f"under {text[1:].replace('0.0', '0.1')}"
    return text.replace("-", "−").replace("inf", "∞")


def too_few(unit: Unit | None, basis: int | None) -> bool:
    """Whether a rate is based on so few people, but at least one, that it must not be shown."""
    return unit == "fraction" and basis is not None and 0 < basis < FEW_PEOPLE


def published(value: float | None, unit: Unit | None, basis: int | None) -> str:
    """As `amount`, or ``< 5`` for a rate that is based on too few people."""
    there = value is not None and not math.isnan(value)
    return FEW if there and too_few(unit, basis) else amount(value, unit)


def _shortest(value: float) -> float:
    """The number with the fewest digits that the fact table stores as this one; nine are always enough."""
    return next(number for digits in range(1, 10) if same(number := float(f"{value:.{digits}g}"), value))
