"""Stored and computed values by year: small multiples, one panel per KPI."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from kpibackfill.numbers import FEW, Unit, amount
from kpibackfill.plots import captions, style
from kpibackfill.plots.figures import Drawing
from kpibackfill.plots.layout import Arranged, Entry, drift_text, rows
from kpibackfill.plots.style import extent, fit, sheet, size_for, styled, write

UNITS: dict[Unit, str] = {"count": "count", "points": "points", "fraction": "percent"}
COLOR = {"stored": style.STORED, "computed": style.COMPUTED}
LEFT, RIGHT, HEAD, FOOT = 0.46, 0.78, 0.46, 0.36  # inches around a panel's axes: ticks, end labels, title, years
RING = 5.5  # points; a dot of half that size fits into it


def draw_series(arranged: Arranged) -> Drawing:
    """Draw one panel per KPI: a ring is a stored value, a dot a computed one, so a dot in a ring is a match."""
    whole, arranged = arranged, arranged.thinned()
    columns, height = _grid(arranged)
    rows = math.ceil(len(arranged.entries) / columns)
    room = style.WIDTH / columns
    # In a narrow panel, a KPI's name may take two lines.
    head = HEAD + 0.15 * any("\n" in _named(entry, room) for entry in arranged.entries)
    width = min(room - LEFT - RIGHT, 0.9 * len(arranged.slots))
    with styled():
        notes = [*captions.series_notes(arranged), *captions.thinned_note(whole, arranged)]
        page = sheet(captions.series_title(whole), captions.tally(whole), notes, body=rows * (head + height + FOOT))
        for number, entry in enumerate(arranged.entries):
            row, column = divmod(number, columns)
            axes = page.axes(column * room + LEFT, row * (head + height + FOOT) + head, width, height)
            _panel(axes, arranged, entry, width, height)
            _heading(axes, arranged, entry, room)
    return Drawing("series", page.figure, captions.series_alternative(whole))


def _grid(arranged: Arranged) -> tuple[int, float]:
    """The number of columns of panels, and a panel's height in inches."""
    panels = len(arranged.entries)
    if panels == 1:
        return 1, 2.8 if len(arranged.slots) > 2 else 1.5
    if panels in (2, 4):
        return 2, 1.7
    if len(arranged.slots) == 1:
        return (3, 0.85) if panels <= 24 else (4, 0.7)
    return (3, 1.35) if panels <= 24 else (4, 1.05)


def _panel(axes: Axes, arranged: Arranged, entry: Entry, width: float, height: float) -> None:
    places, xs = arranged.of(entry.kpi_id), arranged.xs
    lead = places[places["rank"] == 0].set_index("slot").reindex(range(len(xs)))
    _years(axes, arranged, width)
    _scale(axes, places, entry)
    for x in xs[sorted(arranged.gaps(entry.kpi_id))]:
        axes.axvspan(x - arranged.step / 2, x + arranged.step / 2, color=style.GAP, linewidth=0, zorder=0)
    for place in rows(places[places["kind"] == "differs"]):
        axes.plot(
            [place.x] * 2, [place.stored, place.computed], color=style.MUTED, linewidth=0.8, zorder=2, label="drift"
        )
    axes.plot(xs, lead["stored"], "--", color=style.STORED, linewidth=1.1, zorder=3, label="stored")
    axes.plot(xs, lead["computed"], "-", color=style.COMPUTED, linewidth=1.3, zorder=4, label="computed")
    _marks(axes, places, size=min(RING, max(2.8, 0.8 * 72 * width / (len(xs) + 0.5))))
    written_at = -math.inf
    for place in rows(places[places["kind"] == "withheld"].drop_duplicates("slot")):
        if (place.x - written_at) * width / np.ptp(axes.get_xlim()) >= extent(FEW, 7):  # else it would overprint
            written_at = place.x
            look = {"ha": "center", "size": 7, "color": style.COMPUTED, "path_effects": style.HALO, "zorder": 8}
            write(axes, FEW, (place.x, 0), (0, 4), scale=style.COLUMN, **look)
    _largest_drift(axes, arranged, entry, height)
    _ends(axes, lead, arranged, entry, height)


def _marks(axes: Axes, places: pd.DataFrame, size: float) -> None:
    """Rings and dots; diamonds if additional snapshots cover the same period; a cross if nothing supports the value."""
    for further, shape, scale in ((False, "o", 1.0), (True, "D", 0.8)):
        chosen = places[(places["rank"] > 0) == further]
        label = " of additional snapshots" if further else ""
        axes.plot(
            chosen["x"], chosen["stored"], shape, color=style.STORED, markersize=size * scale, markerfacecolor="white",
            markeredgewidth=1.2 if size > 4 else 0.9, clip_on=False, zorder=5, label=f"stored values{label}",
        )  # fmt: skip
        axes.plot(
            chosen["x"], chosen["computed"], shape, color=style.COMPUTED, markersize=max(1.8, size * scale * 0.52),
            markeredgewidth=0, clip_on=False, zorder=6, label=f"computed values{label}",
        )  # fmt: skip
    crossed = places[places["kind"] == "unsupported"]
    axes.plot(
        crossed["x"], crossed["stored"], "x", color=style.INK, markersize=size * 1.7, markeredgewidth=1.2,
        clip_on=False, zorder=7, label="unsupported",
    )  # fmt: skip


def _heading(axes: Axes, arranged: Arranged, entry: Entry, room: float) -> None:
    kinds = arranged.of(entry.kpi_id)["kind"].value_counts()
    compared = int(sum(kinds.get(kind, 0) for kind in captions.COMPARED))
    if differ := int(kinds.get("differs", 0)):
        said = "differs" if compared == 1 else f"{differ:,} of {compared:,} differ{'s' * (differ == 1)}"
    elif compared:
        said = f"{captions.every(compared).lower()} agree" if compared > 1 else "agrees"
    else:
        new = int(kinds.get("new", 0))
        said = f"{new:,} new" if new > 1 else "new" if new else "nothing to compare"
    left = 72 * (style.MARGIN - LEFT)
    write(axes, _named(entry, room), (0, 1), (left, 16), scale=style.WHOLE, size=9, weight="bold", va="bottom")
    write(axes, f"{UNITS[entry.unit]} · {said}", (0, 1), (left, 7), scale=style.WHOLE, size=7.5, color=style.MUTED)


def _named(entry: Entry, room: float) -> str:
    return fit(entry.label, room - 0.25, 9, lines=2, bold=True)


def _scale(axes: Axes, places: pd.DataFrame, entry: Entry) -> None:
    """From zero, so that heights are comparable; with room above for the text of the largest drift."""
    values = places[["stored", "computed"]].to_numpy().ravel()
    values = values[~np.isnan(values)]
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    reach = (high - low) or 1.0
    above = 0.34 if (places["kind"] == "differs").any() else 0.12
    axes.set_ylim(low - (0.12 * reach if low < 0 else 0.0), high + above * reach)
    ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low < high else [low][: values.size]
    shown = [float(tick) for tick in ticks if low - 0.1 * reach <= tick <= high * 1.1]
    axes.yaxis.set_major_locator(FixedLocator(shown))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value, entry.unit, shown)))
    axes.grid(axis="y", color=style.RULE, linewidth=0.5, alpha=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, pad=3)
    axes.spines["left"].set_visible(False)
    if low < 0:
        axes.axhline(0, color=style.MUTED, linewidth=0.7, zorder=1)
    if not values.size:
        said = "withheld" if (places["kind"] == "withheld").any() else "no data"
        axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", va="center", color=style.MUTED, size=9)


def _years(axes: Axes, arranged: Arranged, width: float) -> None:
    """A tick for each period, and labels for round years as far as there is room."""
    xs = arranged.xs
    axes.set_xlim(xs[0] - 0.6 * arranged.step, xs[-1] + 0.6 * arranged.step)
    first, last = math.floor(xs[0]), math.floor(xs[-1])
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100) if (last - first) / step < max(1.0, width / 0.4))
    named = [float(year) for year in range(first, last + 1) if year % every == 0 and year >= xs[0]] or [xs[0]]
    axes.xaxis.set_major_locator(FixedLocator(named))
    axes.xaxis.set_minor_locator(FixedLocator(xs.tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.tick_params(axis="x", which="major", length=4, color=style.MUTED, pad=2)
    axes.tick_params(axis="x", which="minor", length=2, color=style.MUTED)
    axes.spines["bottom"].set_color(style.MUTED)


def _largest_drift(axes: Axes, arranged: Arranged, entry: Entry, height: float) -> None:
    """The text of the largest drift above its place, with a thin line down to it."""
    differing = captions.ordered(arranged, entry.kpi_id)
    if differing.empty:
        return
    place = next(rows(differing))
    low, high = axes.get_ylim()
    below = high - (high - low) * 0.16 / height
    left, right = axes.get_xlim()
    across = (place.x - left) / (right - left)
    axes.plot([place.x] * 2, [np.fmax(place.stored, place.computed), below], color=style.RULE, linewidth=0.8, zorder=1)
    side = "center" if 0.25 < across < 0.75 or right - left < 3 else "left" if across < 0.5 else "right"
    look = {"ha": side, "va": "top", "size": 7.5, "path_effects": style.HALO, "zorder": 9}
    write(axes, drift_text(place, entry.unit), (place.x, 1), (0, -1), scale=style.COLUMN, **look)


def _ends(axes: Axes, lead: pd.DataFrame, arranged: Arranged, entry: Entry, height: float) -> None:
    """The last stored and the last computed value as labels on the right, instead of a legend."""
    ends = {name: lead[name].last_valid_index() for name in COLOR if lead[name].notna().any()}
    if len(ends) == 2 and ends["stored"] == ends["computed"] and lead.at[ends["stored"], "kind"] != "differs":
        ends = {"both": ends["stored"]}
    values = {name: float(lead.at[slot, "stored" if name == "both" else name]) for name, slot in ends.items()}
    labels = {name: _end(name, value, ends[name], arranged, entry.unit) for name, value in values.items()}
    low, high = axes.get_ylim()
    inch = (high - low) / height
    heights = dict(values)
    if len(values) == 2:
        lower, upper = sorted(values, key=lambda name: values[name])
        apart = 0.155 * (1 + sum(label.count("\n") for label in labels.values()) / 2) * inch
        missing = max(0.0, apart - (values[upper] - values[lower]))
        bottom = max(values[lower] - missing / 2, low + 0.06 * inch)
        heights = {lower: bottom, upper: max(bottom + apart, values[upper] + missing / 2)}
    for name, label in labels.items():
        size = min(size_for(line, RIGHT - 0.14, 7.5, least=6.5) for line in label.split("\n"))
        look = {"va": "center", "size": size, "color": COLOR.get(name, style.INK), "linespacing": 1.05}
        write(axes, label, (1, heights[name]), (4, 0), scale=style.ROW, **look)


def _end(name: str, value: float, slot: int, arranged: Arranged, unit: Unit) -> str:
    """A last value, what it is, and its period unless that is the last one: on its own line rather than tiny."""
    text = amount(value, unit) if abs(value) < 1e7 else _short(value, unit)
    if slot == len(arranged.slots) - 1:
        return f"{text}\n{name}"
    dated = f"{name} {arranged.slots[slot]}"
    return f"{text}\n{dated}" if extent(dated, 7) <= RIGHT - 0.14 else f"{text}\n{name}\n{arranged.slots[slot]}"


def _short(value: float, unit: Unit, others: Sequence[float] = ()) -> str:
    """A number short enough for a tick: ``25 %``, ``12 k``, ``3.5 M``; in thousands if one of the `others` is."""
    if unit == "fraction":
        return f"{value * 100:.6g} %".replace("-", "−")
    for size, scale, letter in ((1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e4, 1e3, " k")):
        if value and max(map(abs, (value, *others))) >= size:
            return f"{value / scale:,.4g}{letter}".replace("-", "−")
    return (f"{value:,.0f}" if value == int(value) else f"{value:g}").replace("-", "−")
