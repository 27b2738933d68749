"""Checks the snapshots: that their dates exist, and how many each year has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.checks.dated import check_dated
from kpibackfill.checks.finding import Finding, note, ok, wrong
from kpibackfill.config import Site, Target
from kpibackfill.database.expressions import in_any_case
from kpibackfill.database.inspection import columns_of, name_of
from kpibackfill.database.snapshot_table import made
from kpibackfill.kpis.dating import Taken, day
from kpibackfill.parameters import CADENCES
from kpibackfill.tables import snapshot
from kpibackfill.text import some


def check_snapshots(connection: Connection, site: Site, target: Target) -> Iterator[Finding]:
    rows = connection.execute(
        sa.select(
            snapshot.c.snapshot_type.label("type"),
            snapshot.c.snapshot_date.label("date"),
            made(columns_of(connection, snapshot.name)),
        ).where(in_any_case(snapshot.c.definition, [site.definition]))
    ).all()
    if not rows:
        there = connection.scalars(sa.select(snapshot.c.definition).distinct().limit(20)).all()
        yield note(
            f"There is no snapshot with the definition {site.definition!r}. Set definition in [site] to one that "
            f"exists: {', '.join(sorted(filter(None, there))) or 'there are none'}."
        )
        return
    found: list[Taken] = []
    odd = set()
    for row in rows:
        kind = row.type.lower()
        if kind in CADENCES:
            try:
                dated = day(row.date)
            except ValueError:
                odd.add(row.date)
                continue
            found.append(Taken(CADENCES[kind], dated, row.made))
    if odd:
        yield wrong(
            f"Some snapshots have dates that don't exist: {some(map(repr, sorted(odd)))}. "
            f"Fix them in {name_of(connection, snapshot.name)}."
        )
    annual = [one for one in found if one.cadence == "annual"]
    yield _counts(site, target, annual, Counter(row.type.lower() for row in rows))
    yield from check_dated(site, target.zone, found)


def _counts(site: Site, target: Target, annual: Sequence[Taken], types: Counter[str]) -> Finding:
    per_year = Counter(one.dated.year for one in annual)  # as the page has it
    others = ", ".join(f"{rows} {name}" for name, rows in sorted(types.items()) if CADENCES.get(name) != "annual")
    also = f" Also: {others}." if others else ""
    if not per_year:
        return note(f"There is no annual snapshot of {site.definition!r}, so a run has nothing to compare.{also}")
    years = ", ".join(f"{year}: {per_year[year]}" for year in range(min(per_year), max(per_year) + 1))
    over = [year for year in per_year if year < datetime.now(target.zone).year] or list(per_year)
    return ok(
        f"Annual snapshots by year: {years}.{also}", f"kpibackfill run --target {target.name} --from-year {max(over)}"
    )
