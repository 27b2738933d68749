"""Connections and the two kinds of transaction: one that can only read, and one that holds the writers' lock."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from kpibackfill.config import Config, Site, Target, masked_url
from kpibackfill.errors import KpiBackfillError, OutcomeUnknown, Refused
from kpibackfill.tables import CIVICRM, kpi_fact, stored_name

LOCK_SECONDS = 10
CONNECT_SECONDS = 10
ANSWER_SECONDS = 120
# What else a driver reads from a URL's query as the location of the database.
_PLACES = ("hostaddr", "unix_socket", "service", "options")


def create_engine(url: URL, answer_seconds: int | None = None) -> Engine:
    """An engine without a pool, so that no connection outlives its transaction; its errors show no parameters.

    `answer_seconds` limits how long a statement may take on MariaDB and MySQL, whose driver would wait forever.
    """
    backend = url.get_backend_name()
    # A connection that is closed needs no reset; if it was lost, the reset would fail and log a traceback.
    options: dict[str, Any] = {"poolclass": NullPool, "pool_reset_on_return": None, "hide_parameters": True}
    if backend == "sqlite":
        options["creator"] = _sqlite_creator(url)
    elif backend == "duckdb":
        _present(Path(url.database or ""))
        options["connect_args"] = {"read_only": True}
    elif backend in ("mysql", "mariadb", "postgresql"):
        options["connect_args"] = {"connect_timeout": CONNECT_SECONDS}
        if url.get_driver_name() == "pymysql" and url.password:
            # The driver would send a text as Latin-1, while the server expects UTF-8.
            options["connect_args"]["password"] = str(url.password).encode()
        if url.get_driver_name() == "pymysql" and answer_seconds is not None:
            options["connect_args"] |= {"read_timeout": answer_seconds, "write_timeout": answer_seconds}
    return sa.create_engine(url, **options)


@contextmanager
def reading(url: URL, site: Site) -> Iterator[Connection]:
    """One transaction that the database itself keeps read-only; it ends with the block and leaves nothing behind.

    Spark has no transactions: see `one_moment`.
    """
    with _as_database_error(url, "read"), _connected(url, site) as connection:
        connection = connection.execution_options(schema_translate_map={CIVICRM: site.civicrm_schema or None})
        backend = url.get_backend_name()
        if backend == "duckdb":
            # The file is open for reading only, which keeps every writer out: nothing in it can change meanwhile.
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("SET TimeZone = 'UTC'")
        elif backend == "sqlite":
            connection.exec_driver_sql("PRAGMA query_only = ON")
            connection.exec_driver_sql("BEGIN")
        elif backend in ("mysql", "mariadb"):
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
            connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        elif backend == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            # Here, compiling a statement takes longer than running it.
            connection.exec_driver_sql("SET LOCAL jit = off")
        try:
            yield connection
        finally:
            _end(connection)


@contextmanager
def writing(url: URL, site: Site, *, wait: int = LOCK_SECONDS) -> Iterator[Connection]:
    """One transaction under the lock that keeps a second run out; it commits at the end of the block or not at all.

    Raises
    ------
    Refused : another run, or another writer, holds the lock for more than `wait` seconds.
    OutcomeUnknown : the commit was sent, but no answer came.
    """
    with _as_database_error(url, "write"), _connected(url, site, ANSWER_SECONDS) as connection:
        backend = url.get_backend_name()
        if backend == "sqlite":
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {wait * 1000:d}")
            with _busy(url):
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif backend in ("mysql", "mariadb"):
            got = connection.scalar(sa.select(sa.func.get_lock(_lock_name(url), wait)))
            connection.rollback()
            if got != 1:
                raise _locked(url)
            connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {wait:d}")
        elif backend == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{wait:d}s'")
            fact = connection.dialect.identifier_preparer.format_table(kpi_fact)
            with _busy(url):
                connection.exec_driver_sql(f"LOCK TABLE {fact} IN SHARE ROW EXCLUSIVE MODE")
        else:
            raise Refused(
                f"{masked_url(url)} can't be written to: a store must be SQLite, MariaDB, MySQL or PostgreSQL. "
                "Nothing was written.",
                code="store_engine",
            )
        try:
            yield connection
        except BaseException:
            _end(connection)
            raise
        try:
            connection.commit()
        except BaseException as error:  # noqa: BLE001  an interrupt, too, leaves it open whether the commit succeeded
            _end(connection)
            reason = first_line(error) if isinstance(error, DBAPIError) else type(error).__name__
            raise OutcomeUnknown(
                f"The commit on {masked_url(url)} was not confirmed ({reason}).", code="outcome_unknown"
            ) from None


def identity(url: URL) -> dict[str, Any]:
    """What identifies a database in a fingerprint: engine, host, port and database, but no user or password.

    Where the URL's query names another location than the URL itself, as for PostgreSQL's sockets, that too.
    """
    query = {name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()}
    return {
        "dialect": url.get_backend_name(),
        "host": query.get("host", url.host),
        "port": query.get("port", url.port),
        "database": query.get("dbname", url.database),
        **{name: query[name] for name in _PLACES if name in query},
    }


def names_of(config: Config, target: Target) -> set[str]:
    """The names of the configured targets with the same store, of those whose variables are set."""
    found, here = {target.name}, identity(target.store_url)
    for other in config.targets.values():
        with suppress(Refused):
            if identity(other.store_url) == here:
                found.add(other.name)
    return found


def one_moment(url: URL) -> bool:
    """Whether everything read in `reading` is as of one moment; Spark runs each statement as of its own."""
    return url.get_backend_name() != "spark"


def _connected(url: URL, site: Site, answer_seconds: int | None = None) -> Connection:
    try:
        connection = create_engine(url, answer_seconds).connect()
    except (TypeError, ValueError, LookupError, AttributeError, OSError) as error:
        raise KpiBackfillError(
            f"{masked_url(url)} could not be read: its driver doesn't accept the options after the question "
            f"mark ({type(error).__name__}). Nothing was written; fix the URL in kpibackfill.toml.",
            code="database",
        ) from None
    _put_prefix(connection.dialect, site.table_prefix)
    return connection.execution_options(table_prefix=site.table_prefix)


def _put_prefix(dialect: sa.Dialect, prefix: str) -> None:
    """Have every statement name Drupal's tables with the site's prefix, since all names in it are quoted here."""
    quote_as_named = dialect.identifier_preparer.quote

    def quote_as_stored(ident: str) -> str:
        return quote_as_named(stored_name(ident, prefix))

    # Not before the first connection, on which MariaDB's dialect replaces what quotes for it.
    dialect.identifier_preparer.quote = quote_as_stored  # type: ignore[method-assign]


def _end(connection: Connection) -> None:
    try:
        connection.rollback()
    except SQLAlchemyError:
        connection.invalidate()


def _sqlite_creator(url: URL) -> Callable[[], sqlite3.Connection]:
    path = Path(url.database or "")

    def connect() -> sqlite3.Connection:
        _present(path)
        # The driver starts its own transactions too late; with isolation_level None it starts none, and we send BEGIN.
        return sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, timeout=LOCK_SECONDS)

    return connect


def _present(path: Path) -> None:
    if not path.is_file():
        # sqlite3 would create an empty database of that name.
        raise Refused(f"There is no database file {path}; nothing was read or written.", code="database_missing")


def _lock_name(url: URL) -> str:
    # GET_LOCK is server-wide and limited to 64 characters; the database's name alone may be that long.
    return "kpibackfill:" + hashlib.sha256((url.database or "").encode()).hexdigest()[:40]


def _locked(url: URL) -> Refused:
    return Refused(
        f"Another run or program is writing to {masked_url(url)}; nothing was written. Try again when it has finished.",
        code="locked",
    )


@contextmanager
def _busy(url: URL) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        text = str(error.orig).lower()
        if "locked" in text or "lock timeout" in text or "busy" in text:
            raise _locked(url) from None
        raise


@contextmanager
def _as_database_error(url: URL, verb: str) -> Iterator[None]:
    """Raise a database's errors as a `KpiBackfillError` of one line.

    Errors of SQLAlchemy itself, such as a malformed statement, are bugs and keep their traceback.
    """
    # SQLAlchemy doesn't wrap the driver's errors where it sets an isolation level.
    drivers: type[Exception] = url.get_dialect().import_dbapi().Error
    try:
        yield
    except (DBAPIError, drivers) as error:
        reason = first_line(error)
        for value in url.query.values():  # they may come from the environment, as a password does
            for text in [value] if isinstance(value, str) else value:
                reason = reason.replace(text, "***") if len(text) > 3 else reason
        if verb == "write":
            message = f"{masked_url(url)} could not be written to: {reason}. It was rolled back; nothing was written."
        else:
            message = f"{masked_url(url)} could not be read: {reason}. Nothing was written."
        raise KpiBackfillError(f"{message} `kpibackfill check` says what is missing.", code="database") from None


def first_line(error: BaseException) -> str:
    """The database's own message, without the statement."""
    original = getattr(error, "orig", error)
    arguments: tuple[Any, ...] = getattr(original, "args", ())
    # MariaDB's errors are (number, text).
    text = str(arguments[1]) if len(arguments) == 2 and isinstance(arguments[0], int) else str(original)
    return (text.strip().splitlines() or [type(original).__name__])[0].rstrip(".")
