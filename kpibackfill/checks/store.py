"""Checks the store: its tables, the fact table's layout, the ids in use, what the account may write, and snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy.engine import Connection

from kpibackfill.checks.finding import Finding, note, ok, wrong
from kpibackfill.checks.kpi_ids import check_kpi_ids
from kpibackfill.checks.snapshots import check_snapshots
from kpibackfill.config import Site, Target
from kpibackfill.database import fact_table, inspection
from kpibackfill.kpis.registry import Kpi
from kpibackfill.tables import cachetags, kpi_fact, org_fact, snapshot

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
        yield from _layout(connection)
        yield from check_kpi_ids(connection, site, kpis)
        yield from _rights(connection)
    if not refused[snapshot]:
        yield from check_snapshots(connection, site, target)


def _layout(connection: Connection) -> Iterator[Finding]:
    surrogate = fact_table.layout(connection).surrogate
    layout = "a surrogate id" if surrogate else "no surrogate id"
    if inspection.unique_key(connection, kpi_fact, ("snapshot_id", "kpi_id")):
        yield ok(f"The fact table has {layout} and a unique key on (snapshot_id, kpi_id).")
    else:
        yield note(
            f"The fact table has {layout} and no unique key on (snapshot_id, kpi_id), so other programs could store "
            "duplicate keys. kpibackfill writes under a lock and refuses duplicate keys."
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
            f"{tags} is not in use: {reason}. After an apply, clear Drupal's caches before you warm the page: "
            'after_apply = [["drush", "cache:rebuild"], ["drush", "msd:kpi-warm"]] does both.'
        )
        return
    locked = [right for right in inspection.denied(connection, cachetags, TAGS) if right != "DELETE"]
    if not locked:
        yield ok(f"The account may invalidate Drupal's cache tags ({tags}).")
    elif not denied:
        yield note(
            f"The account may not {', '.join(locked)} on {tags}, so an apply would fail. GRANT these privileges."
        )
