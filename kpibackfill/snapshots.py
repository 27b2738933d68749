"""This step finds the target snapshots and the window of each."""

from __future__ import annotations

from datetime import datetime

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.config import Site
from kpibackfill.database.expressions import in_any_case
from kpibackfill.database.inspection import name_of
from kpibackfill.database.snapshot_table import optional
from kpibackfill.errors import Refused
from kpibackfill.kpis.dating import day, window
from kpibackfill.kpis.registry import MONTHS, Cadence, Window
from kpibackfill.parameters import CADENCES, Parameters
from kpibackfill.tables import snapshot
from kpibackfill.text import some

COLUMNS = ["snapshot_id", "snapshot_date", "snapshot_type", "source", "is_test", "year", "period", "window_id"]


def targets(site: Site, parameters: Parameters) -> sa.ColumnElement[bool]:
    """The condition that selects the target snapshots; types and definition ignore ASCII case."""
    return sa.and_(
        in_any_case(snapshot.c.definition, [site.definition]),
        sa.or_(
            *(
                in_any_case(snapshot.c.snapshot_type, [name])
                & snapshot.c.snapshot_date.between(*_dates(site, CADENCES[name], parameters))
                for name in parameters.snapshot_types
            )
        ),
    )


def _dates(site: Site, cadence: Cadence, parameters: Parameters) -> tuple[str, str]:
    """The first and last dates of snapshots whose windows are in the run's years."""
    later, month = divmod(MONTHS[cadence] if site.dated.later(cadence) else 0, 12)
    first = f"{parameters.from_year + later}-{month + 1:02}-01"
    return first, f"{parameters.to_year + (later or month > 0)}-{month or 12:02}-31"


def read_snapshots(connection: Connection, site: Site, parameters: Parameters) -> tuple[pd.DataFrame, list[Window]]:
    """The target snapshots, one row each by date and id, and their distinct windows.

    Returns
    -------
    snapshots : DataFrame with `snapshot_id` (int), `snapshot_date` (YYYY-MM-DD), `snapshot_type`, `source` (empty
        where it has none), `is_test` (bool: pages skip it), `year` (int: the window's), `period` (``2024``, ``2024 Q1``
        or ``2024-01``) and `window_id` (int).
    windows : the distinct windows, by their ids.
    """
    statement = (
        sa.select(
            snapshot.c.id,
            snapshot.c.snapshot_date,
            snapshot.c.snapshot_type,
            *optional(connection, "source", "is_test"),
        )
        .where(targets(site, parameters))
        .order_by(snapshot.c.snapshot_date, snapshot.c.id)
    )
    windows: dict[tuple[datetime, datetime], Window] = {}
    rows = []
    for snapshot_id, text, snapshot_type, source, is_test in connection.execute(statement):
        try:
            dated = day(text)
        except ValueError:
            raise Refused(
                f"Snapshot {snapshot_id} has the date {text!r}, which is not a calendar date; nothing was written. "
                f"Fix it in {name_of(connection, snapshot.name)}.",
                code="snapshot_date",
            ) from None
        cadence = CADENCES[snapshot_type.lower()]
        start, end = window(dated, cadence, later=site.dated.later(cadence))
        known = windows.setdefault((start, end), Window(len(windows), start, end, cadence))
        of_window = (start.year, period(start, cadence), known.window_id)
        rows.append((snapshot_id, text, snapshot_type, source or "", bool(is_test), *of_window))
    return pd.DataFrame(rows, columns=COLUMNS), list(windows.values())


def period(start: datetime, cadence: Cadence) -> str:
    """What people call the window that starts then: ``2024``, ``2024 Q1`` or ``2024-01``."""
    names = {"annual": "", "quarterly": f" Q{(start.month + 2) // 3}", "monthly": f"-{start.month:02}"}
    return f"{start.year}{names[cadence]}"


def misdated(site: Site, snapshots: pd.DataFrame) -> list[str]:
    """A note on snapshots that represent the period before their date although no period begins on it."""
    starts = {"annual": ("01-01",), "quarterly": ("01-01", "04-01", "07-01", "10-01")}
    odd = [
        str(row.snapshot_id)
        for row in snapshots.itertuples()
        if site.dated.later(CADENCES[str(row.snapshot_type).lower()])
        and not str(row.snapshot_date).endswith(starts.get(CADENCES[str(row.snapshot_type).lower()], ("-01",)))
    ]
    if not odd:
        return []
    return [
        "As dated is set, these snapshots represent the period before the one that contains their date, but are not "
        f"dated on the first day of a period: {some(odd)}."
    ]
