"""Checks the store: its tables, the fact table's layout, the ids in use, what the account may write, and snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.checks.finding import Finding, note, ok, wrong
from kpibackfill.checks.snapshots import check_snapshots
from kpibackfill.config import Site, Target
from kpibackfill.database import fact_table, inspection
from kpibackfill.database.expressions import exact
from kpibackfill.kpis.registry import Kpi
from kpibackfill.tables import cachetags, kpi_fact, org_fact, snapshot
from kpibackfill.text import count

FACT = ["snapshot_id", "kpi_id", "metric_value", "period_year", "period_month", "meta"]
TAGS = ["tag", "invalidations"]
_READ = {
    snapshot: ["id", "definition", "snapshot_type", "snapshot_date"],
    org_fact: ["snapshot_id", "joins"],
    kpi_fact: FACT,
}


def check_store(connection: Connection, site: Site, target: Target, kpis: Sequence[Kpi]) -> Iterator[Finding]:
    refused = {table: inspection.reading_refused(connection, table, columns) for table, columns in _READ.items()}
    for table, reason in refused.items():
        if reason:
            name = inspection.name_of(connection, table.name)
            yield wrong(
                f"{name} can't be used: {reason}. Is this the database of Drupal's snapshot module, and is "
                "table_prefix in [site] the prefix of its tables?"
            )
    if not any(refused.values()):
        names = [inspection.name_of(connection, table.name) for table in _READ]
        yield ok(f"{', '.join(names[:-1])} and {names[-1]} can be read.")
    if not refused[kpi_fact]:
        yield from _layout(connection, site, kpis)
        yield from _ids(connection, site, kpis)
        yield from _rights(connection)
    if not refused[snapshot]:
        yield from check_snapshots(connection, site, target)


def _layout(connection: Connection, site: Site, kpis: Sequence[Kpi]) -> Iterator[Finding]:
    surrogate = fact_table.layout(connection).surrogate
    layout = "a surrogate id" if surrogate else "no surrogate id"
    if inspection.unique_key(connection, kpi_fact, ("snapshot_id", "kpi_id")):
        yield ok(f"The fact table has {layout} and a unique key on (snapshot_id, kpi_id).")
    else:
        yield note(
            f"The fact table has {layout} and no unique key on (snapshot_id, kpi_id), so other programs could store "
            "duplicate keys. kpibackfill writes under a lock and refuses duplicate keys."
        )
    length = inspection.text_length(connection, kpi_fact, "kpi_id")
    for entry in kpis:
        if length is not None and len(site.kpi_id_prefix + entry.kpi_id) > length:
            yield wrong(
                f"{site.kpi_id_prefix + entry.kpi_id} is longer than the {length} characters that kpi_id can hold."
            )
    for table in (kpi_fact, cachetags):
        if not fact_table.transactional(connection, table):
            name = inspection.name_of(connection, table.name)
            yield wrong(
                f"{name} is a view or uses a storage engine that can't roll back, so an apply would be refused. "
                f"For a table, ALTER TABLE {name} ENGINE=InnoDB fixes that."
            )
        elif table is kpi_fact and connection.dialect.name in ("mysql", "mariadb"):
            yield ok("The fact table's storage engine is InnoDB.")


def _ids(connection: Connection, site: Site, kpis: Sequence[Kpi]) -> Iterator[Finding]:
    """How the stored ids are spelled, and whether there are duplicate keys."""
    own = {site.kpi_id_prefix + entry.kpi_id for entry in kpis}
    other = {entry.kpi_id if site.kpi_id_prefix else f"kpi_{entry.kpi_id}" for entry in kpis}
    spelled = sa.func.lower(sa.func.trim(kpi_fact.c.kpi_id))
    name = exact(kpi_fact.c.kpi_id)
    found = connection.execute(
        sa.select(name.label("kpi_id"), sa.func.count().label("rows"))
        .where(spelled.in_(sorted(text.lower() for text in own | other)))
        .group_by(name)
    ).all()
    rows = {bytes(row.kpi_id).decode("utf-8", "replace"): int(row.rows) for row in found}
    for text in sorted(set(rows) - own - other):
        yield wrong(
            f"{count(rows[text], 'stored row')} with id {text!r}, which differs from a KPI's only in case or spaces. "
            "A run that finds them is refused. Rename or delete them."
        )
    twice = connection.execute(
        sa.select(kpi_fact.c.snapshot_id, spelled.label("kpi_id"))
        .where(spelled.in_(sorted(text.lower() for text in own)))
        .group_by(kpi_fact.c.snapshot_id, spelled)
        .having(sa.func.count() > 1)
        .limit(5)
    ).all()
    if twice:
        keys = ", ".join(f"({row.snapshot_id}, {row.kpi_id})" for row in twice)
        yield wrong(
            f"The fact table has duplicate keys: {keys}. A run of those years is refused: delete all but one of each."
        )
    yield _prefix(site.kpi_id_prefix, sum(rows.get(text, 0) for text in own), sum(rows.get(text, 0) for text in other))


def _prefix(prefix: str, own: int, other: int) -> Finding:
    as_set = f"with the prefix {prefix!r}" if prefix else "without a prefix"
    as_other = "without a prefix" if prefix else "with the prefix 'kpi_'"
    setting = f'kpi_id_prefix = "{"" if prefix else "kpi_"}" in [site]'
    if not other:
        return ok(f"Stored rows of these KPIs: {own:,}, {as_set}, as kpi_id_prefix says.")
    if not own:
        return note(
            f"Stored rows of these KPIs: {other:,}, all {as_other}. Set {setting}, or every value would count as new."
        )
    return note(
        f"Stored rows of these KPIs: {own:,} {as_set}, {other:,} {as_other}. This configuration writes ids {as_set}. "
        f"Newer dashboards read prefixed ids: set {setting} if yours read the others."
    )


def _rights(connection: Connection) -> Iterator[Finding]:
    if inspection.is_replica(connection):
        yield note("This server is a read-only replica: dry runs only.")
        return
    fact, tags = (inspection.name_of(connection, table.name) for table in (kpi_fact, cachetags))
    denied = inspection.denied(connection, kpi_fact, FACT)
    if denied == ["DELETE"]:
        yield note(
            "The account may INSERT and UPDATE KPI rows, not DELETE: an apply works, except for reverts and removals."
        )
    elif denied:
        yield note(
            f"The account may not {', '.join(denied)} on {fact}: dry runs work, but the database will refuse "
            "an apply. To apply with this target, GRANT these privileges or use an account that has them."
        )
    else:
        yield ok("The account may INSERT, UPDATE and DELETE KPI rows: an apply is possible.")
    reason = inspection.reading_refused(connection, cachetags, TAGS)
    if reason:
        yield note(
            f"{tags} is not in use: {reason}. After an apply, clear Drupal's caches, for example with after_apply."
        )
        return
    locked = [right for right in inspection.denied(connection, cachetags, TAGS) if right != "DELETE"]
    if not locked:
        yield ok(f"The account may invalidate Drupal's cache tags ({tags}).")
    elif not denied:
        yield note(
            f"The account may not {', '.join(locked)} on {tags}, so an apply would fail. GRANT these privileges."
        )
