"""What the families of definitions share: the question, and definitions put together from months."""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.explaining.months import month_windows
from kpibackfill.kpis.registry import SiteAt, Value, Window

DECEMBER = "December to November"
UNTIL = "up to the end of a month"
Candidates = Sequence[tuple[str, float | None]]
Months = Sequence[int]


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition in a few words, and by year what it gives: one value, or several of which each has a detail.

    Of several, one would fit many a number by chance: they are looked at only where the KPI's own value does not fit.
    """

    words: str
    values: Mapping[int, Candidates]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a family is asked for: the years, the KPI's own values, and where to read."""

    connection: RecordedConnection
    site: SiteAt
    years: Sequence[int]
    own: Mapping[int, Value]

    def months(self) -> list[Window]:
        """The months of the years, and the one before each."""
        return month_windows(datetime(min(self.years) - 1, 12, 1), datetime(max(self.years), 12, 31))

    def single(self, words: str, value: Callable[[int], float | None]) -> Definition:
        return Definition(words, {year: [("", value(year))] for year in self.years})

    def by_months(self, words: str, value: Callable[[Months], float | None]) -> Definition:
        """A definition by what it gives for the months of the calendar year."""
        return self.single(words, lambda year: value(months_of(year)))

    def shifted(self, words: str, value: Callable[[Months], float | None]) -> Definition:
        """The same for the months that a year's snapshots stand for when each is dated on the first of the next."""
        return self.single(words, lambda year: value([month - 1 for month in months_of(year)]))

    def until(self, words: str, value: Callable[[Months], float | None]) -> Definition:
        """The same for a year that was not over: one value for each month that it may have been counted up to."""
        values = {}
        for year in self.years:
            months = months_of(year)
            values[year] = [(calendar.month_name[last], value(months[:last])) for last in range(1, 12)]
        return Definition(words, values)


def months_of(year: int) -> list[int]:
    return list(range(year * 12, year * 12 + 12))
