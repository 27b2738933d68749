"""The fact table as it really is: its layout, its rows with their before-images, and the writing of single rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import NoSuchTableError

from kpibackfill.database.inspection import columns_of
from kpibackfill.errors import Refused
from kpibackfill.numbers import same
from kpibackfill.tables import cachetags, kpi_fact, snapshot

CHUNK = 500


@dataclass(frozen=True, slots=True)
class Layout:
    """How a site's fact table is laid out: with a surrogate ``id`` or without."""

    surrogate: bool


@dataclass(frozen=True, slots=True)
class Image:
    """All columns of a stored row. ``meta`` is bytes, or text where SQLite holds text, and shown nowhere."""

    metric_value: float
    period_year: int | None
    period_month: int | None
    meta: bytes | str | None = field(repr=False)
    row_id: int | None = None

    def equals(self, other: Image) -> bool:
        """Whether both are the same stored row, the value compared as the fact table keeps it."""
        return same(self.metric_value, other.metric_value) and (
            self.period_year,
            self.period_month,
            _raw(self.meta),
            self.row_id,
        ) == (other.period_year, other.period_month, _raw(other.meta), other.row_id)


def layout(connection: Connection) -> Layout:
    """The layout of the fact table.

    Raises
    ------
    Refused : the table or one of its columns is missing.
    """
    try:
        columns = {column["name"] for column in sa.inspect(connection).get_columns(kpi_fact.name)}
    except NoSuchTableError:
        raise _missing(f"the table {kpi_fact.name}") from None
    for column in kpi_fact.columns:
        if column.name not in columns | {"id"}:
            raise _missing(f"the column {column.name} of {kpi_fact.name}")
    return Layout("id" in columns)


def transactional(connection: Connection, table: sa.Table) -> bool:
    """Whether the table's storage engine can roll back; only MariaDB and MySQL have any that can't."""
    return _storage_engine(connection, table.name) in (None, "InnoDB")


def has_cachetags(connection: Connection) -> bool:
    return bool(columns_of(connection, cachetags.name))


def rows_select(fact: Layout) -> sa.Select[Any]:
    """Select of key and image; the value is cast, since MariaDB prints a FLOAT with six digits."""
    row_id = kpi_fact.c.id if fact.surrogate else sa.null()
    return sa.select(
        kpi_fact.c.snapshot_id,
        kpi_fact.c.kpi_id,
        sa.cast(kpi_fact.c.metric_value, sa.Double).label("metric_value"),
        kpi_fact.c.period_year,
        kpi_fact.c.period_month,
        kpi_fact.c.meta,
        row_id.label("row_id"),
    )


def image(row: Row[Any]) -> Image:
    meta = row.meta if isinstance(row.meta, str) or row.meta is None else bytes(row.meta)
    return Image(row.metric_value, row.period_year, row.period_month, meta, row.row_id)


def index_rows(rows: Iterable[Row[Any]], wanted: Iterable[str]) -> dict[tuple[int, str], Image]:
    """Stored rows by their exact key.

    Raises
    ------
    Refused : a key is there twice, or a stored id differs from a wanted one only by case or surrounding space.
    """
    exact = {kpi_id.lower(): kpi_id for kpi_id in wanted}
    found: dict[tuple[int, str], Image] = {}
    for row in rows:
        kpi_id = exact.get(row.kpi_id.strip().lower())
        if kpi_id is None:
            continue
        key = (row.snapshot_id, kpi_id)
        if row.kpi_id != kpi_id or key in found:
            raise Refused(
                f"The fact table has two rows, or one under another spelling, for snapshot {row.snapshot_id} and "
                f"{kpi_id!r} ({row.kpi_id!r}); nothing was written. Keep one row with the exact id, and run again.",
                code="duplicate_key",
            )
        found[key] = image(row)
    return found


def chunks(values: Iterable[Any]) -> Iterable[Sequence[Any]]:
    """Lists short enough for an IN on every engine."""
    ordered = list(values)
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))


def locked_rows(
    connection: Connection, fact: Layout, keys: Iterable[tuple[int, str]], *, hold: bool = True
) -> dict[tuple[int, str], Image]:
    """The stored rows of these keys, held against other writers until the transaction ends, or just read."""
    keys = set(keys)
    ids = {kpi_id for _, kpi_id in keys}
    rows: list[Row[Any]] = []
    for part in chunks(sorted({snapshot_id for snapshot_id, _ in keys})):
        statement = rows_select(fact).where(kpi_fact.c.snapshot_id.in_(part))
        rows += connection.execute(_held(connection, statement) if hold else statement)
    return {key: found for key, found in index_rows(rows, ids).items() if key in keys}


def present_snapshots(connection: Connection, ids: Iterable[int], *, hold: bool = True) -> set[int]:
    """Which of these snapshots are there, held against deletion where the engine lets a reader do so, or just read."""
    found: set[int] = set()
    for part in chunks(sorted(set(ids))):
        statement = sa.select(snapshot.c.id).where(snapshot.c.id.in_(part))
        found.update(connection.scalars(_held(connection, statement, read=True) if hold else statement))
    return found


def insert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Plain inserts in bulk: never an upsert, which would overwrite what another writer put there meanwhile."""
    if rows:
        connection.execute(sa.insert(kpi_fact).inline(), list(rows))


def update(connection: Connection, rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> int:
    """Update by key in bulk: pairs of key and new values. Returns how many rows were met."""
    if not rows:
        return 0
    key, values = rows[0]
    statement = sa.update(kpi_fact).where(*_matches(key)).values({name: sa.bindparam(name) for name in values})
    return connection.execute(statement, [{**_named(key), **values} for key, values in rows]).rowcount


def delete(connection: Connection, keys: Sequence[Mapping[str, Any]]) -> int:
    """Delete by key in bulk. Returns how many rows were met."""
    if not keys:
        return 0
    statement = sa.delete(kpi_fact).where(*_matches(keys[0]))
    return connection.execute(statement, [_named(key) for key in keys]).rowcount


def invalidate(connection: Connection, tags: Iterable[str]) -> None:
    """Add one to each cache tag; a tag without a row gets one, also when another writer adds it at this moment."""
    for tag in tags:
        bump = sa.update(cachetags).where(cachetags.c.tag == tag).values(invalidations=cachetags.c.invalidations + 1)
        if connection.execute(bump).rowcount:
            continue
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(cachetags).values(tag=tag, invalidations=1))
        except sa.exc.IntegrityError:
            connection.execute(bump)


def _matches(key: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [kpi_fact.c[name] == sa.bindparam(f"key_{name}") for name in key]


def _named(key: Mapping[str, Any]) -> dict[str, Any]:
    return {f"key_{name}": value for name, value in key.items()}


def _held(connection: Connection, statement: sa.Select[Any], *, read: bool = False) -> sa.Select[Any]:
    # SQLite's and PostgreSQL's writers hold the whole table by now; PostgreSQL denies row locks to mere readers.
    return statement.with_for_update(read=read) if connection.dialect.name in ("mysql", "mariadb") else statement


def _storage_engine(connection: Connection, table: str) -> str | None:
    if connection.dialect.name not in ("mysql", "mariadb"):
        return None
    tables = sa.table("tables", *map(sa.column, ("table_schema", "table_name", "engine")), schema="information_schema")
    return connection.scalar(
        sa.select(tables.c.engine).where(tables.c.table_schema == sa.func.database(), tables.c.table_name == table)
    )


def _missing(what: str) -> Refused:
    return Refused(
        f"The store lacks {what}; nothing was written. Is it the database of the snapshot module? "
        "`kpibackfill check` says more.",
        code="missing_table",
    )


def _raw(meta: bytes | str | None) -> tuple[bool, bytes] | None:
    return None if meta is None else (isinstance(meta, str), meta.encode() if isinstance(meta, str) else meta)
