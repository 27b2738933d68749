"""Drift frames made by hand for the figures, and what a figure says, read back from its artists."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.text
import numpy as np
import pandas as pd

from kpibackfill.plots import Figures

KPIS = {
    "workshop_attendees": {"label": "Workshop attendees", "unit": "count"},
    "education_nps": {"label": "Education NPS", "unit": "points"},
    "workshop_participants_bipoc": {"label": "Workshop participants who are BIPOC", "unit": "fraction"},
}
ATTENDEES, NPS, RATE = KPIS
NAN = math.nan


def drift(*rows: dict[str, Any], kpis: dict[str, dict[str, str]] | None = None) -> pd.DataFrame:
    """A drift frame of rows, each given by what is special about it."""
    records = [_record(**row) for row in rows]
    columns = list(_record(ATTENDEES, 2020))
    frame = pd.DataFrame(records, columns=columns).astype(
        {"basis": "Int64", "population": "Int64", "computed": float, "stored": float, "delta": float, "change": float}
    )
    frame.attrs["kpis"] = kpis or KPIS
    return frame


def _record(
    kpi_id: str,
    year: int,
    computed: float = NAN,
    stored: float = NAN,
    *,
    basis: int | None = 40,
    source: str = "system",
    snapshot_id: int | None = None,
    date: str | None = None,
    kind: str = "annually",
    stored_month: int = 12,
) -> dict[str, Any]:
    date = date or f"{year}-12-31"
    computed_f4, stored_f4 = np.float32(computed), np.float32(stored)
    delta = float(computed_f4) - float(stored_f4)
    if math.isnan(computed):
        status = "no_data" if math.isnan(stored) else "unsupported"
    elif math.isnan(stored):
        status = "new"
    else:
        status = "unchanged" if delta == 0 and stored_month == 12 else "changed"
    return {
        "snapshot_id": snapshot_id or year,
        "snapshot_date": date,
        "snapshot_type": kind,
        "source": source,
        "year": year,
        "period": {"monthly": date[:7], "quarterly": f"{year} Q{(int(date[5:7]) + 2) // 3}"}.get(kind, str(year)),
        "kpi_id": kpi_id,
        "computed": computed,
        "basis": basis,
        "population": basis,
        "warnings": (),
        "period_year": year,
        "period_month": 12,
        "stored": stored,
        "computed_f4": computed_f4,
        "stored_f4": stored_f4,
        "stored_period_year": pd.NA if math.isnan(stored) else year,
        "stored_period_month": pd.NA if math.isnan(stored) else stored_month,
        "delta": delta,
        "change": delta / abs(stored) if stored else NAN,
        "status": status,
    }


def row(*values: Any, **special: Any) -> dict[str, Any]:
    names = ("kpi_id", "year", "computed", "stored")
    return {**dict(zip(names, values, strict=False)), **special}


STORY = (
    row(ATTENDEES, 2017, 60, 60),
    row(ATTENDEES, 2018, 69, 100),
    row(ATTENDEES, 2021, 82, NAN),
    row(NPS, 2017, NAN, NAN),
    row(NPS, 2018, NAN, 0),
    row(NPS, 2021, 34.1, 30),
    row(RATE, 2017, 0.5, 0.5, stored_month=4),
    row(RATE, 2018, 0.51, 0.5),
    row(RATE, 2021, 0.25, 0.75, basis=4),
)


def title(figures: Figures, name: str) -> str:
    return figures[name].figure.texts[0].get_text().replace("\n", " ")


def panels(figures: Figures, name: str = "series") -> list[Any]:
    return list(figures[name].figure.axes)


def words(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def everything_said(figures: Figures) -> str:
    drawn = [text.get_text() for drawing in figures for text in drawing.figure.findobj(matplotlib.text.Text)]
    return "\n".join([*drawn, *(drawing.alt for drawing in figures)])


def line(axes: Any, label: str) -> dict[float, float]:
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return dict(zip(map(float, found.get_xdata()), map(float, found.get_ydata()), strict=True))


def cells(figures: Figures) -> dict[tuple[int, int], str]:
    """What the cells of the heat map say, by row and column."""
    axes = figures["heatmap"].figure.axes[0]
    inside = [text for text in axes.texts if not isinstance(text, matplotlib.text.Annotation)]
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in inside}
