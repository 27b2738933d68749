"""Spark Connect as a read-only SQLAlchemy dialect: ``spark://user:token@host:port/catalog/schema``.

Everything but the host is optional. A token is sent as a bearer token over TLS; the URL's query holds Spark Connect's
own parameters, such as ``use_ssl``, or the ``session_id`` of an existing session. The dialect is registered under
``sqlalchemy.dialects``, and its driver needs the extra ``spark``.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, default
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.sql import compiler

PORT = 15002


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
    def __init__(self, dialect: sa.Dialect, *arguments: Any, **options: Any) -> None:
        super().__init__(dialect, *arguments, **{**options, "initial_quote": "`", "escape_quote": "`"})


class SparkDialect(default.DefaultDialect):
    """The dialect ``spark``, for reading only."""

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
        """The driver. It only checks that pyspark's client is installed, since importing it takes a second or two.

        Raises
        ------
        ImportError : pyspark's client is not installed.
        """
        for name in ("pyspark", "grpc"):
            if find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        from kpibackfill.database import spark_connect

        return spark_connect

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        catalog, _, schema = (url.database or "").strip("/").rpartition("/")
        given = {name: value for name, value in url.query.items() if isinstance(value, str)}
        if url.password:
            given = {"use_ssl": "true", "token": str(url.password)} | given
        if url.username:
            given = {"user_id": url.username} | given
        return [], {
            "host": url.host or "127.0.0.1",
            "port": url.port or PORT,
            "catalog": catalog or None,
            "schema": schema or None,
            "options": given,
        }

    def initialize(self, connection: sa.Connection) -> None:
        """Read the server's version and the current schema; nothing else depends on the server."""
        version, self.default_schema_name = connection.exec_driver_sql("SELECT version(), current_schema()").one()
        self.server_version_info = tuple(int(part) for part in re.findall(r"\d+", version)[:3])

    def get_columns(
        self, connection: sa.Connection, table_name: str, schema: str | None = None, **kw: Any
    ) -> list[ReflectedColumn]:
        table: sa.TableClause = sa.table(table_name, schema=schema)
        try:
            # Each server describes tables in its own way, but all return the columns of a result.
            names = connection.execute(sa.select(sa.literal_column("*")).select_from(table).limit(0)).keys()
        except sa.exc.ProgrammingError:
            raise sa.exc.NoSuchTableError(table_name) from None
        return [{"name": name, "type": sa.types.NullType(), "nullable": True, "default": None} for name in names]

    def has_table(self, connection: sa.Connection, table_name: str, schema: str | None = None, **kw: Any) -> bool:
        try:
            return bool(self.get_columns(connection, table_name, schema))
        except sa.exc.NoSuchTableError:
            return False

    def is_disconnect(self, e: Exception, connection: Any, cursor: Any) -> bool:
        assert self.dbapi is not None
        return isinstance(e, self.dbapi.OperationalError)
