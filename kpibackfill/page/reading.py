"""Reads the stored rows that the page's annual tables choose from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.config import DashboardPage, Site
from kpibackfill.database.image import RowKey
from kpibackfill.database.snapshot_table import optional
from kpibackfill.page.annual_tables import AnnualRow, AnnualTables, IdPrefix, Payload
from kpibackfill.page.id_prefix import find_prefix
from kpibackfill.page.payload import read_payload
from kpibackfill.tables import kpi_fact, snapshot


def read_page(
    connection: Connection,
    site: Site,
    as_of: datetime,
    kpi_ids: Collection[str],
    prefix: IdPrefix | None = None,
    stored_ids: Collection[str] = (),
) -> AnnualTables:
    """Read what the page shows now: its payload, and the rows of these KPIs that its annual tables choose from.

    Parameters
    ----------
    as_of : now, in the site's time zone.
    kpi_ids : as in the registry; `stored_ids` are others, as stored.
    prefix : how the stored ids begin, unless it is to be found out.
    """
    payload = read_payload(connection)
    prefix = prefix or find_prefix(connection, site.kpi_id_prefix, payload, kpi_ids)
    every = prefix.removed(stored_ids).union(kpi_ids)
    return read_annual_tables(connection, site.dashboard, as_of, prefix, payload, every)


def read_annual_tables(
    connection: Connection,
    page: DashboardPage,
    as_of: datetime,
    prefix: IdPrefix,
    payload: Payload,
    kpi_ids: Collection[str],
    *,
    known: sa.ColumnElement[bool] | None = None,
) -> AnnualTables:
    """Read the rows of these KPIs that the annual tables choose from.

    Parameters
    ----------
    as_of : now, in the site's time zone.
    kpi_ids : as in the registry.
    known : the snapshots whose rows are known already.
    """
    first, last = page.years
    wanted = {prefix.text + kpi_id: kpi_id for kpi_id in kpi_ids}
    is_annual = sa.func.lower(snapshot.c.snapshot_type).contains("annual")
    whole_year = (kpi_fact.c.period_year != 0) & (sa.func.coalesce(kpi_fact.c.period_month, 0) == 0)
    found = connection.execute(
        sa.select(
            kpi_fact.c.snapshot_id,
            kpi_fact.c.kpi_id,
            snapshot.c.snapshot_date,
            sa.cast(kpi_fact.c.metric_value, sa.Double).label("value"),
            *optional(connection, "is_test"),
        )
        .join_from(kpi_fact, snapshot, snapshot.c.id == kpi_fact.c.snapshot_id)
        .where(
            kpi_fact.c.kpi_id.in_(sorted(wanted)),
            snapshot.c.snapshot_date.between(f"{first}-01-01", f"{last}-12-31"),
            is_annual | whole_year,
            # Not `~known`, which is not true where a definition is NULL.
            sa.true() if known is None else sa.case((known, 1), else_=0) == 0,
        )
        .order_by(kpi_fact.c.snapshot_id)
    )
    # The page finds ids by the database's collation, too: MariaDB's ignores case and final spaces.
    by_id = {name.lower(): kpi_id for name, kpi_id in wanted.items()}
    rows: dict[RowKey, AnnualRow] = {}
    for row in found:
        kpi_id = by_id.get(row.kpi_id.rstrip(" ").lower())
        if kpi_id is not None and row.value is not None and row.snapshot_date[:4].isdecimal():
            key = row.snapshot_id, kpi_id
            rows[key] = AnnualRow(*key, row.snapshot_date, True, bool(row.is_test), row.value)
    return AnnualTables(range(first, last + 1), dict(_live(page, as_of)), prefix, payload, rows, {})


def _live(page: DashboardPage, as_of: datetime) -> Iterator[tuple[str, range]]:
    """The years that the months before the present one touch, which the page counts live."""
    this_month = as_of.year * 12 + as_of.month - 1
    for kpi_id, months in page.live_months.items():
        if months:
            yield kpi_id, range((this_month - months) // 12, (this_month - 1) // 12 + 1)
