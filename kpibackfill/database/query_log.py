"""The connection that a KPI receives: it only reads, and logs each query and its time for the record."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from kpibackfill.database.inspection import columns_of
from kpibackfill.tables import CIVICRM


@dataclass(frozen=True, slots=True)
class Query:
    """One executed statement: its text, bound values as plain JSON values, seconds, number of rows and their
    fingerprint."""

    sql: str
    parameters: Any
    seconds: float
    rows: int
    fingerprint: str


class RecordedConnection:
    """A database connection that can only read, inside the run's one read-only transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.queries: list[Query] = []

    @property
    def dialect(self) -> str:
        """``sqlite``, ``mysql``, ``mariadb``, ``postgresql``, …"""
        return self._connection.dialect.name

    def execute(self, statement: sa.Executable) -> Sequence[Row[*tuple[Any, ...]]]:
        """All rows of a SQLAlchemy Core statement."""
        began = time.perf_counter()
        result = self._connection.execute(statement)
        rows = result.all()
        seconds = time.perf_counter() - began
        sent: Any = result.context
        self.queries.append(
            Query(sent.statement, _plain(sent.parameters[0]), seconds, len(rows), rows_fingerprint(rows))
        )
        return rows

    def columns(self, table: str, *, civicrm: bool = True) -> set[str]:
        """The names of a table's columns; empty if there is no such table."""
        schema = self._connection.get_execution_options()["schema_translate_map"][CIVICRM] if civicrm else None
        return columns_of(self._connection, table, schema)


def _plain(bound: Any) -> Any:
    """Bound values for the record; times and other objects that JSON doesn't know become texts."""
    if isinstance(bound, Mapping):
        return {name: _plain(value) for name, value in bound.items()}
    if isinstance(bound, list | tuple):
        return [_plain(value) for value in bound]
    return bound if bound is None or isinstance(bound, bool | int | float | str) else str(bound)


def rows_fingerprint(rows: Sequence[Row[Any]]) -> str:
    """SHA-256 of a result, independent of the order of its rows and of whether a driver returns texts or bytes."""
    digest = hashlib.sha256()
    for line in sorted(repr(tuple(map(_as_bytes, row))) for row in rows):
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _as_bytes(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return bytes(value) if isinstance(value, memoryview | bytearray) else value
