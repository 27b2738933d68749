"""Checks the ids in the fact table: how they begin, which of them the dashboard shows, how they are spelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.checks.finding import Finding, note, ok, wrong
from kpibackfill.config import AUTO, PREFIX, Site
from kpibackfill.database import inspection
from kpibackfill.database.expressions import exact
from kpibackfill.kpis.registry import Kpi
from kpibackfill.page.annual_tables import IdPrefix
from kpibackfill.page.id_prefix import find_prefix, spelled, which_show
from kpibackfill.page.payload import read_payload
from kpibackfill.tables import kpi_fact
from kpibackfill.text import count


def check_kpi_ids(connection: Connection, site: Site, kpis: Sequence[Kpi]) -> Iterator[Finding]:
    payload = read_payload(connection)
    yield from map(note, payload.notes)
    kpi_ids = [entry.kpi_id for entry in kpis]
    prefix = find_prefix(connection, site.kpi_id_prefix, payload, [*kpi_ids, *site.manual_kpis])
    own = {prefix.text + kpi_id for kpi_id in kpi_ids}
    other = {("" if prefix.text else PREFIX) + kpi_id for kpi_id in kpi_ids}
    trimmed = sa.func.lower(sa.func.trim(kpi_fact.c.kpi_id))
    name = exact(kpi_fact.c.kpi_id)
    found = connection.execute(
        sa.select(name.label("kpi_id"), sa.func.count().label("rows"))
        .where(trimmed.in_(sorted(text.lower() for text in own | other)))
        .group_by(name)
    ).all()
    rows = {bytes(row.kpi_id).decode("utf-8", "replace"): int(row.rows) for row in found}
    for text in sorted(set(rows) - own - other):
        yield wrong(
            f"{count(rows[text], 'stored row')} with id {text!r}, which differs from a KPI's only in case or spaces. "
            "A run that finds them is refused. Rename or delete them."
        )
    twice = connection.execute(
        sa.select(kpi_fact.c.snapshot_id, trimmed.label("kpi_id"))
        .where(trimmed.in_(sorted(text.lower() for text in own)))
        .group_by(kpi_fact.c.snapshot_id, trimmed)
        .having(sa.func.count() > 1)
        .limit(5)
    ).all()
    if twice:
        keys = ", ".join(f"({row.snapshot_id}, {row.kpi_id})" for row in twice)
        yield wrong(
            f"The fact table has duplicate keys: {keys}. A run of those years is refused: delete all but one of each."
        )
    length = inspection.text_length(connection, kpi_fact, "kpi_id")
    for text in sorted(own):
        if length is not None and len(text) > length:
            yield wrong(f"{text} is longer than the {length} characters that kpi_id can hold.")
    yield _prefix(
        prefix,
        *(sum(rows.get(text, 0) for text in ids) for ids in (own, other)),
        found_out=site.kpi_id_prefix == AUTO,
    )


def _prefix(prefix: IdPrefix, own: int, other: int, *, found_out: bool) -> Finding:
    """Whether anything is stored under the prefix or read from there, and what is stored under the other spelling."""
    other_text = "" if prefix.text else PREFIX
    told = (
        f"{prefix.evidence} Stored rows of these KPIs: {own:,} {spelled(prefix.text)}, {other:,} {spelled(other_text)}."
    )
    auto = 'Set kpi_id_prefix = "auto" in [site]'
    if not prefix.known:
        return note(prefix.evidence)
    if not prefix.is_read:
        return note(f"{told} {which_show(prefix)} {auto}: what is written under other ids shows on no page.")
    if not (own or found_out or prefix.shown is not None):
        return note(f"{told} Nothing tells that a page reads such ids. {auto}, unless you know that yours does.")
    return note(f"{told} {which_show(prefix)}") if other else ok(told)
