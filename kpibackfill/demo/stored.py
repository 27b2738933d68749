"""The content of the demo's store: its snapshots, and the KPI rows that make up the story.

The values are derived from the invented people, without the code that later recomputes them.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections import Counter
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from kpibackfill.demo import people
from kpibackfill.demo.people import Evaluation, Makerspace, Month, Registration

SIGNUPS = "total_new_member_signups"
ATTENDEES = "workshop_attendees"
FIRST_TIMERS = "total_first_time_workshop_participants"
NPS = "education_nps"
PARTICIPANTS_RATE = "workshop_participants_bipoc"
INSTRUCTORS_RATE = "active_instructors_bipoc"

LOST_MONTHS = {(2021, 8), (2021, 9)}
DOUBLE_MONTHS = {(2022, 3), (2022, 4), (2022, 5)}
IMPORTED_ON = dt.date(2023, 12, 15)


class Snapshot(NamedTuple):
    id: int
    definition: str
    type: str
    date: dt.date
    source: str
    facts: Month | None


class KpiRow(NamedTuple):
    snapshot_id: int
    kpi_id: str
    value: float
    period_year: int
    period_month: int
    meta: bytes | None


def snapshots_of(space: Makerspace) -> list[Snapshot]:
    """Monthly snapshots on the first of the month, the system's annual ones on New Year's Eve, in order of date."""
    drafts: list[tuple[str, str, dt.date, str, Month | None]] = []
    for month in space.months:
        first = dt.date(month.year, month.month, 1)
        drafts.append(("plan_levels", "monthly", first, "system", None))
        if (month.year, month.month) not in LOST_MONTHS:
            drafts.append(("membership_totals", "monthly", first, "system", month))
        if (month.year, month.month) in DOUBLE_MONTHS:
            drafts.append(("membership_totals", "monthly", first, "manual_import", month))
    for year in space.years:
        months = [month for month in space.months if month.year == year]
        facts = months[-1]._replace(joins=sum(m.joins for m in months), cancels=sum(m.cancels for m in months))
        end = dt.date(year, 12, 31)
        drafts.append(("plan_levels", "annually", end, "system", None))
        drafts.append(("membership_totals", "annually", end, "system", facts))
        if year == IMPORTED_ON.year:
            drafts.append(("membership_totals", "annual", IMPORTED_ON, "manual_import", facts))
    drafts.sort(key=lambda draft: (draft[2], *draft[:2], draft[3]))
    return [Snapshot(number, *draft) for number, draft in enumerate(drafts, 1)]


def kpi_rows_of(space: Makerspace, snapshots: list[Snapshot]) -> list[KpiRow]:
    """The stored rows: ours on the annual snapshots, as the story needs them, and other programs' on all snapshots."""
    stored = _stored(space)
    rows = []
    for snapshot in snapshots:
        if snapshot.facts is None:
            continue
        year, month = snapshot.date.year, snapshot.date.month
        others = {"total_active_members": snapshot.facts.active}
        ours: dict[str, float] = {}
        if snapshot.source == "manual_import" and snapshot.type == "annual":
            ours = {ATTENDEES: round(stored[year][ATTENDEES], -1), NPS: round(stored[year][NPS])}
        elif snapshot.type == "annually":
            ours = stored.get(year, {})
            others |= {"members_paused": snapshot.facts.paused, "member_cancellations": snapshot.facts.cancels}
        rows += [KpiRow(snapshot.id, kpi_id, value, year, month, b"a:0:{}") for kpi_id, value in others.items()]
        for kpi_id, value in ours.items():
            wrong_month = (year, kpi_id) == (2020, ATTENDEES)
            meta = None if snapshot.source == "manual_import" else _meta(year, kpi_id, space.years[-1])
            rows.append(KpiRow(snapshot.id, kpi_id, _float32(value), year, 11 if wrong_month else month, meta))
    return rows


def _meta(year: int, kpi_id: str, last_year: int) -> bytes | None:
    if (year, kpi_id) == (2017, ATTENDEES):
        return b"Array"
    if year > 2018 and year != last_year:
        return None
    source, key = "makerspace_dashboard_backfill", "computed_for_year"
    return f'a:2:{{s:6:"source";s:{len(source)}:"{source}";s:{len(key)}:"{key}";i:{year};}}'.encode()


def _float32(value: float) -> float:
    """What a 4-byte FLOAT column returns for the value."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _first_timers(registrations: list[Registration]) -> dict[int, int]:
    """First-timers per year, each counted once for every different workshop label at their very first moment."""
    first: dict[int, dt.datetime] = {}
    for row in registrations:
        first[row.contact] = min(first.get(row.contact, row.event.start), row.event.start)
    found = {
        (row.contact, row.event.label)
        for row in registrations
        if row.event.is_workshop and row.event.start == first[row.contact]
    }
    return Counter(first[contact].year for contact, _ in found)


def _nps(evaluations: list[Evaluation], year: int) -> float:
    scores = [
        row.score
        for row in evaluations
        if row.created.year == year and row.form == people.EVALUATION_FORM and not row.in_draft and row.score > 0
    ]
    if not scores:
        return 0.0  # the false 0 of 2018
    balance = sum(score >= 5 for score in scores) - sum(score <= 3 for score in scores)
    return float((Decimal(100 * balance) / len(scores)).quantize(Decimal("0.1"), ROUND_HALF_UP))


def _rate(space: Makerspace, contacts: Iterable[int]) -> float:
    known = [space.contacts[contact - 1] for contact in set(contacts)]
    reported = [contact.bipoc for contact in known if not contact.is_deleted and contact.bipoc is not None]
    return sum(reported) / len(reported)


def _stored(space: Makerspace) -> dict[int, dict[str, float]]:
    """Per year, what the system's annual snapshot holds: the story told in the package's docstring."""
    counted = [row for row in space.registrations if row.counts]
    first_timers = _first_timers(counted)
    last = space.years[-1]
    stored: dict[int, dict[str, float]] = {}
    for year in space.years:
        rows = [row for row in counted if row.event.start.year == year]
        workshops = [row for row in rows if row.event.is_workshop]
        ticketed = [row for row in rows if row.event.kind == people.TICKETED]
        participants = (row.contact for row in workshops if row.event.is_active and not row.is_test)
        stored[year] = {
            SIGNUPS: sum(month.joins for month in space.months if month.year == year),
            ATTENDEES: len(workshops if year <= 2020 else ticketed),
            FIRST_TIMERS: first_timers[year],
            NPS: _nps(space.evaluations, year),
            PARTICIPANTS_RATE: _rate(space, participants),
        }
        if year in (2017, 2018):
            stored[year][PARTICIPANTS_RATE] = round(stored[year][PARTICIPANTS_RATE], 2)
        if year in (2021, 2022, 2023):
            lacking = people.BLOCKED | (people.FORMER if year != 2021 else frozenset())
            stored[year][INSTRUCTORS_RATE] = _rate(space, _instructors(space, year) - lacking)
        if year == last:
            stored[year] = {ATTENDEES: sum(row.event.start.month <= 9 for row in ticketed)}
    del stored[2016], stored[2019], stored[last - 1][NPS], stored[last - 1][PARTICIPANTS_RATE]
    return stored


def _instructors(space: Makerspace, year: int) -> set[int]:
    kinds = (people.TICKETED, people.PROGRAM)
    return {
        row.contact
        for row in space.teaching
        if row.event.start.year == year and row.event.kind in kinds and not row.deleted
    }
