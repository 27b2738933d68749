"""How signups are computed: joins by month and by snapshot source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from kpibackfill.database.expressions import exact, in_any_case
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.explaining.alternatives import UNTIL, Alternatives, Rule, by_months, compares, grid, until
from kpibackfill.explaining.parts import Explained, Parts, explains
from kpibackfill.explaining.registrations import text_of
from kpibackfill.explaining.windows import month_name, months_of
from kpibackfill.kpis.membership import MONTH
from kpibackfill.kpis.registry import SiteAt, Window
from kpibackfill.tables import org_fact, snapshot

UNDATED = -1
"""Instead of a month, for snapshots whose date names none."""


@dataclass(frozen=True, slots=True)
class Joins:
    """The snapshots of one kind and source dated in one month (or `UNDATED`): how many, and their joins (``None``:
    empty)."""

    month: int
    kind: str
    source: str
    snapshots: int
    joins: int | None


def joins(connection: RecordedConnection, site: SiteAt, months: Sequence[int]) -> list[Joins]:
    """The organization's snapshots of any kind whose dates sort into these months, compared as the KPI does."""
    date = exact(snapshot.c.snapshot_date)
    has_source = "source" in connection.columns(snapshot.name, civicrm=False)
    rows = connection.execute(
        sa.select(
            date.label("date"),
            exact(snapshot.c.snapshot_type).label("kind"),
            (exact(snapshot.c.source) if has_source else sa.null()).label("source"),
            sa.func.count(),
            sa.func.sum(org_fact.c.joins),
        )
        .join_from(snapshot, org_fact, org_fact.c.snapshot_id == snapshot.c.id)
        .where(
            in_any_case(snapshot.c.definition, [site.settings.definition]),
            date >= exact(sa.literal(f"{month_name(min(months))}-01")),
            date <= exact(sa.literal(f"{month_name(max(months))}-31")),
        )
        .group_by("date", "kind", "source")
    )
    found = []
    for day, kind, source, number, joined in rows:
        named = MONTH.match(day)
        month = int(named[1]) * 12 + int(named[2]) - 1 if named else UNDATED
        kind, source = kind.decode("utf-8", "replace").lower(), text_of(source or b"none")
        found.append(Joins(month, kind, source, int(number), None if joined is None else int(joined)))
    return found


@explains("total_new_member_signups")
def signups(connection: RecordedConnection, site: SiteAt, window: Window) -> Explained:
    """The joins of the period's monthly snapshots, and the months with none or more than one."""
    later = site.settings.dated.later("monthly")
    months = [month + later for month in months_of(window)]
    monthly = [row for row in joins(connection, site, months) if row.kind == "monthly"]
    by_month, by_source, snapshots = Counter[int](), Counter[str](), Counter[int]()
    for row in monthly:
        snapshots[row.month] += row.snapshots
        if row.joins is not None:
            by_month[row.month] += row.joins
            by_source[row.source] += row.joins
    missing = [month for month in months if not snapshots[month]]
    twice = [month for month in months if snapshots[month] > 1]
    notes = []
    if missing:
        notes.append(f"No monthly snapshot: {', '.join(month_name(month - later) for month in missing)}.")
    if twice:
        notes.append(f"More than one monthly snapshot, all summed: {', '.join(month_name(m - later) for m in twice)}.")
    by_date = {month_name(month - later): by_month[month] for month in months if month in by_month}
    undated = {"not dated YYYY-MM-DD": by_month[UNDATED]} if UNDATED in by_month else {}
    return Explained(
        [
            # A figure takes every label of parts by month for a month.
            Parts("date" if undated else "month", by_date | undated),
            Parts("snapshot source", dict(by_source.most_common())),
        ],
        {"months without a monthly snapshot": len(missing), "months counted more than once": len(twice)},
        notes=notes,
        population="months",
    )


@compares("total_new_member_signups", own="all monthly snapshots")
def other_signups(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> Alternatives:
    """Other snapshots than all monthly ones, or other months."""
    later = site.settings.dated.later("monthly")
    months = [month.window_id for month in grid(windows)]
    rows = joins(connection, site, [*months, months[-1] + 1])
    monthly = [row for row in rows if row.kind == "monthly" and row.joins is not None]
    a_year_later = site.settings.dated.later("annual")
    annual = {row.month // 12 - a_year_later: row.joins for row in rows if row.kind in ("annually", "annual")}

    def dated(wanted: Iterable[Joins], shift: int = later) -> Rule:
        by_month = Counter[int]()
        for row in wanted:
            by_month[row.month - shift] += row.joins or 0
        return lambda months: float(sum(by_month[m] for m in months)) if any(m in by_month for m in months) else None

    largest = {row.month: row for row in sorted(monthly, key=lambda row: row.joins or 0)}
    sources = sorted({row.source for row in monthly})
    of_date = "by the month of the snapshot's date" if later else "snapshots of the month before their date"
    rules = {
        f"source {source.replace('_', ' ')} only": dated(row for row in monthly if row.source == source)
        for source in (sources[:4] if len(sources) > 1 else ())
    }
    rules["the largest snapshot of each month"] = dated(largest.values())
    rules[of_date] = dated(monthly, 0 if later else 1)
    return {
        "the annual snapshot's own joins": annual,
        **{words: by_months(windows, rule) for words, rule in rules.items()},
        UNTIL: until(windows, dated(monthly)),
    }
