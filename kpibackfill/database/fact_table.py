"""The fact table as the site has it: its layout, its rows with their before-images, and writing single rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import NoSuchTableError

from kpibackfill.database.image import Image, RowKey, bytes_of, text_of
from kpibackfill.database.inspection import columns_of, name_of
from kpibackfill.errors import Refused
from kpibackfill.tables import cachetags, kpi_fact, snapshot

CHUNK = 500
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a site's fact table: whether it has a surrogate ``id``, and whether each value has its own type.

    The latter is so on SQLite, where ``meta`` can be a text as well as a blob.
    """

    surrogate: bool
    own_types: bool = False


def layout(connection: Connection) -> Layout:
    """The layout of the fact table.

    Raises
    ------
    Refused : the table or one of its columns is missing.
    """
    name = name_of(connection, kpi_fact.name)
    try:
        columns = {column["name"] for column in sa.inspect(connection).get_columns(name)}
    except NoSuchTableError:
        raise _missing(f"the table {name}") from None
    for column in kpi_fact.columns:
        if column.name not in columns | {"id"}:
            raise _missing(f"the column {column.name} of {name}")
    return Layout("id" in columns, connection.dialect.name == "sqlite")


def transactional(connection: Connection, table: sa.Table) -> bool:
    """Whether the table's storage engine can roll back.

    Only MariaDB and MySQL have engines that can't; a view there doesn't show its engine and counts as transactional.
    """
    if connection.dialect.name not in ("mysql", "mariadb"):
        return True
    tables = sa.table("tables", *map(sa.column, ("table_schema", "table_name", "engine")), schema="information_schema")
    engines = sa.select(tables.c.engine).where(
        tables.c.table_schema == sa.func.database(), tables.c.table_name == name_of(connection, table.name)
    )
    return all(engine == "InnoDB" for engine in connection.scalars(engines))


def has_cachetags(connection: Connection) -> bool:
    return bool(columns_of(connection, cachetags.name))


def rows_select(fact: Layout) -> sa.Select[Any]:
    """A SELECT of keys and images; the value is cast, since MariaDB prints a FLOAT with six digits."""
    row_id = kpi_fact.c.id if fact.surrogate else sa.null()
    meta: sa.ColumnElement[Any] = kpi_fact.c.meta
    is_text: sa.ColumnElement[Any] = sa.null()
    if fact.own_types:  # SQLite's driver refuses a text that is not UTF-8
        meta, is_text = sa.cast(meta, sa.LargeBinary), sa.func.typeof(meta) == "text"
    return sa.select(
        kpi_fact.c.snapshot_id,
        kpi_fact.c.kpi_id,
        sa.cast(kpi_fact.c.metric_value, sa.Double).label("metric_value"),
        kpi_fact.c.period_year,
        kpi_fact.c.period_month,
        meta.label("meta"),
        row_id.label("row_id"),
        is_text.label("is_text"),
    )


def image(row: Row[*tuple[Any, ...]]) -> Image:
    """The image in a row of `rows_select`.

    Raises
    ------
    Refused : it has no value, or ``meta`` is a text column; the snapshot module creates no such table.
    """
    snapshot_id, kpi_id, value, year, month, meta, row_id, is_text = row
    if value is None or isinstance(meta, str):
        odd = "has no value (NULL)" if value is None else "holds meta as text instead of bytes"
        raise Refused(
            f"The fact table's row for snapshot {snapshot_id} and {kpi_id!r} {odd}; nothing was written. "
            "Define the table as the snapshot module does: metric_value float not null, meta blob.",
            code="layout",
        )
    raw = None if meta is None else bytes(meta)
    return Image(value, year, month, text_of(raw) if raw is not None and is_text else raw, row_id)


def index_rows(rows: Iterable[Row[*tuple[Any, ...]]], wanted: Iterable[str]) -> dict[RowKey, Image]:
    """The rows of `rows_select` by their exact key.

    Raises
    ------
    Refused : a key exists twice, or a stored id differs from a wanted one only by case or surrounding space.
    """
    exact = {kpi_id.lower(): kpi_id for kpi_id in wanted}
    spelled: dict[str, str | None] = {}  # there are few ids and many rows
    found: dict[RowKey, Image] = {}
    for row in rows:
        snapshot_id, stored_id = row[0], row[1]
        if stored_id not in spelled:
            spelled[stored_id] = exact.get(stored_id.strip().lower())
        kpi_id = spelled[stored_id]
        if kpi_id is None:
            continue
        key = (snapshot_id, kpi_id)
        if stored_id != kpi_id or key in found:
            raise Refused(
                f"The fact table has two rows, or one with another spelling, for snapshot {snapshot_id} and "
                f"{kpi_id!r} ({stored_id!r}); nothing was written. Keep one row with the exact id, then run again.",
                code="duplicate_key",
            )
        found[key] = image(row)
    return found


def chunks(values: Iterable[Any]) -> Iterable[Sequence[Any]]:
    """The values in lists short enough for an IN on every engine."""
    ordered = list(values)
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))


def locked_rows(
    connection: Connection, fact: Layout, keys: Iterable[RowKey], *, hold: bool = True
) -> dict[RowKey, Image]:
    """The stored rows of these keys, locked against other writers until the transaction ends unless `hold` is off."""
    keys = set(keys)
    ids = {kpi_id for _, kpi_id in keys}
    rows: list[Row[*tuple[Any, ...]]] = []
    for part in chunks(sorted({snapshot_id for snapshot_id, _ in keys})):
        statement = rows_select(fact).where(kpi_fact.c.snapshot_id.in_(part))
        rows += connection.execute(_held(connection, statement) if hold else statement)
    return {key: found for key, found in index_rows(rows, ids).items() if key in keys}


def present_snapshots(connection: Connection, ids: Iterable[int], *, hold: bool = True) -> set[int]:
    """Which of these snapshots exist, locked against deletion where the engine allows it unless `hold` is off."""
    found: set[int] = set()
    for part in chunks(sorted(set(ids))):
        statement = sa.select(snapshot.c.id).where(snapshot.c.id.in_(part))
        found.update(connection.scalars(_held(connection, statement, read=True) if hold else statement))
    return found


def insert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert in bulk, never as an upsert, which would overwrite what another writer has put there meanwhile."""
    for meta, part in _by_type([(row["meta"], row) for row in rows]):
        values: dict[str, Any] = {name: sa.bindparam(name) for name in part[0]}
        statement = sa.insert(kpi_fact).inline().values({**values, "meta": meta})
        connection.execute(statement, [{**row, "meta": _raw(row["meta"])} for row in part])


def update(connection: Connection, rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> int:
    """Update by key in bulk, from pairs of key and new values. Returns how many rows matched."""
    met = 0
    for meta, part in _by_type([(values["meta"], (key, values)) for key, values in rows]):
        key, changed = part[0]
        values: dict[str, Any] = {name: sa.bindparam(name) for name in changed}
        statement = sa.update(kpi_fact).where(*_matches(key)).values({**values, "meta": meta})
        bound = [{**_named(key), **row, "meta": _raw(row["meta"])} for key, row in part]
        met += connection.execute(statement, bound).rowcount
    return met


def delete(connection: Connection, keys: Sequence[Mapping[str, Any]]) -> int:
    """Delete by key in bulk. Returns how many rows matched."""
    if not keys:
        return 0
    statement = sa.delete(kpi_fact).where(*_matches(keys[0]))
    return connection.execute(statement, [_named(key) for key in keys]).rowcount


def invalidate(connection: Connection, tags: Iterable[str]) -> None:
    """Add one to each cache tag, or insert its row, even if another writer inserts it at the same moment."""
    for tag in tags:
        bump = sa.update(cachetags).where(cachetags.c.tag == tag).values(invalidations=cachetags.c.invalidations + 1)
        if connection.execute(bump).rowcount:
            continue
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(cachetags).values(tag=tag, invalidations=1))
        except sa.exc.IntegrityError:
            connection.execute(bump)


def _by_type(rows: Sequence[tuple[bytes | str | None, T]]) -> Iterator[tuple[sa.ColumnElement[Any], list[T]]]:
    """The rows grouped by the type of their ``meta``, each group with the expression that its statement binds."""
    parts: dict[bool, list[T]] = {}
    for meta, row in rows:
        parts.setdefault(isinstance(meta, str), []).append(row)
    for is_text, part in parts.items():
        bound = sa.bindparam("meta", type_=sa.LargeBinary)
        yield sa.cast(bound, sa.Text) if is_text else bound, part


def _matches(key: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [kpi_fact.c[name] == sa.bindparam(f"key_{name}") for name in key]


def _named(key: Mapping[str, Any]) -> dict[str, Any]:
    return {f"key_{name}": value for name, value in key.items()}


def _held(connection: Connection, statement: sa.Select[Any], *, read: bool = False) -> sa.Select[Any]:
    # On SQLite and PostgreSQL a writer has locked the whole table by now; PostgreSQL denies row locks to readers.
    return statement.with_for_update(read=read) if connection.dialect.name in ("mysql", "mariadb") else statement


def _missing(what: str) -> Refused:
    return Refused(
        f"The store lacks {what}; nothing was written. Is it the snapshot module's database? "
        "`kpibackfill check` says more.",
        code="missing_table",
    )


def _raw(meta: bytes | str | None) -> bytes | None:
    return bytes_of(meta) if isinstance(meta, str) else meta
