"""Small makerspaces made by hand, in a real database of each engine, and the KPIs computed on them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from kpibackfill.config import Site
from kpibackfill.database.engine import reading
from kpibackfill.database.query_log import Query, RecordedConnection
from kpibackfill.kpis import registry
from kpibackfill.kpis.registry import Cadence, SiteAt, Value, Window
from tests.databases import Database, connect

Tables = Mapping[str, Sequence[Mapping[str, Any]]]
KPIS = registry.load()
AS_OF = datetime(2026, 11, 22, 12, tzinfo=UTC)


def year(number: int) -> Window:
    return Window(number, datetime(number, 1, 1), datetime(number, 12, 31, 23, 59, 59))


def months(number: int, first: int, length: int, window_id: int, cadence: Cadence) -> Window:
    """The window of `length` months that starts with month `first`."""
    after = datetime(number + (first + length - 1) // 12, (first + length - 1) % 12 + 1, 1)
    return Window(window_id, datetime(number, first, 1), after - timedelta(seconds=1), cadence)


def ask(
    url: str,
    kpi_id: str,
    windows: Sequence[Window],
    *,
    zone: str = "UTC",
    as_of: datetime = AS_OF,
    site: Site | None = None,
) -> tuple[list[Value], list[Query]]:
    """The values of one KPI, in the order of the windows, and the statements that were sent."""
    at = SiteAt(site or Site(), ZoneInfo(zone), as_of)
    with reading(sa.make_url(url), at.settings) as connection:
        recorded = RecordedConnection(connection)
        values = list(KPIS[kpi_id].compute(recorded, at, windows))
    assert [value.window_id for value in values] == [window.window_id for window in windows]
    return values, recorded.queries


class Makerspace:
    """The tables of a database; `fill` replaces their rows."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._tables = sa.MetaData()
        with connect(database.url) as connection:
            self._tables.reflect(connection)
        self._serial = itertools.count(1)

    def fill(self, tables: Tables) -> None:
        """Empty every table and insert these rows; columns that a row omits get a dummy value."""
        engine = sa.create_engine(self.database.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            for table in self._tables.tables.values():
                connection.execute(sa.delete(table))
            for name, rows in tables.items():
                self._insert(connection, self._tables.tables[name], rows)

    def compute(
        self,
        kpi_id: str,
        *windows: Window,
        zone: str = "UTC",
        as_of: datetime = AS_OF,
        site: Site | None = None,
    ) -> list[Value]:
        """The values of one KPI, in the order of the windows."""
        return self.ask(kpi_id, *windows, zone=zone, as_of=as_of, site=site)[0]

    def ask(
        self,
        kpi_id: str,
        *windows: Window,
        zone: str = "UTC",
        as_of: datetime = AS_OF,
        site: Site | None = None,
    ) -> tuple[list[Value], list[Query]]:
        """The values of one KPI and the statements that were sent."""
        return ask(self.database.url, kpi_id, windows, zone=zone, as_of=as_of, site=site)

    def _insert(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        given = {column for row in rows for column in row}
        assert given <= set(table.c.keys()), given - set(table.c.keys())
        idle = {
            column.name: column
            for column in table.c
            if not column.nullable and column.server_default is None and column.name not in given | {"id"}
        }
        complete = [
            {
                **{name: self._idle(column) for name, column in idle.items()},
                **{name: _fitting(table.c[name], row.get(name)) for name in given},
            }
            for row in rows
        ]
        if complete:
            connection.execute(sa.insert(table), complete)

    def _idle(self, column: sa.Column[Any]) -> Any:
        if column.name == "langcode":
            return "en"
        serial = next(self._serial)
        return str(serial) if isinstance(column.type, sa.String) else 0


def _fitting(column: sa.Column[Any], value: Any) -> Any:
    if isinstance(value, str) and isinstance(column.type, sa.DateTime):
        return datetime.fromisoformat(value)
    if isinstance(value, str) and isinstance(column.type, sa.Date):
        return date.fromisoformat(value)
    return value
