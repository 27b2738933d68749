"""Membership KPIs, from the organization's snapshots."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from kpibackfill.database.expressions import exact, in_any_case
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.database.snapshot_table import made
from kpibackfill.kpis.dating import Taken, convention, day
from kpibackfill.kpis.registry import MONTHS, SiteAt, Value, Window, kpi
from kpibackfill.tables import org_fact, snapshot
from kpibackfill.text import count

MONTH = re.compile(rb"(\d{4})-(0[1-9]|1[0-2])(?!\d)")
"""A date that names its month. Dates are compared as texts, so a window can also hold snapshots with odd dates."""


@kpi(
    "total_new_member_signups",
    label="New member signups",
    unit="count",
    family="membership",
    description="Joins, summed over the period's monthly membership snapshots.",
    sources=["ms_snapshot", "ms_fact_org_snapshot"],
    reads_store=True,
    cadences=("annual", "quarterly", "monthly"),
)
def total_new_member_signups(
    connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]
) -> Iterable[Value]:
    """Based on the number of different months with a snapshot, out of the months in the window."""
    if not windows:
        return []
    date = exact(snapshot.c.snapshot_date)
    dates = {window.window_id: _dates(window, later=site.settings.dated.later("monthly")) for window in windows}
    first, last = min(first for first, _ in dates.values()), max(last for _, last in dates.values())
    rows = connection.execute(
        sa.select(
            date.label("date"),
            made(connection.columns(snapshot.name, civicrm=False)),
            sa.func.count().label("snapshots"),
            sa.func.sum(org_fact.c.joins).label("joins"),
        )
        .join_from(snapshot, org_fact, org_fact.c.snapshot_id == snapshot.c.id)
        .where(
            in_any_case(snapshot.c.definition, [site.settings.definition]),
            in_any_case(snapshot.c.snapshot_type, ["monthly"]),
            date >= exact(sa.literal(first)),
            date <= exact(sa.literal(last)),
        )
        .group_by("date", "made")
    )
    return [_signups(window, dates[window.window_id], rows, site) for window in windows]


def _dates(window: Window, *, later: bool) -> tuple[str, str]:
    """The first and the last date of a window's monthly snapshots, one month later where the site dates them so."""
    if not later:
        return window.start.date().isoformat(), window.end.date().isoformat()
    # Windows are whole months; each month's snapshot is dated on some day of the next month.
    first, last = (f"{day.year + day.month // 12}-{day.month % 12 + 1:02}" for day in (window.start, window.end))
    return f"{first}-01", f"{last}-31"


def _signups(window: Window, dates: tuple[str, str], rows: Sequence[sa.Row[Any]], site: SiteAt) -> Value:
    first, last = (day.encode() for day in dates)
    inside = [row for row in rows if first <= row.date <= last]
    snapshots, undated = Counter[bytes](), 0
    for row in inside:
        if MONTH.match(row.date):
            snapshots[row.date[:7]] += row.snapshots
        else:
            undated += row.snapshots
    joins = [int(row.joins) for row in inside if row.joins is not None]
    expected = MONTHS[window.cadence]
    warnings = []
    if joins and len(snapshots) < expected:
        warnings.append(f"{_have(expected - len(snapshots), expected)} no monthly snapshot.")
    twice = sum(number > 1 for number in snapshots.values())
    if twice:
        warnings.append(f"{_have(twice, expected)} more than one monthly snapshot; all of them are summed.")
    if undated:
        are, they_are = ("is", "it is") if undated == 1 else ("are", "they are")
        warnings.append(f"{count(undated, 'monthly snapshot')} {are} not dated YYYY-MM-DD; {they_are} counted.")
    if joins and not site.settings.dated.later("monthly"):
        warnings += _month_before(window, inside, site)
    return Value(window.window_id, float(sum(joins)) if joins else None, len(snapshots), expected, warnings)


def _month_before(window: Window, rows: Iterable[sa.Row[Any]], site: SiteAt) -> list[str]:
    """A sentence if the snapshots' dates are those of the months after the ones whose joins they hold."""
    taken: list[Taken] = []
    for row in rows:
        with suppress(ValueError):
            taken += [Taken("monthly", day(row.date.decode()), row.made)] * row.snapshots
    if convention(taken, site.zone) != "first_of_next_month":
        return []
    before = (day - timedelta(days=1) for day in (window.start, window.end.replace(day=1)))
    covered, own = " to ".join(dict.fromkeys(f"{month:%B %Y}" for month in before)), (window.start, window.end)
    setting = site.settings.dated.model_copy(update={"monthly": "first_of_next_month"}).setting()
    return [
        "The monthly snapshots were taken on the first of the following month, so this sums the joins of "
        f"{covered}; {setting} sums those of {' to '.join(dict.fromkeys(f'{month:%B}' for month in own))}."
    ]


def _have(some: int, all_: int) -> str:
    return f"{some} of {count(all_, 'month')} {'has' if some == 1 else 'have'}"
