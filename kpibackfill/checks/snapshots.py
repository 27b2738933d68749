"""Looks at the snapshots: how many each year has, and what their dates stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.checks.finding import Finding, note, ok, wrong
from kpibackfill.config import Site, Target
from kpibackfill.database import inspection
from kpibackfill.database.expressions import in_any_case
from kpibackfill.kpis.registry import Cadence
from kpibackfill.parameters import CADENCES
from kpibackfill.snapshots import day, window
from kpibackfill.tables import snapshot

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
        """Whether it was made before the period of its date was over, so that it can't stand for that."""
        return self.created is not None and self.created + SLACK < window(self.dated, self.cadence)[1]


def check_snapshots(connection: Connection, site: Site, target: Target) -> Iterator[Finding]:
    created = inspection.has_column(connection, snapshot, "created_at")
    rows = connection.execute(
        sa.select(
            snapshot.c.snapshot_type.label("type"),
            snapshot.c.snapshot_date.label("date"),
            (snapshot.c.created_at if created else sa.null()).label("created"),
        ).where(in_any_case(snapshot.c.definition, [site.definition]))
    ).all()
    if not rows:
        there = connection.scalars(sa.select(snapshot.c.definition).distinct().limit(20)).all()
        yield note(
            f"There is no snapshot of the definition {site.definition!r}. Set definition in [site] to one of those "
            f"there are: {', '.join(sorted(there)) or 'none'}."
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
            made = None if not row.created else datetime.fromtimestamp(row.created, target.zone).replace(tzinfo=None)
            found.append(_Snapshot(CADENCES[kind], dated, made))
    if odd:
        yield wrong(
            f"Dates of snapshots that are no day of the calendar: {', '.join(map(repr, sorted(odd)[:5]))}. Mend them."
        )
    yield _counts(
        site, target, [one for one in found if one.cadence == "annual"], Counter(row.type.lower() for row in rows)
    )
    yield from _dated(site, found)


def _counts(site: Site, target: Target, annual: Sequence[_Snapshot], types: Counter[str]) -> Finding:
    per_year = Counter(window(one.dated, "annual", site.dated)[0].year for one in annual)
    others = ", ".join(f"{count} {name}" for name, count in sorted(types.items()) if CADENCES.get(name) != "annual")
    beside = f" Beside them: {others}." if others else ""
    if not per_year:
        return note(f"There is no annual snapshot of {site.definition!r}, so a run finds nothing to compare.{beside}")
    years = ", ".join(f"{year}: {per_year[year]}" for year in range(min(per_year), max(per_year) + 1))
    over = [year for year in per_year if year < datetime.now(target.zone).year] or list(per_year)
    return ok(
        f"Annual snapshots by year: {years}.{beside}",
        f"kpibackfill run --target {target.name} --from-year {max(over)}",
    )


def _dated(site: Site, found: Iterable[_Snapshot]) -> Iterator[Finding]:
    """Whether the dates lie in the periods that they stand for, or on the first day after them."""
    if site.dated == "first_of_next_month":
        odd = [one for one in found if not one.begins]
        if odd:
            yield note(
                f'dated = "first_of_next_month", but {len(odd)} snapshots are not dated on the first day of a period, '
                f'such as the {odd[-1].cadence} one of {odd[-1].dated}. Set dated = "period" in [site] if they lie in '
                "the periods that they stand for."
            )
        else:
            yield ok("Each snapshot is dated on the first day after its period, as dated has it.")
        return
    annual = [one for one in found if one.cadence == "annual"]
    after = [one for one in annual if one.begins]
    monthly = [one for one in found if one.begins and one.created is not None and one.cadence != "annual"]
    early = [one for one in monthly if one.early]
    set_it = 'set dated = "first_of_next_month" in [site].'
    if len(after) * 2 > len(annual):
        last = max(one.dated for one in after)
        yield note(
            f"{len(after)} of {len(annual)} annual snapshots are dated on 1 January. If that of {last} stands for "
            f"{last.year - 1}, as where snapshots are dated on the first of the following month, {set_it}"
        )
    elif early and len(early) * 2 > len(monthly):
        yield note(
            f"{len(early)} of {len(monthly)} monthly and quarterly snapshots were made before the period of their date "
            f"was over, so they stand for the one before: {set_it}"
        )
    else:
        yield ok('Snapshots are dated inside their periods, as dated = "period" has it.')
