"""KPIs of membership, from the snapshots of the organization."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from kpibackfill.database.expressions import exact, in_any_case
from kpibackfill.database.recorded import RecordedConnection
from kpibackfill.kpis.registry import MONTHS, SiteAt, Value, Window, kpi
from kpibackfill.tables import org_fact, snapshot


@kpi(
    "total_new_member_signups",
    label="New member signups",
    unit="count",
    family="membership",
    description="Joins, summed over the monthly membership snapshots dated inside the year.",
    sources=["ms_snapshot", "ms_fact_org_snapshot"],
    reads_store=True,
)
def total_new_member_signups(
    connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]
) -> Iterable[Value]:
    """Rests on the different months that have a snapshot, out of the months of the window."""
    if not windows:
        return []
    date = exact(snapshot.c.snapshot_date)
    first, last = min(window.start for window in windows), max(window.end for window in windows)
    rows = connection.execute(
        sa.select(
            date.label("date"),
            sa.func.count().label("snapshots"),
            sa.func.sum(org_fact.c.joins).label("joins"),
        )
        .join_from(snapshot, org_fact, org_fact.c.snapshot_id == snapshot.c.id)
        .where(
            in_any_case(snapshot.c.definition, [site.settings.definition]),
            in_any_case(snapshot.c.snapshot_type, ["monthly"]),
            date >= exact(sa.literal(first.date().isoformat())),
            date <= exact(sa.literal(last.date().isoformat())),
        )
        .group_by(date)
    )
    return [_signups(window, rows) for window in windows]


def _signups(window: Window, rows: Sequence[sa.Row[tuple[bytes, int, int | None]]]) -> Value:
    first, last = (day.date().isoformat().encode() for day in (window.start, window.end))
    inside = [row for row in rows if first <= row.date <= last]
    snapshots: dict[bytes, int] = {}
    for row in inside:
        month = row.date[:7]
        snapshots[month] = snapshots.get(month, 0) + row.snapshots
    joins = [int(row.joins) for row in inside if row.joins is not None]
    expected = MONTHS[window.cadence]
    warnings = []
    if joins and len(snapshots) < expected:
        warnings.append(f"Months without a monthly snapshot: {expected - len(snapshots)} of {expected}.")
    twice = sum(number > 1 for number in snapshots.values())
    if twice:
        warnings.append(f"Months with more than one monthly snapshot, all of them summed: {twice} of {expected}.")
    return Value(window.window_id, float(sum(joins)) if joins else None, len(snapshots), expected, warnings)
