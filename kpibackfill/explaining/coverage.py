"""What the sources hold month by month, so that gaps are visible before anyone relies on a value."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime

import pandas as pd
import sqlalchemy as sa

from kpibackfill.config import Config
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.explaining.membership import joins
from kpibackfill.explaining.reading import opened
from kpibackfill.explaining.registrations import by_window, registrations
from kpibackfill.explaining.windows import month_name, month_number, month_windows
from kpibackfill.kpis.evaluations import FINAL, evaluations, unix_spans
from kpibackfill.kpis.registry import SiteAt, Window


def coverage(
    *,
    target: str = "demo",
    from_year: int | None = None,
    to_year: int | None = None,
    as_of: str | datetime | date | None = None,
    config: Config | None = None,
) -> pd.DataFrame:
    """Count what the sources hold in each month. Reads only, and leaves no record.

    Parameters
    ----------
    target : a target of ``kpibackfill.toml``.
    from_year, to_year : inclusive; by default every year that has an annual snapshot.
    as_of : the instant whose month is the last one counted; default now.
    config : the configuration to use instead of the nearest ``kpibackfill.toml``.

    Returns
    -------
    DataFrame, one row per month: `month` (``2024-03``), `registrations` of any status, `submissions` of the evaluation
    form without drafts, and monthly membership `snapshots` for the month.

    Raises
    ------
    KpiBackfillError : in one or two lines, what is wrong; nothing was written.
    """
    with opened(config, target=target, from_year=from_year, to_year=to_year, as_of=as_of, every_year=True) as found:
        parameters = found.run.parameters
        years = [parameters.from_year, parameters.to_year]
        if from_year is None and to_year is None:
            years = [int(year) for year in found.snapshots["year"]] or [found.site.current_month.year]
        last = min(datetime(max(years), 12, 31), found.site.current_month)
        months = month_windows(range(min(years) * 12, month_number(last) + 1))
        sources = RecordedConnection(found.sources_connection)
        registered = by_window(registrations(sources, months))
        submissions = _submissions(sources, found.site, months)
        snapshots = _snapshots(RecordedConnection(found.store_connection), found.site, months)
    numbered = [month.window_id for month in months]
    rows = [(month_name(month), registered[month], submissions[month], snapshots[month]) for month in numbered]
    return pd.DataFrame(rows, columns=["month", "registrations", "submissions", "snapshots"])


def _submissions(connection: RecordedConnection, site: SiteAt, months: list[Window]) -> Counter[int]:
    spans = unix_spans(months, site)
    if not spans:
        return Counter()
    inside = evaluations(site, spans, FINAL)
    rows = connection.execute(sa.select(inside.c.window_id, sa.func.count()).group_by(inside.c.window_id))
    return Counter({month: int(number) for month, number in rows})


def _snapshots(connection: RecordedConnection, site: SiteAt, months: list[Window]) -> Counter[int]:
    later = site.settings.dated.later("monthly")
    found = Counter[int]()
    if months:
        for row in joins(connection, site, [month.window_id + later for month in months]):
            found[row.month - later] += row.snapshots * (row.kind == "monthly")
    return found
