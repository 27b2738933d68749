"""Checks the snapshots: how many each year has, and which periods their dates stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.checks.finding import Finding, note, ok, wrong
from kpibackfill.config import Site, Target
from kpibackfill.database.expressions import in_any_case
from kpibackfill.database.inspection import name_of
from kpibackfill.database.snapshot_table import optional
from kpibackfill.kpis.dating import day, window
from kpibackfill.kpis.registry import Cadence
from kpibackfill.parameters import CADENCES
from kpibackfill.tables import snapshot
from kpibackfill.text import some

SLACK = timedelta(days=2)


class _Snapshot(NamedTuple):
    cadence: Cadence
    dated: date
    created: datetime | None

    @property
    def begins(self) -> bool:
        """Whether its date is the first day of a period."""
        return window(self.dated, self.cadence)[0].date() == self.dated

    @property
    def early(self) -> bool:
        """Whether it was made before the period of its date was over, and so can't stand for that period."""
        return self.created is not None and self.created + SLACK < window(self.dated, self.cadence)[1]


def check_snapshots(connection: Connection, site: Site, target: Target) -> Iterator[Finding]:
    rows = connection.execute(
        sa.select(
            snapshot.c.snapshot_type.label("type"),
            snapshot.c.snapshot_date.label("date"),
            *optional(connection, "created_at", "created"),
        ).where(in_any_case(snapshot.c.definition, [site.definition]))
    ).all()
    if not rows:
        there = connection.scalars(sa.select(snapshot.c.definition).distinct().limit(20)).all()
        yield note(
            f"There is no snapshot with the definition {site.definition!r}. Set definition in [site] to one that "
            f"exists: {', '.join(sorted(filter(None, there))) or 'there are none'}."
        )
        return
    found: list[_Snapshot] = []
    odd = set()
    for row in rows:
        kind = row.type.lower()
        if kind in CADENCES:
            try:
                dated = day(row.date)
            except ValueError:
                odd.add(row.date)
                continue
            at = row.created_at or row.created  # 0 where it is unknown
            made = datetime.fromtimestamp(at, target.zone).replace(tzinfo=None) if at else None
            found.append(_Snapshot(CADENCES[kind], dated, made))
    if odd:
        yield wrong(
            f"Some snapshots have dates that don't exist: {some(map(repr, sorted(odd)))}. "
            f"Fix them in {name_of(connection, snapshot.name)}."
        )
    annual = [one for one in found if one.cadence == "annual"]
    yield _counts(site, target, annual, Counter(row.type.lower() for row in rows))
    yield from _dated(site, found)


def _counts(site: Site, target: Target, annual: Sequence[_Snapshot], types: Counter[str]) -> Finding:
    per_year = Counter(window(one.dated, "annual", later=site.dated.later("annual"))[0].year for one in annual)
    others = ", ".join(f"{rows} {name}" for name, rows in sorted(types.items()) if CADENCES.get(name) != "annual")
    also = f" Also: {others}." if others else ""
    if not per_year:
        return note(f"There is no annual snapshot of {site.definition!r}, so a run has nothing to compare.{also}")
    years = ", ".join(f"{year}: {per_year[year]}" for year in range(min(per_year), max(per_year) + 1))
    over = [year for year in per_year if year < datetime.now(target.zone).year] or list(per_year)
    return ok(
        f"Annual snapshots by year: {years}.{also}", f"kpibackfill run --target {target.name} --from-year {max(over)}"
    )


def _dated(site: Site, found: Iterable[_Snapshot]) -> Iterator[Finding]:
    """Whether snapshots are dated within the periods they stand for, or on the first day after them."""
    if site.dated.later("annual"):
        odd = [one for one in found if not one.begins]
        if odd:
            yield note(
                'dated = "first_of_next_month", but some snapshots are not dated on the first day of a period '
                f"({len(odd)}, such as the {odd[-1].cadence} one of {odd[-1].dated}). If snapshots are dated within "
                'the periods they stand for, set dated = "period" in [site].'
            )
        else:
            yield ok('Snapshots are dated on the first day after their periods, as dated = "first_of_next_month" says.')
        return
    annual = [one for one in found if one.cadence == "annual"]
    after = [one for one in annual if one.begins]
    monthly = [one for one in found if one.begins and one.created is not None and one.cadence != "annual"]
    early = [one for one in monthly if one.early]
    set_it = 'set dated = "first_of_next_month" in [site].'
    if len(after) * 2 > len(annual):
        last = max(one.dated for one in after)
        yield note(
            f"Annual snapshots dated 1 January: {len(after)} of {len(annual)}. If the one of {last} stands for "
            f"{last.year - 1}, {set_it}"
        )
    elif early and len(early) * 2 > len(monthly):
        yield note(
            f"Monthly and quarterly snapshots made before the end of the period they are dated in: {len(early)} of "
            f"{len(monthly)}. They stand for the period before: {set_it}"
        )
    else:
        yield ok('Snapshots are dated within their periods, as dated = "period" says.')
