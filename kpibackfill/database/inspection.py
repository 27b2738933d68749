"""What a database reveals about itself: what the account may do, how its tables are defined, how large they are.

Nothing is written: EXPLAIN, which needs the same rights, shows whether a statement would be allowed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, NoSuchTableError
from sqlalchemy.ext.compiler import compiles

from kpibackfill.database.engine import first_line
from kpibackfill.tables import CIVICRM, stored_name

SERVERS = ("mysql", "mariadb", "postgresql")


class _Explained(sa.Executable, sa.ClauseElement):
    inherit_cache = False

    def __init__(self, statement: sa.ClauseElement) -> None:
        self.statement = statement


@compiles(_Explained)
def _explain(element: _Explained, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN {element.statement.compile(dialect=compiler.dialect)}"


def refusal(connection: Connection, statement: sa.Executable) -> str:
    """Why the database refuses a statement, or the empty text; the transaction continues either way."""
    savepoint = connection.begin_nested() if connection.dialect.name in (*SERVERS, "sqlite") else nullcontext()
    try:
        with savepoint:
            connection.execute(statement).close()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return first_line(error)
    return ""


def reading_refused(connection: Connection, table: sa.Table, columns: Iterable[str]) -> str:
    """Why these columns of a table can't be read, or the empty text; no row is read."""
    statement = sa.select(*(table.c[name] for name in columns)).where(sa.false())
    reason = refusal(connection, statement)
    if not reason:
        return ""
    there = columns_of(connection, table.name, schema_of(connection, table))
    if not there:
        return f"it doesn't exist, or the account may not SELECT from it ({reason})"
    missing = [name for name in columns if name not in there]
    return f"it lacks {', '.join(missing)}" if missing else f"the account may not SELECT from it ({reason})"


def columns_of(connection: Connection, name: str, schema: str | None = None) -> set[str]:
    """The names of a table's columns; empty where the table doesn't exist or the account may not know of it."""
    try:
        return {column["name"] for column in sa.inspect(connection).get_columns(name_of(connection, name), schema)}
    except NoSuchTableError:
        return set()
    except DBAPIError as error:
        # MariaDB doesn't tell an account without any right on a table whether the table exists.
        if connection.dialect.name in ("mysql", "mariadb") and error.orig is not None and error.orig.args[0] == 1142:
            return set()
        raise


def has_column(connection: Connection, table: sa.Table, column: str) -> bool:
    return not refusal(connection, sa.select(table.c[column]).where(sa.false()))


def denied(connection: Connection, table: sa.Table, columns: Sequence[str]) -> list[str]:
    """Which of INSERT, UPDATE and DELETE the account is denied on a table of the store."""
    if connection.dialect.name == "sqlite":
        path = Path(connection.engine.url.database or "")
        writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        return [] if writable else ["INSERT", "UPDATE", "DELETE"]
    chosen = [table.c[name] for name in columns]
    statements: dict[str, sa.ClauseElement] = {
        "INSERT": sa.insert(table).from_select(chosen, sa.select(*chosen).where(sa.false())),
        "UPDATE": sa.update(table).values({column: column for column in chosen}).where(sa.false()),
        "DELETE": sa.delete(table).where(sa.false()),
    }
    # MariaDB doesn't EXPLAIN a writing statement inside a read-only transaction.
    with connection.engine.connect() as asking:
        found = [name for name, statement in statements.items() if refusal(asking, _Explained(statement))]
    if "INSERT" not in found and not _may_count_on(connection, table):
        found.insert(0, "INSERT (USAGE on the sequence of its id)")
    return found


def is_replica(connection: Connection) -> bool:
    """Whether the server accepts no writes at all, as a replica of another server does."""
    if connection.dialect.name == "postgresql":
        return bool(connection.scalar(sa.select(sa.func.pg_is_in_recovery())))
    if connection.dialect.name in ("mysql", "mariadb"):
        return bool(connection.scalar(sa.text("SELECT @@global.read_only")))
    return False


def unique_key(connection: Connection, table: sa.Table, columns: Iterable[str]) -> bool:
    """Whether the database itself prevents two rows with the same values in these columns."""
    return any(key and set(key) <= set(columns) for key, unique in indexes(connection, table) if unique)


def text_length(connection: Connection, table: sa.Table, column: str) -> int | None:
    """How many characters a column holds; None if unlimited."""
    for found in sa.inspect(connection).get_columns(name_of(connection, table.name), schema_of(connection, table)):
        if found["name"] == column:
            return getattr(found["type"], "length", None)
    return None


def indexes(connection: Connection, table: sa.Table) -> list[tuple[list[str], bool]]:
    """The columns of each index, including the primary key, in index order, and whether it is unique."""
    inspector, place = sa.inspect(connection), (name_of(connection, table.name), schema_of(connection, table))
    found = [(inspector.get_pk_constraint(*place)["constrained_columns"], True)]
    found += [(entry["column_names"], True) for entry in inspector.get_unique_constraints(*place)]
    for entry in inspector.get_indexes(*place):
        found.append(([name or "" for name in entry["column_names"]], bool(entry["unique"])))
    return found


def rows_about(connection: Connection, table: sa.Table) -> int:
    """How many rows a table has by the server's own estimate; 0 where it has no estimate ready."""
    schema, name = schema_of(connection, table), name_of(connection, table.name)
    statement: sa.Select[Any] | None = None
    if connection.dialect.name in ("mysql", "mariadb"):
        names = ("table_schema", "table_name", "table_rows")
        tables = sa.table("tables", *map(sa.column, names), schema="information_schema")
        statement = sa.select(tables.c.table_rows).where(
            tables.c.table_name == name, tables.c.table_schema == (schema or sa.func.database())
        )
    elif connection.dialect.name == "postgresql":
        relation = sa.func.to_regclass(f'"{schema}"."{name}"' if schema else f'"{name}"')
        classes = sa.table("pg_class", sa.column("oid"), sa.column("reltuples"))
        # A table that was never analyzed has -1 there; assume some 100 bytes per row.
        size = sa.func.pg_relation_size(relation) / 100
        statement = sa.select(sa.func.greatest(classes.c.reltuples, sa.case((classes.c.reltuples < 0, size)))).where(
            classes.c.oid == relation
        )
    elif connection.dialect.name == "sqlite":
        statement = sa.select(sa.func.max(sa.text("rowid"))).select_from(table)
    if statement is None or refusal(connection, statement):
        return 0
    return int(connection.scalar(statement) or 0)


def server_name(connection: Connection) -> str:
    """The name of the database server; MariaDB may be addressed by the dialect ``mysql``."""
    return "mariadb" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name


def server_version(connection: Connection) -> str:
    """The version of the database server or library, such as ``10.11.19``."""
    if connection.dialect.name == "duckdb":  # its dialect reports a version of PostgreSQL
        return str(connection.scalar(sa.select(sa.func.version()))).removeprefix("v")
    return ".".join(str(part) for part in connection.dialect.server_version_info or ())


def schema_of(connection: Connection, table: sa.Table) -> str | None:
    """The schema that a table is read from: CiviCRM's own, where it has one."""
    translated: dict[str | None, str | None] = connection.get_execution_options().get("schema_translate_map", {})
    return translated.get(table.schema) if table.schema == CIVICRM else table.schema


def name_of(connection: Connection, name: str) -> str:
    """The name of a table in this database, as people see it there; statements have it from SQLAlchemy."""
    return stored_name(name, connection.get_execution_options().get("table_prefix", ""))


def _may_count_on(connection: Connection, table: sa.Table) -> bool:
    """Whether the account may use the sequence that numbers the rows, which PostgreSQL grants separately."""
    if connection.dialect.name != "postgresql":
        return True
    name = name_of(connection, table.name)
    defaults = {column["name"]: column.get("default") for column in sa.inspect(connection).get_columns(name)}
    if not str(defaults.get("id") or "").startswith("nextval"):
        return True
    sequence = sa.func.pg_get_serial_sequence(f'"{name}"', "id")
    return bool(connection.scalar(sa.select(sa.func.has_sequence_privilege(sequence, "USAGE"))))
