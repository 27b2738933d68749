"""The drift by KPI and year, each KPI in its own measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from kpibackfill.numbers import FEW, Unit, amount
from kpibackfill.plots import style
from kpibackfill.plots.captions import WITHHELD, finding, heatmap_alternative, tally, thinned_note
from kpibackfill.plots.figures import Drawing
from kpibackfill.plots.layout import Arranged, drift_text, rows
from kpibackfill.plots.style import drawable, extent, fit, ink_on, sheet, shortened, styled, write

MEASURES: dict[Unit, str] = {"count": "percent", "points": "points", "fraction": "percentage points"}
# What a cell without drift says, with enough room and with little.
WORDS = {
    "agrees": ("=", "="),
    "new": ("new", "+"),
    "period": ("period", "p"),
    "no_data": ("no data", "–"),
    "unsupported": ("unsup-\nported", "×"),
    "withheld": (FEW, FEW.replace(" ", "")),
}
MEANINGS = {
    "agrees": "equal",
    "new": "computed, but no stored row",
    "period": "only the stored period differs",
    "no_data": "neither stored nor computed",
    "unsupported": "stored, but nothing to compute from",
    "withheld": WITHHELD,
}
# Kinds can be distinguished without color: plain, dashed, gray, hatched, framed.
LOOKS: dict[str, dict[str, Any]] = {
    "agrees": {"facecolor": style.PAPER, "edgecolor": style.RULE, "linewidth": 0.6},
    "period": {"facecolor": style.PAPER, "edgecolor": style.INK, "linewidth": 0.8},
    "new": {"facecolor": style.PAPER, "edgecolor": style.STORED, "linewidth": 1.0, "linestyle": (0, (2, 1.5))},
    "no_data": {"facecolor": style.GAP, "edgecolor": style.GAP, "linewidth": 0},
    "unsupported": {"facecolor": style.PAPER, "edgecolor": "#a9b0b7", "hatch": "////", "linewidth": 0.8},
    "withheld": {"facecolor": style.GAP, "edgecolor": style.MUTED, "linewidth": 0.8},
}
# For cells too narrow for words.
TINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "agrees": ("pale gray", {"facecolor": style.GAP, "linewidth": 0}),
    "period": ("framed", {"facecolor": style.GAP, "edgecolor": style.INK, "linewidth": 0.5}),
    "new": ("blue", {"facecolor": "#8fb0cc", "linewidth": 0}),
    "no_data": ("dark gray", {"facecolor": "#c3c8ce", "linewidth": 0}),
    "unsupported": ("hatched", {"facecolor": style.GAP, "edgecolor": style.MUTED, "hatch": "//////", "linewidth": 0}),
    "withheld": ("dotted", {"facecolor": style.GAP, "edgecolor": style.MUTED, "hatch": "......", "linewidth": 0}),
}
NAMES = 2.35  # inches for the KPIs' names
LEAST = 0.05  # the color scale ends at 5 percent or points or more, so that a tiny drift is pale


@dataclass(frozen=True, slots=True)
class _Cell:
    """The room in a cell, in inches."""

    width: float
    height: float

    @property
    def roomy(self) -> bool:
        """Room for both values."""
        return self.width >= 1.3

    @property
    def narrow(self) -> bool:
        """Room for one sign only."""
        return self.width < 0.5

    @property
    def slim(self) -> bool:
        """Room for a color only."""
        return self.width < 0.17

    @property
    def upright(self) -> bool:
        """The years are written upward."""
        return 0.17 <= self.width < 0.36

    @property
    def turned(self) -> bool:
        """Its text is written upward: across, it would touch both edges or be too small to read."""
        return self.width < 0.33

    @property
    def text_size(self) -> float:
        return 6.5 if self.narrow else 7.5

    def holds(self, text: str) -> bool:
        """Whether the text fits without touching the cell's edges."""
        return extent(text, self.text_size) <= (self.height if self.turned else self.width) - 0.05

    def word(self, kind: str) -> str:
        word = WORDS[kind][self.width < 0.3 if kind == "new" else self.narrow]
        return word.replace("-\n", "") if self.width >= 0.8 else word


def draw_heatmap(arranged: Arranged) -> Drawing:
    """Draw a cell per KPI and snapshot: the drift and its color, or a word and a pattern if there is none."""
    whole, arranged = arranged, arranged.thinned()
    columns, limits = _columns(arranged), _limits(arranged)
    width = min(2.8, (style.WIDTH - NAMES - style.MARGIN) / len(columns))
    cell = _Cell(width, 0.34 if len(arranged.entries) <= 24 else 0.3)
    height = cell.height * len(arranged.entries)
    detailed = not cell.slim and bool((columns["detail"] != "").any())
    head = 0.16 + (0.28 if cell.upright else 0.06) + (0.28 if not cell.upright else 0.6) * detailed
    with styled():
        notes = [*_notes(arranged, limits, cell), *thinned_note(whole, arranged)]
        page = sheet(finding(whole), tally(whole), notes, body=head + height + 0.1)
        axes = page.axes(NAMES, head, cell.width * len(columns), height)
        _cells(axes, arranged, columns, limits, cell)
        _names(axes, arranged, columns, cell)
    return Drawing("heatmap", page.figure, heatmap_alternative(whole))


def _columns(arranged: Arranged) -> pd.DataFrame:
    """A row per column of the map: ``slot, snapshot_id`` (missing where a slot has no snapshot), ``period, detail``.

    The snapshots of a period are in the same order as in the tables.
    """
    snapshots = arranged.places.drop_duplicates("snapshot_id")
    snapshots = snapshots[["slot", "snapshot_id", "source", "snapshot_date", "period"]]
    slots = pd.DataFrame({"slot": range(len(arranged.slots))})
    order = ["slot", "snapshot_date", "snapshot_id"]
    columns = slots.merge(snapshots, on="slot", how="left").sort_values(order, ignore_index=True)
    # A year's own snapshot is in the slot of its first month or quarter, under its own name.
    columns["period"] = columns["period"].fillna(columns["slot"].map(dict(enumerate(arranged.slots))))
    crowded = columns["period"].duplicated(keep=False)
    by_date = columns.duplicated(["period", "source"], keep=False) | (columns["source"] == "")
    source = columns["source"].astype("string").str.replace("_", " ")
    dated = (source + " " + columns["snapshot_date"].astype("string").str.slice(5)).str.strip()
    return columns.assign(detail=dated.where(by_date, source).where(crowded, ""))


def _limits(arranged: Arranged) -> dict[Unit, float]:
    """Per measure, the drift in hundredths at which the color scale ends: the largest one, at most 100."""
    units = {entry.kpi_id: entry.unit for entry in arranged.entries}
    sizes = arranged.places.loc[arranged.places["kind"] == "differs", "size"].abs().dropna()
    largest = sizes.groupby(arranged.places["kpi_id"].map(units)).max()
    return {unit: float(np.clip(largest[unit], LEAST, 1.0)) for unit in MEASURES if unit in largest}


def _cells(axes: Axes, arranged: Arranged, columns: pd.DataFrame, limits: dict[Unit, float], cell: _Cell) -> None:
    column_of = {snapshot: number for number, snapshot in enumerate(columns["snapshot_id"])}
    colors = np.full((len(arranged.entries), len(columns)), np.nan)
    outlines: dict[str, list[Rectangle]] = {}
    inset, height = (0.08, 0.94) if cell.slim else (min(0.03 / cell.width, 0.08), 0.82)
    for line, entry in enumerate(arranged.entries):
        for place in rows(arranged.of(entry.kpi_id)):
            column = column_of[place.snapshot_id]
            if place.kind == "differs":
                # from a stored 0, any drift is beyond the scale
                share = np.sign(place.delta) if np.isnan(place.size) else place.size / limits[entry.unit]
                colors[line, column] = np.clip(share, -1, 1)
            else:
                outline = Rectangle((column - 0.5 + inset, line - height / 2), 1 - 2 * inset, height)
                outlines.setdefault(place.kind, []).append(outline)
            if not cell.slim:
                _word(axes, (column, line), place, entry.unit, limits, cell)
    for kind, found in outlines.items():
        look = TINTS[kind][1] if cell.slim else LOOKS[kind]
        axes.add_collection(PatchCollection(found, zorder=3, label=kind, **look), autolim=False)
    edges = np.arange(len(columns) + 1) - 0.5, np.arange(len(arranged.entries) + 1) - 0.5
    gap = 3.0 if not cell.narrow else 0.3 if cell.slim else 1.2
    shares = np.ma.masked_invalid(colors)
    axes.pcolormesh(*edges, shares, cmap=style.DIVERGING, vmin=-1, vmax=1, edgecolors=style.PAPER, linewidth=gap)
    if cell.slim:
        return
    for number in np.flatnonzero(columns["snapshot_id"].isna()).tolist():
        upright = len(arranged.entries) * cell.height > 0.8
        axes.text(
            number, (len(arranged.entries) - 1) / 2,
            "no snapshot" if upright else "none" if cell.narrow else "no\nsnapshot",
            rotation=90 if upright or cell.narrow else 0, color=style.MUTED, size=cell.text_size,
            ha="center", va="center",
        )  # fmt: skip


def _word(axes: Axes, at: tuple[int, int], place: Any, unit: Unit, limits: dict[Unit, float], cell: _Cell) -> None:
    """Write the drift, or the word for its kind, into a cell."""
    look: dict[str, Any] = {"color": style.MUTED if place.kind in ("agrees", "no_data") else style.INK}
    if place.kind == "differs":
        text = _drift(place, unit, cell)
        look["color"] = ink_on(1 if np.isnan(place.size) else place.size / limits[unit])
    else:
        text = _kind(place, unit, cell)
        look |= {"path_effects": style.HALO} if place.kind == "unsupported" else {}
    if cell.turned and len(text) > 1:
        look |= {"rotation": 90, "rotation_mode": "anchor"}
    axes.text(
        *at, text, ha="center", va="center_baseline" if "\n" not in text else "center",
        size=cell.text_size, linespacing=0.95, zorder=4, **look,
    )  # fmt: skip


def _drift(place: Any, unit: Unit, cell: _Cell) -> str:
    """The drift without its unit, which is next to the KPI's name; with enough room, after both values."""
    text = drift_text(place, unit)
    if cell.roomy:
        both = f"{amount(place.stored, unit)} → {amount(place.computed, unit)}"
        return both if "→" in text else both + ("   " if cell.width > 2 else "\n") + text
    if "→" in text:
        return text if cell.width > 0.6 and len(text) < 8 else "from 0" if not cell.narrow else "0→"
    if text.startswith("under"):
        return "≈0" if cell.narrow else "≈ 0"
    number = text.rsplit(" ", 1)[0]
    value = float(number.replace("−", "-").replace(",", ""))
    if abs(value) >= 1000:
        times = f"×{value / 100 + 1:,.0f}" if unit == "count" and 0 < value < 1e5 else ""
        return times if times and cell.holds(times) else "≫" if value > 0 else "≪"
    if abs(value) < (10 if cell.narrow else 100):
        return number
    return number[0] + f"{math.floor(abs(value) + 0.5)}"  # halves away from zero; Python's round takes the even number


def _kind(place: Any, unit: Unit, cell: _Cell) -> str:
    if not cell.roomy or place.kind in ("no_data", "withheld"):
        return cell.word(place.kind)
    value = amount(place.computed if place.kind == "new" else place.stored, unit)
    return {"agrees": f"= {value}", "new": f"new: {value}"}.get(place.kind, f"{value} {cell.word(place.kind)}")


def _names(axes: Axes, arranged: Arranged, columns: pd.DataFrame, cell: _Cell) -> None:
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(arranged.entries) - 0.5, -0.5)
    axes.set_axis_off()
    left: dict[str, Any] = {"scale": style.ROW, "ha": "right", "va": "center"}
    names = shortened([entry.label for entry in arranged.entries], NAMES - style.MARGIN - 0.1, 8)
    for line, (entry, name) in enumerate(zip(arranged.entries, names, strict=True)):
        write(axes, name, (0, line), (-6, 4.5), size=8, **left)
        write(axes, MEASURES[entry.unit], (0, line), (-6, -5), size=6.5, color=style.MUTED, **left)
    above: dict[str, Any] = {"scale": style.COLUMN, "ha": "center", "va": "bottom"}
    if cell.slim:
        years = columns["period"].str.slice(0, 4)
        begins = np.flatnonzero(years.ne(years.shift()))
        every = math.ceil(0.34 * len(begins) / (cell.width * len(columns)))  # inches that a year's number takes
        for number in begins[::every].tolist():
            write(axes, years[number], (number - 0.5, 1), (0, 4), size=8, **above | {"ha": "left"})
        return
    for number, column in enumerate(rows(columns)):
        label, detail = column.period, drawable(column.detail) if column.detail else ""
        if cell.upright:
            label = fit(f"{label} {detail}".rstrip(), 0.95, 7.5)
            write(axes, label, (number, 1), (0, 4), size=7.5, rotation=90, **above)
            continue
        write(axes, label, (number, 1), (0, 4), size=8, **above)
        detail = fit(detail, cell.width - 0.02, 5.5, lines=3)
        write(axes, detail, (number, 1), (0, 16), size=5.5, color=style.MUTED, linespacing=0.95, **above)


def _notes(arranged: Arranged, limits: dict[Unit, float], cell: _Cell) -> list[str]:
    """How far the color scale reaches, and what the words and signs in the cells mean."""
    notes = []
    if limits:
        # With as many digits as the title: a largest drift of 99.5 percent is not 99.
        reach = ", ".join(f"{100 * limit:.1f} {MEASURES[unit]}".replace(".0 ", " ") for unit, limit in limits.items())
        notes.append(f"Green: computed is higher than stored; purple: lower. The deepest colors mean {reach}.")
    if cell.slim:
        tints = [f"{TINTS[kind][0]}: {meaning}" for kind, meaning in MEANINGS.items() if arranged.count(kind)]
        return [*notes, f"{' · '.join(tints)}.".capitalize()] if tints else notes
    plain = () if cell.narrow else ("agrees", "new", "no_data")  # self-explanatory
    signs = [
        f"{cell.word(kind)}: {meaning}".replace("-\n", "").replace("=:", "=")
        for kind, meaning in MEANINGS.items()
        if arranged.count(kind) and kind not in plain
    ]
    return [*notes, " · ".join(signs)] if signs else notes
