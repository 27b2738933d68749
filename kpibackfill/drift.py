"""Compare what was computed with what is stored."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kpibackfill import baseline
from kpibackfill.archive.models import DriftRow, YearCounts
from kpibackfill.compute import Readings
from kpibackfill.database.image import RowKey
from kpibackfill.frames import seal_of, sealed
from kpibackfill.kpis.registry import as_dict
from kpibackfill.reporting import markup
from kpibackfill.reporting.markup import Table
from kpibackfill.reporting.rows import drift_rows
from kpibackfill.reporting.sentences import drift_sentence
from kpibackfill.run import step
from kpibackfill.text import count


@step
def compare(readings: Readings) -> pd.DataFrame:
    """Compare computed with stored values: one row per snapshot and KPI, ordered by date, snapshot and KPI.

    Two values are equal if they are equal as 4-byte floats, which is how the fact table stores them.

    Parameters
    ----------
    readings : what ``compute_kpis`` returned.

    Returns
    -------
    DataFrame with the columns of ``readings.computed`` and

    - `period_year`, `period_month` (int): what a written row would carry
    - `stored` (float, NaN without a row), `stored_period_year`, `stored_period_month` (Int64)
    - `computed_f4`, `stored_f4` (float32): both values as the fact table stores them
    - `delta` (float): computed minus stored, in the KPI's unit; `change` (float): delta ÷ abs(stored), missing where
      stored is 0 or absent
    - `status`: ``new`` (a value but no row), ``changed`` (value or period differs), ``unchanged``, ``no_data``
      (neither), ``unsupported`` (a row is stored, with nothing to compute it from)
    - `recorded` (float): the value that the archive last recorded for the row, NaN without one; `moved`: what has
      changed since then: ``source`` (sources, settings or code, which changes the computed value), ``store`` (the
      row's value), ``both``, ``vanished`` (the row is gone), or empty
    - `decided`: a sentence if a person last rejected, set or removed the row, otherwise empty
    - `shown`: what becomes of the row on the dashboard once the new and changed rows are written: ``shown``, ``behind``
      (a later snapshot of that year), ``test`` (in a test snapshot), ``outside`` (the page's years) or ``live``
      (replaced by live numbers); missing if there is no row, or none that an annual table reads

    Raises
    ------
    Refused : a table of the readings was edited.
    """
    seal_of(readings.snapshots)
    seal_of(readings.computed)
    computed = readings.computed
    keys = _keys(computed)
    images = [readings.stored.get(key) for key in keys]
    has_row = np.array([image is not None for image in images], dtype=bool)
    has_value = computed["computed"].notna().to_numpy()
    stored = np.array([np.nan if image is None else image.metric_value for image in images], dtype="float64")
    month = computed["snapshot_date"].str.slice(5, 7).astype("int64")
    year = computed["snapshot_date"].str.slice(0, 4).astype("int64")
    stored_year = pd.array([None if image is None else image.period_year for image in images], dtype="Int64")
    stored_month = pd.array([None if image is None else image.period_month for image in images], dtype="Int64")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        computed_f4 = computed["computed"].to_numpy(dtype="float32", na_value=np.nan)
        stored_f4 = stored.astype("float32")
        delta = computed_f4.astype("float64") - stored_f4.astype("float64")
        scale = np.abs(stored_f4.astype("float64"))
        change = np.where(scale > 0, delta / scale, np.nan)
    period = pd.DataFrame({"year": stored_year, "month": stored_month}, index=computed.index)
    same_period = (period["year"].eq(year) & period["month"].eq(month)).fillna(False).to_numpy(dtype=bool)
    unchanged = has_row & has_value & (computed_f4 == stored_f4) & same_period
    status = np.select(
        [unchanged, has_row & has_value, has_value, has_row],
        ["unchanged", "changed", "new", "unsupported"],
        default="no_data",
    )
    frame = computed.assign(
        period_year=year,
        period_month=month,
        stored=stored,
        stored_period_year=stored_year,
        stored_period_month=stored_month,
        computed_f4=computed_f4,
        stored_f4=stored_f4,
        delta=delta,
        change=change,
        status=status,
        **baseline.columns(readings.run, readings.prefix, keys, computed_f4, stored_f4, has_row),
    )
    planned = frame[frame["status"].isin(["new", "changed"])]
    periods = zip(planned["period_year"].tolist(), planned["period_month"].tolist(), strict=True)
    tables = readings.tables.changed(zip(_keys(planned), planned["computed"].tolist(), periods, strict=True))
    frame["shown"] = pd.Series([tables.shown(key) for key in keys], index=frame.index, dtype=object)
    return sealed(
        frame, readings.run, content=readings, kpis={entry.kpi_id: as_dict(entry) for entry in readings.run.kpis}
    )


def _keys(frame: pd.DataFrame) -> list[RowKey]:
    return list(zip(frame["snapshot_id"].tolist(), frame["kpi_id"].tolist(), strict=True))


def drift_table(drift: pd.DataFrame) -> Table:
    """The drift as a table with what matters first; unchanged rows and rows without data are folded away.

    Parameters
    ----------
    drift : what ``compare`` returned.

    Returns
    -------
    Table for the last expression of a cell.

    Raises
    ------
    Refused : the drift was edited since it was compared.
    """
    readings: Readings = seal_of(drift).content
    kpis = {entry.kpi_id: entry for entry in readings.run.kpis}
    rows = drift_rows(rows_of(drift), kpis)
    sentence = f"{drift_sentence(rows)} {readings.gone}".rstrip()
    return Table(markup.render("compared", rows=rows, sentence=sentence), sentence)


def review_figures(drift: pd.DataFrame) -> Table:
    """The runbook's review figures: target snapshots and computed KPI rows per year, and their total.

    Parameters
    ----------
    drift : what ``compare`` returned.

    Returns
    -------
    Table for the last expression of a cell.

    Raises
    ------
    Refused : the drift was edited since it was compared.
    """
    parameters = seal_of(drift).run.parameters
    per_year, total = counts(drift, range(parameters.from_year, parameters.to_year + 1))
    sentence = f"{count(total, 'KPI row')} in {count(len(per_year), 'year')}."
    return Table(markup.render("years", per_year=per_year, total=total), sentence)


def rows_of(drift: pd.DataFrame) -> tuple[DriftRow, ...]:
    """The rows for the record; ``None`` for what is missing."""
    frame = drift.drop(columns=["computed_f4", "stored_f4"])
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return tuple(DriftRow(**{**row, "warnings": tuple(row["warnings"])}) for row in rows)


def counts(drift: pd.DataFrame, years: range) -> tuple[dict[str, YearCounts], int]:
    """The runbook's review figures: snapshots and computed values per year, and the total of the values."""
    found = drift[drift["computed"].notna()]
    snapshots = drift.drop_duplicates("snapshot_id")["year"].value_counts()
    values = found["year"].value_counts()
    per_year = {
        str(year): YearCounts(snapshots=int(snapshots.get(year, 0)), kpi_rows=int(values.get(year, 0)))
        for year in years
    }
    return per_year, len(found)
