"""Stored and computed values by year: small multiples, one panel a KPI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from kpibackfill.numbers import FEW, FEW_PEOPLE, amount
from kpibackfill.plots.figures import Drawing
from kpibackfill.plots.places import Arranged, Entry, drift_text, finding, spans, tally
from kpibackfill.plots.style import COMPUTED, GAP, HALO, INK, MUTED, RULE, STORED, WIDTH, fit, sheet, styled

UNITS = {"count": "count", "points": "points", "fraction": "per cent"}
LEFT, RIGHT, HEAD, FOOT = 0.5, 0.82, 0.46, 0.36  # inches around a panel's axes: ticks, end labels, title, years
MARK = {"stored": 5.5, "computed": 2.8}  # points: a dot fits into a ring
COLOUR = {"stored": STORED, "computed": COMPUTED}


def draw_series(arranged: Arranged) -> Drawing:
    """One panel a KPI: a ring is a stored value, a dot a computed one, so that a dot in a ring is a match."""
    columns, height = _grid(len(arranged.entries))
    rows = -(-len(arranged.entries) // columns)
    width = WIDTH / columns
    with styled():
        page = sheet(_title(arranged), tally(arranged), _notes(arranged), body=rows * (HEAD + height + FOOT))
        for number, entry in enumerate(arranged.entries):
            row, column = divmod(number, columns)
            axes = page.axes(
                column * width + LEFT, row * (HEAD + height + FOOT) + HEAD, width - LEFT - RIGHT, height
            )
            _panel(axes, arranged, entry, width - LEFT - 0.1, height)
    return Drawing("series", page.figure, _alternative(arranged))


def _grid(panels: int) -> tuple[int, float]:
    """Columns, and the height of a panel in inches."""
    if panels == 1:
        return 1, 3.0
    if panels <= 4:
        return 2, 1.7
    return (3, 1.35) if panels <= 24 else (4, 1.05)


def _panel(axes: Axes, arranged: Arranged, entry: Entry, width: float, height: float) -> None:
    places = arranged.of(entry.kpi_id)
    xs = arranged.xs
    lead = places[places["rank"] == 0].set_index("slot").reindex(range(len(xs)))
    axes.set_xlim(xs[0] - 0.6 * arranged.step, xs[-1] + 0.75 * arranged.step)
    _heading(axes, places, entry, width)
    _scale(axes, places, entry)
    _years(axes, arranged, width - RIGHT)

    for x in xs[(lead["stored"].isna() & lead["computed"].isna() & (lead["kind"] != "withheld")).to_numpy()]:
        axes.axvspan(x - arranged.step / 2, x + arranged.step / 2, color=GAP, linewidth=0, zorder=0)
    for place in places.itertuples():
        if place.kind == "differs":
            axes.plot([place.x] * 2, [place.stored, place.computed], color=MUTED, linewidth=0.8, zorder=2, label="gap")
    axes.plot(xs, lead["stored"], "--", color=STORED, linewidth=1.1, zorder=3, label="stored")
    axes.plot(xs, lead["computed"], "-", color=COMPUTED, linewidth=1.3, zorder=4, label="computed")
    for name, shapes in (("stored", "oD"), ("computed", "oD")):
        for shape, chosen in zip(shapes, (places["rank"] == 0, places["rank"] > 0), strict=True):
            axes.plot(
                places["x"].where(chosen),
                places[name],
                shape,
                color=COLOUR[name],
                markersize=MARK[name] - (0.5 if shape == "D" else 0),
                markerfacecolor="white" if name == "stored" else COMPUTED,
                markeredgewidth=1.2 if name == "stored" else 0,
                zorder=5 if name == "stored" else 6,
                label=f"{name} values" if shape == "o" else f"{name} values of further snapshots",
            )
    unsupported = places[places["kind"] == "unsupported"]
    axes.plot(
        unsupported["x"], unsupported["stored"], "x", color=STORED, markersize=8, markeredgewidth=1.3, zorder=7,
        label="unsupported", clip_on=False,
    )  # fmt: skip
    for place in places[places["kind"] == "withheld"].itertuples():
        axes.text(
            place.x, 0.03, FEW, transform=axes.get_xaxis_transform(), ha="center", color=COMPUTED, size=7.5,
            path_effects=HALO, zorder=8,
        )  # fmt: skip
    _largest_gap(axes, places, entry)
    _end_labels(axes, lead, entry, arranged, height)


def _heading(axes: Axes, places: pd.DataFrame, entry: Entry, width: float) -> None:
    kinds = places["kind"].value_counts()
    compared = sum(kinds.get(kind, 0) for kind in ("differs", "period", "agrees"))
    if kinds.get("differs", 0):
        said = f"{kinds['differs']} of {compared} differ"
    elif compared:
        said = "agrees" if compared == 1 else f"all {compared} agree"
    else:
        said = f"{kinds['new']} new" if kinds.get("new", 0) else "nothing to compare"
    top = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom", "annotation_clip": False}
    axes.annotate(fit(entry.label, width, 9, bold=True), (0, 1), (-24, 17), size=9, weight="bold", **top)
    axes.annotate(f"{UNITS[entry.unit]} · {said}", (0, 1), (-24, 6), size=7.5, color=MUTED, **top)


def _scale(axes: Axes, places: pd.DataFrame, entry: Entry) -> None:
    values = places[["stored", "computed"]].to_numpy().ravel()
    values = values[~np.isnan(values)]
    low, high = (min(0.0, values.min()), max(0.0, values.max())) if values.size else (0.0, 0.0)
    reach = (high - low) or 1.0
    axes.set_ylim(low - reach * (0.12 if low < 0 else 0.06), high + reach * 0.16)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]) if values.size else FixedLocator([]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, entry)))
    axes.grid(axis="y", color=RULE, linewidth=0.5, alpha=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, pad=3)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_position(("data", 0.0))
    axes.spines["bottom"].set_color(MUTED)
    if not values.size:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color=MUTED, size=9)


def _tick(value: float, entry: Entry) -> str:
    if entry.unit == "fraction":
        return f"{value * 100:g} %"
    short = f"{value:,.0f}" if abs(value) >= 1 or value == 0 else f"{value:g}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            short = f"{value / (1e3 if letter == 'k' else size):,.4g} {letter}"
            break
    return short.replace("-", "−")


def _years(axes: Axes, arranged: Arranged, width: float) -> None:
    """Ticks at each slot, and as many labels as have room, at round years."""
    first, last = int(arranged.xs[0]), int(arranged.xs[-1])
    room = max(1, int(width / 0.4))
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100) if (last - first) / step < room)
    years = [year for year in range(first, last + 1) if year % every == 0]
    axes.xaxis.set_major_locator(FixedLocator(years or [first]))
    axes.xaxis.set_minor_locator(FixedLocator(arranged.xs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.tick_params(axis="x", which="major", length=4, color=MUTED, pad=2)
    axes.tick_params(axis="x", which="minor", length=2, color=MUTED)
    for label in axes.get_xticklabels():
        label.set_y(0)


def _largest_gap(axes: Axes, places: pd.DataFrame, entry: Entry) -> None:
    """The drift in words at the place where it is largest."""
    differing = places[places["kind"] == "differs"]
    if differing.empty:
        return
    largest = differing["size"].abs().fillna(-1.0).idxmax()
    place = next(differing.loc[[largest]].itertuples())
    axes.annotate(
        drift_text(place, entry.unit),
        (place.x, max(place.stored, place.computed)),
        (0, 5),
        textcoords="offset points",
        ha="center",
        size=7.5,
        color=INK,
        path_effects=HALO,
        zorder=9,
        annotation_clip=False,
    )


def _end_labels(axes: Axes, lead: pd.DataFrame, entry: Entry, arranged: Arranged, height: float) -> None:
    """The last stored and the last computed value, in words at the right: a legend where it is needed."""
    ends = {name: lead[name].last_valid_index() for name in COLOUR}
    last = len(arranged.slots) - 1

    def words(name: str, said: str) -> str:
        slot = ends[name]
        return f"{amount(lead.loc[slot, name], entry.unit)} {said}" + (f"\nin {arranged.slots[slot]}" * (slot != last))

    labels: list[list[Any]] = []
    if ends["stored"] == ends["computed"] is not None and lead.loc[ends["stored"], "kind"] in ("agrees", "period"):
        labels.append([float(lead.loc[ends["stored"], "stored"]), words("stored", "both"), INK])
    else:
        labels += [
            [float(lead.loc[slot, name]), words(name, name), COLOUR[name]]
            for name, slot in ends.items()
            if slot is not None
        ]
    low, high = axes.get_ylim()
    apart = (high - low) * (0.26 if any("\n" in label[1] for label in labels) else 0.14) / height
    if len(labels) == 2 and abs(labels[0][0] - labels[1][0]) < apart:
        middle = (labels[0][0] + labels[1][0]) / 2
        up = 1 if labels[0][0] > labels[1][0] else -1
        labels[0][0], labels[1][0] = middle + up * apart / 2, middle - up * apart / 2
    for y, text, colour in labels:
        axes.annotate(
            text, (1, y), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
            size=7.5, color=colour, linespacing=1.05, annotation_clip=False,
        )  # fmt: skip


def _title(arranged: Arranged) -> str:
    differing = arranged.places[arranged.places["kind"] == "differs"]
    if differing.empty:
        return finding(arranged)
    most = differing["kpi_id"].value_counts(sort=False)
    entry = max(arranged.entries, key=lambda entry: most.get(entry.kpi_id, 0))
    compared = arranged.of(entry.kpi_id)["kind"].isin(("differs", "period", "agrees")).sum()
    if len(arranged.entries) == 1:
        return f"{entry.label}: {most[entry.kpi_id]} of {compared} stored values differ from the computed ones"
    return (
        f"{len(most)} of {len(arranged.entries)} KPIs differ from what is stored; "
        f"{entry.label} most often: in {most[entry.kpi_id]} of {compared} values"
    )


def _notes(arranged: Arranged) -> list[str]:
    """How to read the marks that occur."""
    if arranged.places.empty:
        return []
    notes = ["Ring, dashed line: stored. Dot, full line: computed. A dot in a ring: they agree. Grey: no value then."]
    further = arranged.places[arranged.places["rank"] > 0].drop_duplicates("snapshot_id")
    if arranged.count("unsupported"):
        notes.append("Crossed: stored, with nothing to compute from.")
    if arranged.count("withheld"):
        notes.append(f"{FEW}: the rate rests on fewer than {FEW_PEOPLE} people and is not for publication.")
    if not further.empty:
        which = ", ".join(f"{arranged.slots[place.slot]} ({place.source})" for place in further.itertuples())
        notes.append(f"Diamonds: further snapshots of {which}.")
    return [" ".join(notes)]


def _alternative(arranged: Arranged) -> str:
    if arranged.places.empty:
        return f"An empty figure. {finding(arranged)}."
    panels = len(arranged.entries)
    what = "One panel" if panels == 1 else f"{panels} panels, one a KPI"
    range_ = f"{arranged.slots[0]} to {arranged.slots[-1]}" if len(arranged.slots) > 1 else arranged.slots[0]
    said = [f"{what}: stored and computed values, {range_}. {_title(arranged)}."]
    for name in COLOUR:
        missing: dict[str, list[str]] = {}
        for entry in arranged.entries:
            places = arranged.of(entry.kpi_id)
            there = set(places.loc[places[name].notna() | (places["kind"] == "withheld"), "slot"])
            absent = [label for slot, label in enumerate(arranged.slots) if slot not in there]
            if absent:
                missing.setdefault(spans(absent, arranged.slots), []).append(entry.name)
        if missing:
            gaps = "; ".join(
                f"{', '.join(names) if len(names) < max(4, panels) else 'every KPI'} {years}"
                for years, names in missing.items()
            )
            said.append(f"No {name} value: {gaps}.")
    return " ".join(said)
