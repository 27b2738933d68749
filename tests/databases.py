"""Real databases for tests: the reference makerspace on SQLite, MariaDB and PostgreSQL, fresh for each test.

The reference is loaded once per session, engine and layout into a template; each test gets its own copy.
The servers are started for the tests, in a temporary folder, from the programs that this machine has.
KPIBACKFILL_TEST_MARIADB and KPIBACKFILL_TEST_POSTGRESQL (SQLAlchemy URLs of accounts that may create databases and
accounts) name others to test on.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from kpibackfill.database import php_serialize
from tests.servers import Missing, Servers
from tests.servers import connect as connect

DATA = Path(__file__).parent / "data"
ENGINES = ("sqlite", "mariadb", "postgresql")

both_layouts = pytest.mark.parametrize("layout", ["composite", "surrogate"], indirect=True)
"""Run a test that uses `store` on both layouts of the fact table, instead of on "composite" alone."""
all_layouts = pytest.mark.parametrize("layout", ["composite", "surrogate", "dashboard"], indirect=True)
"""Run it also on the store that the dashboard module makes, whose other tables differ as well."""


def on(*engines: str) -> pytest.MarkDecorator:
    """Run a test that uses `store` on these engines only."""
    return pytest.mark.parametrize("store", engines, indirect=True)


@dataclass(frozen=True)
class Database:
    """A database that holds the reference: `name` is one of ENGINES, `dialect` SQLAlchemy's name for it."""

    name: str
    dialect: str
    url: str
    layout: str


def change(database: Database, *statements: sa.Executable) -> None:
    """Execute the statements and commit them."""
    with connect(database.url) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def civicrm_moved(database: Database) -> Iterator[str]:
    """Move CiviCRM's tables of MariaDB or PostgreSQL to their own schema, which is dropped at the end; its name."""
    schema = f"{sa.make_url(database.url).database}_civicrm"
    with connect(database.url) as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        try:
            for name in sa.inspect(connection).get_table_names():
                if name.startswith("civicrm_") and "__" not in name:
                    move = {
                        "mariadb": f"RENAME TABLE {name} TO {schema}.{name}",
                        "postgresql": f"ALTER TABLE {name} SET SCHEMA {schema}",
                    }
                    connection.exec_driver_sql(move[database.name])
            yield schema
        finally:
            cascade = " CASCADE" if database.name == "postgresql" else ""
            connection.exec_driver_sql(f"DROP SCHEMA {schema}{cascade}")


def prefix_tables(database: Database, prefix: str) -> None:
    """Rename Drupal's tables as a Drupal with this prefix names them; CiviCRM's keep their names."""
    with connect(database.url) as connection:
        for name in sa.inspect(connection).get_table_names():
            if not name.startswith("civicrm_") or "__" in name:
                quoted = connection.dialect.identifier_preparer.quote(prefix + name)
                connection.exec_driver_sql(f"ALTER TABLE {name} RENAME TO {quoted}")
        if database.name == "postgresql":
            for name in sa.inspect(connection).get_sequence_names():
                if name.startswith("ms_"):
                    connection.exec_driver_sql(f'ALTER SEQUENCE {name} RENAME TO "{prefix}{name}"')


def dump(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, sorted; two dumps are equal when nothing differs.

    Numbers are exact (a float as the stored number, not as the server prints it), `meta` is bytes, and dates
    and times are texts as SQLite holds them, so that dumps of different engines compare as well.
    """
    with connect(database.url) as connection:
        return {table: _rows(connection, table) for table in sorted(sa.inspect(connection).get_table_names())}


def _rows(connection: sa.Connection, name: str) -> list[tuple[Any, ...]]:
    table = sa.table(name)
    columns = connection.execute(sa.select(sa.literal_column("*")).select_from(table).limit(0)).keys()
    # SQLite's floats arrive as they are, and a cast would hide a value stored as a text or a blob.
    cast = connection.dialect.name != "sqlite"
    selected = [
        sa.cast(sa.column(column), sa.Double) if column == "metric_value" and cast else sa.column(column)
        for column in columns
    ]
    rows = connection.execute(sa.select(*selected).select_from(table))
    return sorted((tuple(map(_plain, columns, row)) for row in rows), key=repr)


def _plain(column: str, value: Any) -> Any:
    if column == "meta" and value is not None:
        return value.encode() if isinstance(value, str) else bytes(value)
    return value if value is None or isinstance(value, int | float | str | bytes) else str(value)


def add_cachetags(database: Database, rows: Mapping[str, int] | None = None) -> None:
    """Add Drupal's table of cache tags with `rows` (tag: invalidations)."""
    ascii_tag = sa.String(255).with_variant(mysql.VARCHAR(255, charset="ascii"), "mysql", "mariadb")
    cachetags = sa.Table(
        "cachetags",
        sa.MetaData(),
        sa.Column("tag", ascii_tag, primary_key=True, server_default=""),
        sa.Column("invalidations", sa.Integer, nullable=False, server_default="0"),
    )
    with connect(database.url) as connection:
        cachetags.create(connection)
        for tag, invalidations in (rows or {}).items():
            connection.execute(sa.insert(cachetags).values(tag=tag, invalidations=invalidations))


def add_payload(
    database: Database,
    *,
    computed_at: int = 1_790_000_000,
    expires_at: int = 4_000_000_000,
    source: str = "actual",
    **sections: Mapping[str, Mapping[int, float]],
) -> None:
    """Store what the dashboard shows in these sections: its annual values by KPI id, as stored, and year."""
    for name, shown in sections.items():
        data = {
            kpi_id: {
                "label": kpi_id,
                "annual_values": {str(year): value for year, value in values.items()},
                "annual_value_sources": {str(year): source for year in values},
            }
            for kpi_id, values in shown.items()
        }
        payload: dict[str, Any] = {
            "data": data,
            "computed_at": computed_at,
            "expires_at": expires_at,
            "config_hash": "x",
        }
        put_payload(database, name, php_serialize.dumps(payload))


def put_payload(database: Database, section: str, value: bytes) -> None:
    """Store these bytes as a section's payload, in Drupal's table, which is made where it is missing."""
    table = sa.Table(
        "key_value",
        sa.MetaData(),
        sa.Column("collection", sa.String(128), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("value", sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")),
    )
    key = {"collection": "makerspace_dashboard_kpi", "name": f"section:v2:{section}"}
    with connect(database.url) as connection:
        table.create(connection, checkfirst=True)
        connection.execute(sa.delete(table).where(table.c.name == key["name"]))
        connection.execute(sa.insert(table).values(**key, value=value))


def write_config(
    folder: Path,
    database: Database,
    *,
    timezone: str = "UTC",
    site: Mapping[str, Any] | None = None,
    **target_settings: Any,
) -> Path:
    """Write `folder`/kpibackfill.toml with `database` as the target `test`; returns its path.

    `target_settings` and `site` add keys to [targets.test] and [site]: texts, numbers, booleans, lists and tables of
    them. The reference has the ids of the runbook, without a prefix.
    """
    target = {"store": database.url, "timezone": timezone} | target_settings
    path = folder / "kpibackfill.toml"
    path.write_text(
        "\n".join(
            [
                'runs = "runs"',
                "[targets.test]",
                *_toml(target),
                "[site]",
                *_toml({"kpi_id_prefix": ""} | dict(site or {})),
                "",
            ]
        ),
        encoding="utf-8",
    )
    return path


def _toml(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_toml_value(value)}" for key, value in settings.items()]


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(_toml(value)) + "}"
    return json.dumps(value, ensure_ascii=False)  # JSON's texts, numbers, booleans and lists are TOML's


def reference_expected(timezone: str) -> list[dict[str, Any]]:
    """The rows that are right according to the reference in "UTC" or "America/New_York".

    Each has `snapshot_id`, `kpi_id`, `metric_value` (double precision), `period_year`, `period_month`.
    """
    name = {"UTC": "expected-utc.json", "America/New_York": "expected-new-york.json"}[timezone]
    rows: list[dict[str, Any]] = json.loads((DATA / name).read_text(encoding="utf-8"))
    return rows


def load_reference(url: str | sa.URL, engine: str, layout: str) -> None:
    """Fill an empty database with the reference makerspace."""
    with connect(url) as connection:
        if engine == "mariadb":
            # Texts are taken literally, and no value is shortened to fit.
            connection.exec_driver_sql("SET SESSION sql_mode = 'TRADITIONAL,NO_BACKSLASH_ESCAPES'")
        _run_script(connection, DATA / f"schema-{engine}.sql")
        if layout != "composite":
            surrogate = _surrogate_facts()
            surrogate.drop(connection)
            surrogate.create(connection)
        _run_script(connection, DATA / "makerspace.sql")
        if layout == "dashboard":
            _as_the_dashboard_makes_them(connection)


def _run_script(connection: sa.Connection, path: Path) -> None:
    for statement in path.read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _surrogate_facts() -> sa.Table:
    """The fact table's other layout: a serial id, shorter ids, periods that may be missing, no unique key."""
    return sa.Table(
        "ms_fact_kpi_snapshot",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("snapshot_id", sa.Integer, nullable=False),
        sa.Column("kpi_id", sa.String(64), nullable=False),
        # REAL is 4 bytes on PostgreSQL, 8 on MariaDB, where FLOAT is 4.
        sa.Column(
            "metric_value",
            sa.REAL().with_variant(mysql.FLOAT(), "mysql", "mariadb"),
            nullable=False,
            server_default="0",
        ),
        sa.Column("period_year", sa.Integer),
        sa.Column("period_month", sa.Integer),
        sa.Column("meta", sa.LargeBinary),
    )


def _as_the_dashboard_makes_them(connection: sa.Connection) -> None:
    """Give the snapshots and the organization's facts the columns that the dashboard module gives them, and no other.

    There is no `source` and no `created_at`; `created` is 0 where nobody knows when a snapshot was taken.
    """
    tables = sa.MetaData()
    made = [
        sa.Table(
            "ms_snapshot",
            tables,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("snapshot_date", sa.String(20), nullable=False),
            sa.Column("snapshot_type", sa.String(32), nullable=False),
            sa.Column("definition", sa.String(64)),
            sa.Column("is_test", sa.SmallInteger, nullable=False, server_default="0"),
            sa.Column("created", sa.Integer, nullable=False, server_default="0"),
        ),
        sa.Table(
            "ms_fact_org_snapshot",
            tables,
            sa.Column("snapshot_id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("members_active", sa.Integer, nullable=False, server_default="0"),
            sa.Column("joins", sa.Integer, nullable=False, server_default="0"),
        ),
    ]
    for table in made:
        before = sa.Table(table.name, sa.MetaData(), autoload_with=connection)
        rows: list[dict[str, Any]] = [dict(row) for row in connection.execute(sa.select(before)).mappings()]
        before.drop(connection)
        table.create(connection)
        for row in rows:
            row |= {"is_test": 0, "created": row.get("created_at") or 0}
        kept = [{column.name: row[column.name] for column in table.columns} for row in rows]
        connection.execute(sa.insert(table), kept)


class Unreachable(Exception):
    """No server to test on can be reached."""


class ReferenceDatabases:
    """Copies of the reference, for one test session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = f"kpibackfill_test_{os.getpid()}_{secrets.token_hex(3)}"
        self._count = 0
        self._templates: dict[tuple[str, str], Database] = {}
        self._held: set[Database] = set()
        self._unreachable: dict[str, Unreachable] = {}
        self._servers = Servers(careless=True)

    def copy(self, engine: str, layout: str) -> Database:
        """A fresh database; give it to `drop` when done. Raises Unreachable."""
        if engine in self._unreachable:  # waiting for a server once is enough
            raise self._unreachable[engine]
        try:
            if (engine, layout) not in self._templates:
                template = self._create(engine, layout)
                load_reference(template.url, engine, layout)
                self._templates[engine, layout] = template
            return self._create(engine, layout, self._templates[engine, layout])
        except Missing as missing:
            raise Unreachable(f"no {engine} server to test on: {missing}") from missing
        except sa.exc.OperationalError as error:
            if error.statement is not None:  # it answered, so it can be reached
                raise
            self._unreachable[engine] = Unreachable(f"no {engine} server to test on: {error.orig}")
            raise self._unreachable[engine] from error

    def close(self) -> None:
        """Drop what is left: the templates, and what no test has dropped."""
        for database in list(self._held):
            if database.name not in self._unreachable:
                self.drop(database)
        self._servers.close()

    def drop(self, database: Database) -> None:
        """Remove the database, even if a test has left a connection open."""
        self._held.discard(database)
        url = sa.make_url(database.url)
        if database.name == "sqlite":
            for path in self._folder.glob(f"{Path(str(url.database)).name}*"):
                path.unlink()
            return
        with connect(self._server(database.name)) as connection:
            if database.name == "postgresql":
                connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)")
                return
            open_sessions = sa.text("SELECT id FROM information_schema.processlist WHERE db = :database")
            for session in connection.scalars(open_sessions, {"database": url.database}).all():
                with suppress(sa.exc.DBAPIError):  # it has just ended on its own
                    connection.exec_driver_sql(f"KILL {session}")
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {url.database}")

    def _create(self, engine: str, layout: str, template: Database | None = None) -> Database:
        """An empty database, or a copy of the template."""
        self._count += 1
        name = f"{self._prefix}_{self._count}"
        url = sa.URL.create("sqlite", database=str(self._folder / f"{name}.sqlite"))
        if engine != "sqlite":
            url = self._server(engine).set(database=name)
        database = Database(engine, url.get_backend_name(), url.render_as_string(hide_password=False), layout)
        self._held.add(database)
        source = sa.make_url(template.url).database if template else None
        if engine == "sqlite":
            if source:
                shutil.copyfile(source, str(url.database))
            return database
        with connect(self._server(engine)) as connection:
            if engine == "postgresql":
                origin = source or "template0 ENCODING 'UTF8'"
                connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {origin}")
            else:
                connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
                if source:
                    _copy_tables(connection, source, name)
        return database

    def _server(self, engine: str) -> sa.URL:
        """The URL of a server for creating databases on it."""
        named = os.environ.get(f"KPIBACKFILL_TEST_{engine.upper()}")
        if named:
            return sa.make_url(named)
        url = self._servers.get(engine).url("postgres" if engine == "postgresql" else "mysql")
        # Both names of the dialect are in use; the tests of faults use the other.
        return url.set(drivername="mysql+pymysql") if engine == "mariadb" else url


def _copy_tables(connection: sa.Connection, source: str, name: str) -> None:
    """MariaDB has no copy of a whole database."""
    tables = sa.inspect(connection).get_table_names(schema=source)
    for table in tables:
        connection.exec_driver_sql(f"CREATE TABLE {name}.{table} LIKE {source}.{table}")
    connection.exec_driver_sql("BEGIN")
    for table in tables:
        connection.exec_driver_sql(f"INSERT INTO {name}.{table} SELECT * FROM {source}.{table}")  # noqa: S608 - our own names
    connection.exec_driver_sql("COMMIT")
