"""The content of the demo's store: its snapshots, and the KPI rows that make up the story.

The values are derived from the invented people, without the code that later recomputes them.
"""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from kpibackfill.database.php_serialize import dumps
from kpibackfill.demo import people
from kpibackfill.demo.counts import Counts
from kpibackfill.demo.people import Makerspace, Month
from kpibackfill.numbers import float4

SIGNUPS = "kpi_total_new_member_signups"
ATTENDEES = "kpi_workshop_attendees"
FIRST_TIMERS = "kpi_total_first_time_workshop_participants"
NPS = "kpi_education_nps"
PARTICIPANTS_RATE = "kpi_workshop_participants_bipoc"
INSTRUCTORS_RATE = "kpi_active_instructors_bipoc"
ACTIVE_MEMBERS = "kpi_total_active_members"

HOOK_BEGAN = (2024, 1)
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
    for year in space.years:
        months = [month for month in space.months if month.year == year]
        for month in months:
            first = dt.date(year, month.month, 1)
            drafts.append(("plan_levels", "monthly", first, "system", None))
            if (year, month.month) not in LOST_MONTHS:
                drafts.append(("membership_totals", "monthly", first, "system", month))
            if (year, month.month) in DOUBLE_MONTHS:
                drafts.append(("membership_totals", "monthly", first, "manual_import", month))
        facts = months[-1]._replace(joins=sum(m.joins for m in months), cancels=sum(m.cancels for m in months))
        end = dt.date(year, 12, 31)
        drafts.append(("plan_levels", "annually", end, "system", None))
        drafts.append(("membership_totals", "annually", end, "system", facts))
        if year == IMPORTED_ON.year:
            drafts.append(("membership_totals", "annual", IMPORTED_ON, "manual_import", facts))
    drafts.sort(key=lambda draft: (draft[2], *draft[:2], draft[3]))
    return [Snapshot(number, *draft) for number, draft in enumerate(drafts, 1)]


def kpi_rows_of(space: Makerspace, snapshots: list[Snapshot]) -> list[KpiRow]:
    """The stored rows: on annual snapshots what the story needs and rows of others, on monthly ones the hook's."""
    counts = Counts(space)
    stored = _stored(space, counts)
    rows = []
    for snapshot in snapshots:
        if snapshot.facts is None:
            continue
        year, month = snapshot.date.year, snapshot.date.month
        others: dict[str, float] = {}
        ours: dict[str, float] = {}
        if snapshot.type == "monthly":
            if (year, month) >= HOOK_BEGAN:
                others = _frozen(snapshot.facts, counts)
        else:
            others[ACTIVE_MEMBERS] = snapshot.facts.active
            if snapshot.source == "manual_import":
                ours = {ATTENDEES: round(stored[year][ATTENDEES], -1), NPS: round(stored[year][NPS])}
            else:
                ours = stored.get(year, {})
                # Never prefixed, on any site.
                others |= {"active_members_bipoc_count": snapshot.facts.active * 2 // 7, "joins_bipoc_rate": 2 / 7}
        rows += [KpiRow(snapshot.id, kpi_id, float4(v), year, month, dumps({})) for kpi_id, v in others.items()]
        for kpi_id, value in ours.items():
            wrong_month = (year, kpi_id) == (2020, ATTENDEES)
            meta = None if snapshot.source == "manual_import" else _meta(year, kpi_id, space.years[-1])
            rows.append(KpiRow(snapshot.id, kpi_id, float4(value), year, 11 if wrong_month else month, meta))
    return rows


def _meta(year: int, kpi_id: str, last_year: int) -> bytes | None:
    if (year, kpi_id) == (2017, ATTENDEES):
        return b"Array"
    if year > 2018 and year != last_year:
        return None
    return dumps({"source": "makerspace_dashboard_backfill", "computed_for_year": year})


def _frozen(facts: Month, counts: Counts) -> dict[str, float]:
    """What the site's hook stores at the monthly snapshot with these facts."""
    period = [(facts.year, facts.month)]
    last_month = 12 * facts.year + facts.month - 1
    twelve_months = [(month // 12, month % 12 + 1) for month in range(last_month - 11, last_month + 1)]
    values = {
        ATTENDEES: counts.attendees(period),
        FIRST_TIMERS: counts.first_timers(period),
        PARTICIPANTS_RATE: counts.participants_rate(period),
        INSTRUCTORS_RATE: counts.instructors_rate(period, people.BLOCKED | people.FORMER),
        SIGNUPS: facts.joins,
        ACTIVE_MEMBERS: facts.active,
        NPS: counts.nps(twelve_months),
    }
    return {kpi_id: value for kpi_id, value in values.items() if value is not None}


def _stored(space: Makerspace, counts: Counts) -> dict[int, dict[str, float]]:
    """Per year, what the system's annual snapshot holds: the story told in the package's docstring."""
    last = space.years[-1]
    stored: dict[int, dict[str, float]] = {}
    for year in space.years:
        months = [(year, month) for month in range(1, 13)]
        values = {
            SIGNUPS: sum(month.joins for month in space.months if month.year == year),
            ATTENDEES: counts.attendees(months, of_all_workshops=year <= 2020),
            FIRST_TIMERS: counts.first_timers(months),
            NPS: 0.0 if year == people.NO_EVALUATIONS else counts.nps(months),
            PARTICIPANTS_RATE: counts.participants_rate(months),
        }
        if year in (2021, 2022, 2023):
            lacking = people.BLOCKED | (people.FORMER if year != 2021 else frozenset())
            values[INSTRUCTORS_RATE] = counts.instructors_rate(months, lacking)
        if year == last:
            values = {ATTENDEES: counts.attendees(months[:9])}
        stored[year] = {kpi_id: value for kpi_id, value in values.items() if value is not None}
    for year in (2017, 2018):
        stored[year][PARTICIPANTS_RATE] = round(stored[year][PARTICIPANTS_RATE], 2)
    del stored[2016], stored[2019], stored[last - 1][NPS], stored[last - 1][PARTICIPANTS_RATE]
    return stored
