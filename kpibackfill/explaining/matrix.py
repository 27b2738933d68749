"""The detection matrix: which plausible definitions yield exactly what is stored, year by year."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from kpibackfill.explaining.sentences import EXACT, ROUNDED, quoted
from kpibackfill.kpis.registry import Kpi
from kpibackfill.numbers import FEW, amount
from kpibackfill.plots import style
from kpibackfill.plots.captions import WITHHELD
from kpibackfill.plots.figures import Drawing, Figures
from kpibackfill.plots.style import drawable, fit, name_row, sheet, size_for, styled, write
from kpibackfill.text import count

LINE, WIDEST, NAMES = 0.27, 0.8, 3.1  # inches: a definition, a year at its widest, the definitions' names
MIDDLE = 0.52  # of a row


def plot_detection(kpis: Sequence[Kpi], matrix: pd.DataFrame, sentences: Mapping[str, str]) -> Figures:
    """Draw a matrix for each KPI that has a stored value: its definitions by year, with the matches filled.

    Parameters
    ----------
    kpis, matrix, sentences : as ``detect`` returned them.

    Returns
    -------
    Figures with one drawing per KPI, named by its id. A rate based on fewer than five people shows "< 5".
    """
    found = ((entry, matrix[matrix["kpi_id"] == entry.kpi_id]) for entry in kpis)
    return Figures(tuple(_draw(entry, rows, sentences[entry.kpi_id]) for entry, rows in found if not rows.empty))


def _draw(entry: Kpi, rows: pd.DataFrame, sentence: str) -> Drawing:
    columns = _columns(rows)
    names = list(dict.fromkeys(rows["definition"]))
    width = min(WIDEST, (style.WIDTH - NAMES - style.MARGIN) / len(columns))
    crowded = columns["year"].duplicated().any()
    head = (0.85 if width < 0.42 else 0.42) + 0.16 * (crowded and width >= 0.42)
    title, subtitle = _title(entry, rows, drawable(quoted(sentence)))
    with styled():
        page = sheet(title, subtitle, _notes(rows, columns, width), body=head + LINE * (len(names) + 0.4) + 0.06)
        axes = page.axes(NAMES, head, width * len(columns), LINE * (len(names) + 0.4))
        _head(axes, entry, columns, width)
        cells = {(row.definition, row.snapshot_id): row for row in rows.itertuples()}
        own = str(rows.loc[rows["own"], "definition"].iloc[0])
        for line, name in enumerate(names):
            color = style.COMPUTED if name == own else style.INK
            name_row(axes, drawable(name), line + MIDDLE, NAMES - style.MARGIN - 0.18, bold=name == own, color=color)
            for column in columns[columns["stored"].notna()].itertuples():
                _cell(axes, entry, column.Index, line, cells[name, column.snapshot_id], width)
        for number in columns.index[columns["stored"].isna()]:
            high = len(names) + 0.3
            axes.add_patch(Rectangle((number - 0.5 + 0.04, 0), 0.92, high, color=style.GAP, linewidth=0, zorder=0))
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(names) + 0.4, 0)
        axes.set_axis_off()
    return Drawing(entry.kpi_id, page.figure, _alternative(entry, rows, sentence))


def _title(entry: Kpi, rows: pd.DataFrame, sentence: str) -> tuple[str, str]:
    """Title and subtitle: the finding if the title has room for it, otherwise how many values the KPI itself yields."""
    label = drawable(entry.label, instead=entry.kpi_id)
    finding, _, remark = sentence.partition(". ")
    title = f"{label}: {finding.removesuffix('.')}"
    if not fit(title, style.WIDTH - 2 * style.MARGIN, 13, lines=3, bold=True).endswith("…"):
        return title, remark
    own = rows[rows["own"]]
    fits = int((own["match"] == EXACT).sum())
    of = count(len(own), "stored value")
    return f"{label}: {fits} of {of} {'equals' if fits == 1 else 'equal'} what is computed here", sentence


def _columns(rows: pd.DataFrame) -> pd.DataFrame:
    """A stored value per row, by year; `stored` is missing for the years in between that have none."""
    years = pd.DataFrame({"year": range(rows["year"].min(), rows["year"].max() + 1)})
    return years.merge(rows.drop_duplicates("snapshot_id").sort_values("snapshot_id"), on="year", how="left")


def _head(axes: Axes, entry: Kpi, columns: pd.DataFrame, width: float) -> None:
    """The years and the stored values, above the definitions."""
    upright = width < 0.42
    above: dict[str, Any] = {"scale": style.COLUMN, "ha": "center", "va": "bottom"}
    several = columns["year"].duplicated(keep=False)
    for number, row in enumerate(columns.itertuples()):
        stored = "" if pd.isna(row.stored) else FEW if row.withheld else amount(row.stored, entry.unit)
        if upright:
            text = f"{row.year}   {stored}"
            write(axes, text, (number, 1), (0, 3), size=7, rotation=90, color=style.STORED, **above)
            continue
        size = size_for(stored, width - 0.06, 8.5, bold=True)
        write(axes, stored, (number, 1), (0, 4), size=size, color=style.STORED, weight="bold", **above)
        write(axes, str(row.year), (number, 1), (0, 18), size=8, color=style.MUTED, **above)
        if several[number]:
            source = fit(drawable(row.source.replace("_", " ") or row.snapshot_date), width - 0.02, 5.5, lines=2)
            write(axes, source, (number, 1), (0, 29), size=5.5, color=style.MUTED, linespacing=0.95, **above)
    look = {"size": 8.5, "color": style.STORED, "weight": "bold"}
    write(axes, "stored", (0, 1), (-7, 4), scale=style.WHOLE, ha="right", va="bottom", **look)
    axes.plot([0, 1], [1, 1], transform=axes.transAxes, color=style.RULE, linewidth=0.8, clip_on=False)


def _cell(axes: Axes, entry: Kpi, number: int, line: int, row: Any, width: float) -> None:
    """What the definition yields: filled if it equals the stored value, framed if it does when rounded."""
    text = FEW if row.withheld and row.value == row.value else amount(row.value, entry.unit)
    look: dict[str, Any] = {"color": style.MUTED}
    if row.match:
        inset = min(0.025 / width, 0.08)
        exact = row.match == EXACT
        box = FancyBboxPatch(
            (number - 0.5 + inset, line + MIDDLE - 0.41), 1 - 2 * inset, 0.82,
            boxstyle="square,pad=0", facecolor=style.STORED if exact else style.PAPER, edgecolor=style.STORED,
            linewidth=1.0, linestyle="-" if exact else (0, (2, 1.5)), zorder=2,
        )  # fmt: skip
        axes.add_patch(box)
        look = {"color": style.PAPER, "weight": "bold"} if exact else {"color": style.STORED}
    if width < 0.3:
        text = {EXACT: "", ROUNDED: "≈"}.get(row.match, "·")
    elif row.match == EXACT and row.detail and width > 0.6:
        text = f"{text} {row.detail[:3]}"
    size = size_for(text, width - 0.06, 8, bold=True)
    axes.text(number, line + MIDDLE, text, ha="center", va="center_baseline", size=size, zorder=3, **look)


def _notes(rows: pd.DataFrame, columns: pd.DataFrame, width: float) -> list[str]:
    detailed = rows[(rows["match"] == EXACT) & (rows["detail"] != "")].drop_duplicates("year")
    details = ", ".join(f"{row.detail} ({row.year})" for row in detailed.itertuples())
    marks = {
        "Filled: the definition yields exactly what is stored.": True,
        "Dashed: only when rounded.": (rows["match"] == ROUNDED).any(),
        "Orange: what is computed here.": True,
        "Gray years: nothing stored.": columns["stored"].isna().any(),
        "Dot: a different value.": width < 0.3,
        f"Up to the end of: {details}.": details,
        f"{FEW}: {WITHHELD}.": rows["withheld"].any(),
    }
    return [" ".join(text for text, drawn in marks.items() if drawn)]


def _alternative(entry: Kpi, rows: pd.DataFrame, sentence: str) -> str:
    exact = rows[rows["match"] == EXACT]
    stored = rows["snapshot_id"].nunique()
    fits = exact.groupby("definition", sort=False)["snapshot_id"].nunique()
    listed = "; ".join(f"{name}: {number}" for name, number in fits.items()) or "none"
    return (
        f"Matrix of {count(rows['definition'].nunique(), 'definition')} of {entry.label} by year, compared with "
        f"{count(stored, 'stored value')}. {quoted(sentence)} Exact matches: {listed}."
    )
