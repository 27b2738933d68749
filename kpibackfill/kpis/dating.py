"""Which period a snapshot's date stands for, and what the time at which it was made tells about that."""

from __future__ import annotations

from calendar import monthrange
from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from kpibackfill.config import Convention
from kpibackfill.kpis.registry import MONTHS, Cadence

DAY = 24 * 60 * 60
SLACK, IN_TIME = 2 * DAY, 45 * DAY
"""A snapshot may be made shortly before its period is over; one that is made long after tells nothing."""


class Taken(NamedTuple):
    """A snapshot with the unix time at which it was made, ``None`` where that is unknown."""

    cadence: Cadence
    dated: date
    made: int | None


def convention(snapshots: Iterable[Taken], zone: ZoneInfo) -> Convention | None:
    """How most of these snapshots are dated; ``None`` if that can't be told.

    One made before the period of its date was over stands for the period before. Those of which nobody knows when they
    were made don't count against it.
    """
    told = Counter(_told(one, zone) for one in snapshots)
    if told["first_of_next_month"] * 2 > told.total() - told["unknown"]:
        return "first_of_next_month"
    return "period" if told["period"] * 2 > told.total() else None


def _told(one: Taken, zone: ZoneInfo) -> Convention | Literal["late", "unknown"]:
    start, end = window(one.dated, one.cadence)
    if one.dated != start.date():
        return "period"
    if one.made is None:
        return "unknown"
    after = one.made - end.replace(tzinfo=zone).timestamp()
    return "first_of_next_month" if after < -SLACK else "period" if after < IN_TIME else "late"


def day(text: str) -> date:
    """The date of a snapshot, from ``YYYY-MM-DD``. Raises ValueError for any other text."""
    dated = date.fromisoformat(text)
    if dated.isoformat() != text:  # Python also accepts 20240131 and 2024-W05, the snapshot module doesn't
        raise ValueError(text)
    return dated


def window(dated: date, cadence: Cadence, *, later: bool = False) -> tuple[datetime, datetime]:
    """First and last second of the calendar year, quarter or month that a snapshot's date represents.

    It is the one that contains the date, or the one before where the snapshot is dated `later`.
    """
    months = MONTHS[cadence]
    first = dated.year * 12 + (dated.month - 1) // months * months
    first -= months if later else 0
    year, month = divmod(first, 12)
    return datetime(year, month + 1, 1), datetime(year, month + months, monthrange(year, month + months)[1], 23, 59, 59)
