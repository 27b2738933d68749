"""Spark Connect as a SQLAlchemy dialect that reads: ``spark://host:port/catalog/schema``.

The statement travels with its bound values, and Spark puts them in. Times are local times without a zone: the
session's zone is UTC, and every time is bound and read in it, so that none is ever shifted. A password in the URL is
sent as the bearer token of a connection by TLS; the URL's query holds Spark Connect's own parameters, such as
``use_ssl``, or ``session_id`` and ``user_id`` of a session that is there already. The dialect is registered under
``sqlalchemy.dialects``.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import ModuleType
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, default
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.sql import compiler

PORT = 15002
CONNECT_SECONDS = 10


class Error(Exception):
    """The base of the errors that PEP 249 asks of a driver."""


class DatabaseError(Error):
    """Whatever the server refused."""


class OperationalError(DatabaseError):
    """The server can't be reached, or went away."""


class ProgrammingError(DatabaseError):
    """The server doesn't understand the statement, or a table in it is missing."""


class Cursor:
    """Runs one statement at a time and holds all of its rows, which are few: KPIs aggregate where the data are."""

    arraysize = 1
    rowcount = -1

    def __init__(self, session: Any) -> None:
        self._session = session
        self._rows: Iterator[tuple[Any, ...]] = iter(())
        self.description: list[tuple[Any, ...]] | None = None

    def execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        bound = {name: _to_spark(value) for name, value in (parameters or {}).items()}
        with _translated():
            table = self._session.sql(statement, args=bound or None).toArrow()
        self.description = [
            (field.name, str(field.type), None, None, None, None, field.nullable) for field in table.schema
        ]
        columns = [[_from_spark(value) for value in column.to_pylist()] for column in table.columns]
        self._rows = iter(list(zip(*columns, strict=True)))

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchmany(self, size: int = arraysize) -> list[tuple[Any, ...]]:
        return [row for row, _ in zip(self._rows, range(size), strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)

    def close(self) -> None:
        self._rows = iter(())


class Connection:
    """A session of its own on the server. There are no transactions: each statement reads the tables as they are."""

    def __init__(self, session: Any, *, own: bool) -> None:
        self._session, self._own = session, own

    def cursor(self) -> Cursor:
        return Cursor(self._session)

    def commit(self) -> None:
        """Nothing was written."""

    def rollback(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        """End the session, unless it was there before."""
        with _translated():
            if self._own:
                self._session.stop()
            else:
                self._session.client.close()


def connect(*, host: str, port: int, catalog: str | None, schema: str | None, options: Mapping[str, str]) -> Connection:
    """Open a session whose zone is UTC; `options` are Spark Connect's own parameters.

    Raises
    ------
    OperationalError : nobody answers there within ten seconds.
    """
    from pyspark.sql.connect.session import SparkSession

    try:
        # The client itself would go on trying for minutes.
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise OperationalError(f"no answer from {host}:{port}: {error.strerror or error}") from None
    parameters = "".join(f";{name}={quote(value)}" for name, value in options.items())
    with _translated():
        session = SparkSession.builder.remote(f"sc://{host}:{port}/{parameters}").create()
        session.conf.set("spark.sql.session.timeZone", "UTC")
        session.conf.set("spark.sql.ansi.enabled", "true")
        if catalog:
            session.catalog.setCurrentCatalog(catalog)
        if schema:
            session.catalog.setCurrentDatabase(schema)
    return Connection(session, own="session_id" not in options)


class _Types(compiler.GenericTypeCompiler):
    def visit_VARCHAR(self, type_: Any, **kw: Any) -> str:
        return "STRING"

    visit_CHAR = visit_TEXT = visit_NVARCHAR = visit_VARCHAR

    def visit_BLOB(self, type_: Any, **kw: Any) -> str:
        return "BINARY"

    def visit_DATETIME(self, type_: Any, **kw: Any) -> str:
        return "TIMESTAMP_NTZ"

    visit_TIMESTAMP = visit_DATETIME


class _Identifiers(compiler.IdentifierPreparer):
    def __init__(self, dialect: sa.Dialect, **options: Any) -> None:
        super().__init__(dialect, **{**options, "initial_quote": "`"})


class SparkDialect(default.DefaultDialect):
    """The dialect ``spark``: for reading only."""

    name = "spark"
    driver = "connect"
    default_paramstyle = "named"
    type_compiler_cls = _Types
    preparer = _Identifiers
    supports_statement_cache = True
    supports_sane_rowcount = False
    supports_native_boolean = True

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """This module is the driver; pyspark's client must be there for it."""
        import pyspark.sql.connect.session

        assert pyspark is not None
        return _driver

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        catalog, _, schema = (url.database or "").strip("/").rpartition("/")
        secured = {"use_ssl": "true", "token": str(url.password)} if url.password else {}
        given = {name: value for name, value in url.query.items() if isinstance(value, str)}
        return [], {
            "host": url.host or "127.0.0.1",
            "port": url.port or PORT,
            "catalog": catalog or None,
            "schema": schema or None,
            "options": secured | given,
        }

    def initialize(self, connection: sa.Connection) -> None:
        """Ask for the version and the schema in use; there is nothing to try out."""
        version, self.default_schema_name = connection.exec_driver_sql("SELECT version(), current_schema()").one()
        self.server_version_info = tuple(int(part) for part in re.findall(r"\d+", version)[:3])

    def get_columns(
        self, connection: sa.Connection, table_name: str, schema: str | None = None, **kw: Any
    ) -> list[ReflectedColumn]:
        table = sa.select(sa.literal_column("*")).select_from(sa.table(table_name, schema=schema)).limit(0)
        try:
            # Servers tell of a table in words of their own; they all know the columns of a result.
            names = connection.execute(table).keys()
        except sa.exc.ProgrammingError:
            raise sa.exc.NoSuchTableError(table_name) from None
        return [{"name": name, "type": sa.types.NullType(), "nullable": True, "default": None} for name in names]

    def has_table(self, connection: sa.Connection, table_name: str, schema: str | None = None, **kw: Any) -> bool:
        try:
            return bool(self.get_columns(connection, table_name, schema))
        except sa.exc.NoSuchTableError:
            return False

    def is_disconnect(self, e: Exception, connection: Any, cursor: Any) -> bool:
        return isinstance(e, OperationalError)


@contextmanager
def _translated() -> Iterator[None]:
    """The client's errors as a driver's."""
    import grpc
    from pyspark.errors import AnalysisException, ParseException, PySparkException

    try:
        yield
    except (AnalysisException, ParseException) as error:
        raise ProgrammingError(_first_line(error)) from None
    except PySparkException as error:
        raise OperationalError(_first_line(error)) from None
    except grpc.RpcError as error:
        raise OperationalError(_first_line(error)) from None


def _first_line(error: Exception) -> str:
    text = str(error.details()) if hasattr(error, "details") else str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def _to_spark(value: Any) -> Any:
    # The client would take a time without a zone for one of this computer's zone.
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def _from_spark(value: Any) -> Any:
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value


_driver = ModuleType("kpibackfill.database.spark.driver", "What PEP 249 asks of a driver's module.")
_driver.__dict__.update(
    apilevel="2.0",
    threadsafety=1,
    paramstyle="named",
    connect=connect,
    Warning=Warning,
    Error=Error,
    InterfaceError=Error,
    DatabaseError=DatabaseError,
    DataError=DatabaseError,
    OperationalError=OperationalError,
    IntegrityError=DatabaseError,
    InternalError=DatabaseError,
    ProgrammingError=ProgrammingError,
    NotSupportedError=DatabaseError,
)
