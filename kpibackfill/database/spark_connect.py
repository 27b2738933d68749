"""A PEP 249 driver over Spark Connect, with as much of the standard as reading needs.

The statement is sent with its bound values, which the server inserts. Times are local times without a time zone: the
session's zone is UTC, and every time is bound and read in it, so that no time is ever shifted.
"""

from __future__ import annotations

import re
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

apilevel = "2.0"
threadsafety = 1
paramstyle = "named"
Binary = bytes

CONNECT_SECONDS = 10
RETRIES = 4
"""With pauses of 0.05, 0.2, 0.8 and 3.2 s; by default the client would retry for ten minutes."""


class Error(Exception):
    """The base class of the errors."""


class DatabaseError(Error):
    """The server refused the statement."""


class OperationalError(DatabaseError):
    """The server can't be reached, or the connection was lost."""


class ProgrammingError(DatabaseError):
    """The server doesn't understand the statement, or a table is missing."""


class Cursor:
    """Runs one statement at a time and holds all of its rows, which are few since the server aggregates."""

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
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)

    def close(self) -> None:
        self._rows = iter(())


class Connection:
    """A session on the server. There are no transactions: each statement reads the tables as they are then."""

    def __init__(self, session: Any, *, own: bool) -> None:
        self._session = session
        # An existing session is left alone; releasing it would drop the tables of those who created it.
        session.release_session_on_close = own

    def cursor(self) -> Cursor:
        return Cursor(self._session)

    def commit(self) -> None:
        """Nothing was written."""

    def rollback(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        with _translated():
            self._session.stop()


def connect(*, host: str, port: int, catalog: str | None, schema: str | None, options: Mapping[str, str]) -> Connection:
    """Open a session whose zone is UTC; `options` are Spark Connect's own parameters.

    Raises
    ------
    OperationalError : no Spark Connect server answers there within ten seconds.
    ProgrammingError : there is no such catalog or schema.
    """
    try:
        # gRPC keeps trying an address where nothing listens, and doesn't say what is wrong.
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise OperationalError(f"no answer from {host}:{port} ({error.strerror or error})") from None
    parameters = "".join(f";{name}={quote(value)}" for name, value in options.items())
    address = f"[{host}]" if ":" in host else host
    with _importing(), _translated():
        import grpc
        from pyspark.sql.connect.client import DefaultChannelBuilder
        from pyspark.sql.connect.client.retries import DefaultPolicy
        from pyspark.sql.connect.session import SparkSession

        builder = DefaultChannelBuilder(f"sc://{address}:{port}/{parameters}")
        channel = builder.toChannel()
        try:
            grpc.channel_ready_future(channel).result(CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise OperationalError(
                f"what answers at {host}:{port} is not a Spark Connect server, or doesn't use TLS"
            ) from None
        finally:
            channel.close()
        session = SparkSession.builder.channelBuilder(builder).create()
        session.client.set_retry_policies([DefaultPolicy(max_retries=RETRIES)])
        connection = Connection(session, own="session_id" not in options)
        try:
            session.conf.set("spark.sql.session.timeZone", "UTC")
            session.conf.set("spark.sql.ansi.enabled", "true")
            if catalog:
                session.catalog.setCurrentCatalog(catalog)
            if schema:
                session.catalog.setCurrentDatabase(schema)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def _importing() -> Iterator[None]:
    """Give ``__main__`` a file name: without one, as under `python -c`, the client assumes a test and exits."""
    main = sys.modules["__main__"]
    if hasattr(main, "__file__"):
        yield
        return
    main.__file__ = "-c"
    try:
        yield
    finally:
        del main.__file__


@contextmanager
def _translated() -> Iterator[None]:
    """Raise the client's errors as a driver's, without its warnings about retries and about pandas, unused here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pyspark\.")
        from pyspark.errors import AnalysisException, ParseException, PySparkException

        try:
            yield
        except (AnalysisException, ParseException) as error:
            raise ProgrammingError(_first_line(str(error))) from None
        except PySparkException as error:
            # Where the connection itself fails, the client passes on gRPC's description of the call, on several lines.
            call = re.search(r'StatusCode\.([A-Z_]+)\s+details = "(.*)"', str(error))
            if call is None:
                raise DatabaseError(_first_line(str(error))) from None
            raise (OperationalError if call[1] == "UNAVAILABLE" else DatabaseError)(_first_line(call[2])) from None


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "an error without a message")


def _to_spark(value: Any) -> Any:
    # The client would take a time without a zone to be in this computer's zone.
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def _from_spark(value: Any) -> Any:
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value
