"""This step finds the target snapshots and the window of each."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from datetime import date, datetime

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.config import Site
from kpibackfill.errors import Refused
from kpibackfill.kpis.registry import MONTHS, Cadence, Window
from kpibackfill.parameters import CADENCES, Parameters
from kpibackfill.tables import snapshot

COLUMNS = ["snapshot_id", "snapshot_date", "snapshot_type", "source", "year", "window_id"]


def targets(site: Site, parameters: Parameters) -> sa.ColumnElement[bool]:
    """The condition that picks the target snapshots; types and definition ignore case, as MariaDB's collation does."""
    return sa.and_(
        sa.func.lower(snapshot.c.definition) == site.definition.lower(),
        sa.func.lower(snapshot.c.snapshot_type).in_(parameters.snapshot_types),
        snapshot.c.snapshot_date.between(f"{parameters.from_year}-01-01", f"{parameters.to_year}-12-31"),
    )


def read_snapshots(connection: Connection, site: Site, parameters: Parameters) -> tuple[pd.DataFrame, list[Window]]:
    """The target snapshots, one row each by date and id, and their distinct windows.

    Returns
    -------
    snapshots : DataFrame with `snapshot_id` (int), `snapshot_date` (YYYY-MM-DD), `snapshot_type`, `source`,
        `year` (int) and `window_id` (int).
    windows : the distinct windows, by their ids.
    """
    statement = (
        sa.select(snapshot.c.id, snapshot.c.snapshot_date, snapshot.c.snapshot_type, snapshot.c.source)
        .where(targets(site, parameters))
        .order_by(snapshot.c.snapshot_date, snapshot.c.id)
    )
    windows: dict[tuple[datetime, datetime], Window] = {}
    rows = []
    for snapshot_id, text, snapshot_type, source in connection.execute(statement):
        try:
            dated = date.fromisoformat(text)
        except ValueError:
            raise Refused(
                f"Snapshot {snapshot_id} has the date {text!r}, which is no day of the calendar; nothing was written. "
                "Mend it in ms_snapshot.",
                code="snapshot_date",
            ) from None
        cadence = CADENCES[snapshot_type.lower()]
        start, end = window(dated, cadence)
        known = windows.setdefault((start, end), Window(len(windows), start, end, cadence))
        rows.append((snapshot_id, text, snapshot_type, source, start.year, known.window_id))
    return pd.DataFrame(rows, columns=COLUMNS), list(windows.values())


def window(dated: date, cadence: Cadence) -> tuple[datetime, datetime]:
    """First and last second of the calendar year, quarter or month that a snapshot's date lies in."""
    months = MONTHS[cadence]
    first = (dated.month - 1) // months * months
    last_day = monthrange(dated.year, first + months)[1]
    return datetime(dated.year, first + 1, 1), datetime(dated.year, first + months, last_day, 23, 59, 59)


def per_year(snapshots: pd.DataFrame, years: Sequence[int]) -> dict[int, int]:
    """How many target snapshots each year has, the years without any included."""
    counts = snapshots["year"].value_counts()
    return {year: int(counts.get(year, 0)) for year in years}
