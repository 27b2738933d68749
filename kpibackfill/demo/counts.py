"""What the KPIs count among the invented people, by month, without the code that later recomputes it."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import TypeVar

from kpibackfill.demo import people
from kpibackfill.demo.people import Makerspace, Registration

YearMonth = tuple[int, int]
Row = TypeVar("Row")


class Counts:
    """The KPIs over any months, given as (year, month); a rate or an NPS without a single answer is None."""

    def __init__(self, space: Makerspace) -> None:
        counted = [row for row in space.registrations if row.counts]
        scores = (row for row in space.evaluations if row.form == people.EVALUATION_FORM and not row.in_draft)
        taught = (row for row in space.teaching if row.event.kind in (people.TICKETED, people.PROGRAM))
        self._contacts = space.contacts
        self._registrations = _by_month(counted, lambda row: row.event.start)
        self._scores = _by_month((row for row in scores if row.score > 0), lambda row: row.created)
        self._taught = _by_month((row for row in taught if not row.deleted), lambda row: row.event.start)
        self._first_timers = _first_timers(counted)

    def attendees(self, months: Iterable[YearMonth], *, of_all_workshops: bool = False) -> int:
        events = (row.event for month in months for row in self._registrations[month])
        return sum(event.is_workshop if of_all_workshops else event.kind == people.TICKETED for event in events)

    def first_timers(self, months: Iterable[YearMonth]) -> int:
        return sum(self._first_timers[month] for month in months)

    def nps(self, months: Iterable[YearMonth]) -> float | None:
        scores = [row.score for month in months for row in self._scores[month]]
        if not scores:
            return None
        balance = sum(score >= 5 for score in scores) - sum(score <= 3 for score in scores)
        return float((Decimal(100 * balance) / len(scores)).quantize(Decimal("0.1"), ROUND_HALF_UP))

    def participants_rate(self, months: Iterable[YearMonth]) -> float | None:
        rows = (row for month in months for row in self._registrations[month])
        return self._rate(
            {row.contact for row in rows if row.event.is_workshop and row.event.is_active and not row.is_test}
        )

    def instructors_rate(self, months: Iterable[YearMonth], lacking: frozenset[int]) -> float | None:
        """The rate of those who taught, without those who lack the role or the account today."""
        return self._rate({row.contact for month in months for row in self._taught[month]} - lacking)

    def _rate(self, contacts: set[int]) -> float | None:
        known = (self._contacts[contact - 1] for contact in contacts)
        reported = [contact.bipoc for contact in known if not contact.is_deleted and contact.bipoc is not None]
        return sum(reported) / len(reported) if reported else None


def _by_month(rows: Iterable[Row], moment: Callable[[Row], dt.datetime]) -> defaultdict[YearMonth, list[Row]]:
    months: defaultdict[YearMonth, list[Row]] = defaultdict(list)
    for row in rows:
        at = moment(row)
        months[at.year, at.month].append(row)
    return months


def _first_timers(registrations: list[Registration]) -> Counter[YearMonth]:
    """First-timers, each counted once for every different workshop label at their very first moment."""
    first: dict[int, dt.datetime] = {}
    for row in registrations:
        first[row.contact] = min(first.get(row.contact, row.event.start), row.event.start)
    found = {
        (row.contact, row.event.label)
        for row in registrations
        if row.event.is_workshop and row.event.start == first[row.contact]
    }
    return Counter((first[contact].year, first[contact].month) for contact, _ in found)
