"""What an explanation reads from: a target's snapshots, stored rows and sources, in one read-only transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from sqlalchemy.engine import Connection

from kpibackfill.compute import connections, prefix_of, stored_rows
from kpibackfill.config import Config
from kpibackfill.database import fact_table
from kpibackfill.database.image import Image
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.kpi_values import values_of
from kpibackfill.kpis.registry import Kpi, SiteAt, Value, Window
from kpibackfill.page.payload import read_payload
from kpibackfill.run import Run, prepare
from kpibackfill.snapshots import read_snapshots
from kpibackfill.text import one_line

FIRST_YEAR, LAST_YEAR = 1000, 9998


class Stored(NamedTuple):
    """A stored value with its snapshot."""

    year: int
    snapshot_id: int
    snapshot_date: str
    source: str
    value: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A target's annual snapshots and stored rows, and the connections of the transaction that reads them."""

    run: Run
    site: SiteAt
    snapshots: pd.DataFrame
    stored: Mapping[tuple[int, str], Image]
    store_connection: Connection
    sources_connection: Connection

    def connection(self, entry: Kpi) -> RecordedConnection:
        return RecordedConnection(self.store_connection if entry.reads_store else self.sources_connection)

    def values(self, entry: Kpi, windows: Sequence[Window]) -> dict[int, Value]:
        """The KPI's own values by window."""
        return values_of(entry, self.connection(entry), self.site, windows) if windows else {}

    def stored_rows(self, kpi_id: str) -> list[Stored]:
        """The stored values of a KPI, in the order of their snapshots."""
        return [
            Stored(row.year, row.snapshot_id, row.snapshot_date, one_line(row.source), float(image.metric_value))
            for row in self.snapshots.itertuples()
            if (image := self.stored.get((row.snapshot_id, kpi_id))) is not None
        ]


@contextmanager
def opened(config: Config | None, *, every_year: bool = False, **parameters: Any) -> Iterator[Opened]:
    """Open a target for reading, with these of a run's parameters.

    With `every_year` all years that have a snapshot, unless some are given.
    """
    if every_year and parameters["from_year"] is None and parameters["to_year"] is None:
        parameters |= {"from_year": FIRST_YEAR, "to_year": LAST_YEAR}
    run = prepare(parameters, config)
    with connections(run.target, run.site) as (store_connection, sources_connection):
        fact = fact_table.layout(store_connection)
        snapshots, _ = read_snapshots(store_connection, run.site, run.parameters)
        prefix = prefix_of(store_connection, run, read_payload(store_connection))
        stored, _ = stored_rows(store_connection, fact, run, prefix)
        at = SiteAt(run.site, run.target.zone, run.parameters.as_of)
        yield Opened(run, at, snapshots, stored, store_connection, sources_connection)
