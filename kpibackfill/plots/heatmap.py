"""The drift by KPI and year, each KPI in its own measure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from kpibackfill.kpis.registry import Unit
from kpibackfill.numbers import FEW, FEW_PEOPLE
from kpibackfill.plots.figures import Drawing
from kpibackfill.plots.places import Arranged, drift_text, finding, tally
from kpibackfill.plots.style import (
    DIVERGING, GAP, INK, MARGIN, MUTED, PAPER, RULE, STORED, WIDTH, drawable, fit, ink_on, sheet, styled,
)  # fmt: skip

MEASURES: dict[Unit, str] = {"count": "per cent", "points": "points", "fraction": "percentage points"}
WORDS = {"agrees": "=", "new": "new", "no_data": "no data", "unsupported": "unsup-\nported", "withheld": FEW}
SIGNS = {**WORDS, "no_data": "–", "unsupported": "×", "period": "p", "withheld": "<5"}
NAMES, HEAD = 2.05, 0.4  # inches for the KPIs' names, and for the years
LEAST = 0.05  # the colours' scale ends at 5 % or points or more, so that a trifle is no deep colour


def draw_heatmap(arranged: Arranged) -> Drawing:
    """A cell per KPI and snapshot: the drift and its colour, or a word and a pattern where there is none."""
    columns = _columns(arranged)
    limits = _limits(arranged)
    cell = min(0.9, (WIDTH - NAMES - 2 * MARGIN) / max(1, len(columns)))
    row = 0.34 if len(arranged.entries) <= 24 else 0.27
    height = row * len(arranged.entries)
    with styled():
        page = sheet(finding(arranged), tally(arranged), _notes(arranged, limits, cell), body=HEAD + height + 0.08)
        if not arranged.places.empty:
            axes = page.axes(NAMES, HEAD, cell * len(columns), height)
            _cells(axes, arranged, columns, limits, cell)
            _names(axes, arranged, columns, cell, row)
    return Drawing("heatmap", page.figure, _alternative(arranged))


def _columns(arranged: Arranged) -> pd.DataFrame:
    """A row per column of the map: ``slot, snapshot_id`` (none where a slot has no snapshot), ``detail``."""
    places = arranged.places
    snapshots = places.drop_duplicates("snapshot_id")[["slot", "rank", "snapshot_id", "source", "snapshot_date"]]
    slots = pd.DataFrame({"slot": range(len(arranged.slots))})
    columns = slots.merge(snapshots, on="slot", how="left").sort_values(["slot", "rank"], ignore_index=True)
    crowded = columns["slot"].duplicated(keep=False)
    one_source = columns.groupby("slot")["source"].transform("nunique") == 1
    detail = columns["source"].where(~one_source, columns["snapshot_date"].astype("string").str.slice(5))
    return columns.assign(detail=detail.where(crowded, ""))


def _limits(arranged: Arranged) -> dict[Unit, float]:
    """Per measure, the drift in hundredths at which the colours end; at most 100 %."""
    units = {entry.kpi_id: entry.unit for entry in arranged.entries}
    sizes = arranged.places.loc[arranged.places["kind"] == "differs", "size"].abs()
    by_unit = sizes.groupby(arranged.places["kpi_id"].map(units)).max()
    return {unit: float(np.clip(size, LEAST, 1.0)) if size == size else 1.0 for unit, size in by_unit.items()}


def _cells(axes: Axes, arranged: Arranged, columns: pd.DataFrame, limits: dict[Unit, float], cell: float) -> None:
    column_of = {snapshot: number for number, snapshot in enumerate(columns["snapshot_id"])}
    colours = np.full((len(arranged.entries), len(columns)), np.nan)
    size = 7.5 if cell >= 0.5 else 6.5 if cell >= 0.33 else 5.2
    for line, entry in enumerate(arranged.entries):
        for place in arranged.of(entry.kpi_id).itertuples():
            column = column_of[place.snapshot_id]
            style: dict[str, Any] = {"color": MUTED, "size": size}
            if place.kind == "differs":
                if np.isnan(place.size):  # from 0: there is no share of it, so the deepest colour
                    colours[line, column] = np.sign(place.delta)
                else:
                    colours[line, column] = np.clip(place.size / limits[entry.unit], -1, 1)
                style |= {"color": ink_on(colours[line, column])}
                text = _drift(place, entry.unit, cell)
            else:
                _pattern(axes, line, column, place.kind)
                style |= {"color": {"new": INK, "unsupported": INK, "withheld": INK}.get(place.kind, MUTED)}
                text = _word(place.kind, cell)
            axes.text(column, line, text, ha="center", va="center", linespacing=0.95, zorder=4, **style)
    axes.pcolormesh(
        np.ma.masked_invalid(colours), cmap=DIVERGING, vmin=-1, vmax=1, edgecolors=PAPER, linewidth=1, zorder=2,
        transform=axes.transData,
    ) if False else axes.imshow(
        np.ma.masked_invalid(colours), cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto", zorder=1, interpolation="nearest"
    )
    for number in np.flatnonzero(columns["snapshot_id"].isna()):
        axes.text(
            number, (len(arranged.entries) - 1) / 2, "no snapshot", rotation=90, ha="center", va="center",
            color=MUTED, size=min(size + 0.5, 7.5),
        )  # fmt: skip


def _pattern(axes: Axes, line: int, column: int, kind: str) -> None:
    """Kinds differ also without colour: plain, framed, grey, hatched."""
    look: dict[str, Any] = {
        "new": {"facecolor": PAPER, "edgecolor": STORED, "linewidth": 1.0, "linestyle": (0, (2, 1.5))},
        "no_data": {"facecolor": GAP, "edgecolor": GAP, "linewidth": 0},
        "unsupported": {"facecolor": PAPER, "edgecolor": "#a9b0b7", "hatch": "/////", "linewidth": 0.8},
        "withheld": {"facecolor": GAP, "edgecolor": MUTED, "linewidth": 0.8},
    }.get(kind, {"facecolor": PAPER, "edgecolor": RULE, "linewidth": 0.6})
    axes.add_patch(Rectangle((column - 0.45, line - 0.41), 0.9, 0.82, zorder=3, **look))


def _drift(place: Any, unit: Unit, cell: float) -> str:
    """The drift without its unit, which stands beside the KPI's name."""
    text = drift_text(place, unit)
    if "→" in text:
        return text if cell > 0.6 else "from 0"
    number = text.rsplit(" ", 1)[0]
    value = float(number.replace("−", "-").replace(",", ""))
    if abs(value) >= 1000:
        return "≫" if value > 0 else "≪"
    whole = abs(value) >= (100 if cell >= 0.5 else 10)
    return f"{value:+.0f}".replace("-", "−") if whole else number


def _word(kind: str, cell: float) -> str:
    if cell >= 0.5:
        return WORDS.get(kind, "period")
    return SIGNS[kind]


def _names(axes: Axes, arranged: Arranged, columns: pd.DataFrame, cell: float, row: float) -> None:
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(arranged.entries) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    side = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right", "va": "center"}
    for line, entry in enumerate(arranged.entries):
        name = fit(entry.label, NAMES - MARGIN - 0.08, 8)
        axes.annotate(name, (0, line), (-6, 4.5), size=8, color=INK, annotation_clip=False, **side)
        axes.annotate(MEASURES[entry.unit], (0, line), (-6, -5), size=6.5, color=MUTED, annotation_clip=False, **side)
    above = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "annotation_clip": False}
    for number, column in enumerate(columns.itertuples()):
        label = arranged.slots[column.slot]
        narrow = cell < 0.36
        axes.annotate(
            label, (number, 1), (0, 4 if narrow else 12), size=8 if cell >= 0.4 else 7, color=INK,
            rotation=90 if narrow else 0, ha="center", va="bottom", **above,
        )  # fmt: skip
        if column.detail and not narrow:
            detail = fit(drawable(column.detail), cell, 6.5)
            axes.annotate(detail, (number, 1), (0, 3), size=6.5, color=MUTED, ha="center", va="bottom", **above)


def _notes(arranged: Arranged, limits: dict[Unit, float], cell: float) -> list[str]:
    """What the colours reach to, and what the words and signs in the cells mean."""
    notes = []
    if limits:
        reach = ", ".join(f"{limit * 100:.0f} {MEASURES[unit]}" for unit, limit in limits.items())
        notes.append(f"Green: computed is higher than stored; purple: lower. The deepest colours stand for {reach}.")
    meanings = {
        "agrees": "computed and stored are equal",
        "new": "a value and no stored row",
        "period": "only the stored period differs",
        "no_data": "neither stored nor computed",
        "unsupported": "stored, with nothing to compute from",
        "withheld": f"the rate rests on fewer than {FEW_PEOPLE} people, not for publication",
    }
    said = [
        f"{_word(kind, cell)}: {meaning}".replace("-\n", "") for kind, meaning in meanings.items() if arranged.count(kind)
    ]
    return [*notes, "; ".join(said) + "."] if said else notes


def _alternative(arranged: Arranged) -> str:
    if arranged.places.empty:
        return f"An empty figure. {finding(arranged)}."
    names = {entry.kpi_id: entry for entry in arranged.entries}
    differing = arranged.places[arranged.places["kind"] == "differs"]
    order = differing["size"].abs().fillna(np.inf).sort_values(ascending=False, kind="stable").index[:5]
    largest = [
        f"{names[place.kpi_id].name} {arranged.slots[place.slot]} {drift_text(place, names[place.kpi_id].unit)}"
        for place in differing.loc[order].itertuples()
    ]
    said = [f"Heat map of drift by KPI and year. {finding(arranged)}."]
    if len(largest) > 1:
        said.append(f"The {len(largest)} largest: {'; '.join(largest)}.")
    if counted := tally(arranged):
        said.append(f"Besides: {counted}.")
    return " ".join(said)
