"""Coverage of the sources by month: what there is to compute from, and where there are gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from kpibackfill.plots import style
from kpibackfill.plots.figures import Drawing, Figures
from kpibackfill.plots.layout import runs
from kpibackfill.plots.style import extent, sheet, styled, write
from kpibackfill.text import count

SOURCES = {"registrations": "Registrations", "submissions": "Evaluations", "snapshots": "Monthly snapshots"}
NAMES, PANEL, BETWEEN = 2.0, 0.85, 0.24  # inches
NOTES = ["Gray under red: nothing in that month. Evaluations: submissions without drafts."]
SLATE = "#64707c"
MISSING = "#b3261e"


def plot_coverage(coverage: pd.DataFrame) -> Figures:
    """Draw what each source holds, month by month; empty months are marked.

    Parameters
    ----------
    coverage : what ``coverage`` returned: a row per month with `month` (``2024-03``) and the counts `registrations`,
        `submissions` and `snapshots`.

    Returns
    -------
    Figures with one drawing, ``coverage``.
    """
    months = count(len(coverage), "month")
    gaps = {name: coverage[name] == 0 for name in SOURCES}
    missing = [f"{found.sum()} without {SOURCES[name].lower()}" for name, found in gaps.items() if found.any()]
    title = f"{months}: {', '.join(missing)}" if missing else f"No source has a gap in {months}"
    twice = _spans(coverage, coverage["snapshots"] > 1)
    subtitle = f"More than one monthly snapshot: {twice}" if twice else ""
    said = [f"Bars by month: what each source holds. {title}."]
    said += [f"No {SOURCES[name].lower()}: {_spans(coverage, found)}." for name, found in gaps.items() if found.any()]
    said += [f"{subtitle}."] if subtitle else []
    body = len(SOURCES) * (PANEL + BETWEEN) + 0.25
    with styled():
        page = sheet(title, subtitle, NOTES, body=body)
        for number, (name, label) in enumerate(SOURCES.items()):
            axes = page.axes(NAMES, number * (PANEL + BETWEEN), style.WIDTH - NAMES - style.MARGIN - 0.1, PANEL)
            _panel(axes, coverage, name, label, last=number == len(SOURCES) - 1)
    return Figures((Drawing("coverage", page.figure, " ".join(said)),))


def _panel(axes: Axes, coverage: pd.DataFrame, name: str, label: str, *, last: bool) -> None:
    values = coverage[name].to_numpy(dtype=float)
    at = np.arange(len(values))
    top = max(values.max(initial=0), 1) * 1.12
    none = values == 0
    axes.bar(at[none], top, width=1.0, color=style.GAP, linewidth=0)
    _missing(axes, coverage["month"].tolist(), none, 1.07 * top)
    axes.bar(at[~none], values[~none], width=0.8 if len(values) <= 120 else 1.0, color=SLATE, linewidth=0)
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_ylim(0, top)
    largest = int(values.max(initial=0))
    ticks = [0, largest] if largest else [0]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.tick_params(length=0)
    write(axes, label, (0, 0.5), ((style.MARGIN - NAMES) * 72, 0), scale=style.WHOLE, ha="left", va="center", size=8.5)
    starts = [number for number, month in enumerate(coverage["month"]) if month.endswith("-01")]
    for start in filter(None, starts):  # none at the left edge
        axes.axvline(start - 0.5, color=style.RULE, linewidth=0.6, zorder=0)
    if len(values) <= 24:
        names = [month[5:] if month[5:] != "01" else f"01\n{month[:4]}" for month in coverage["month"]]
        axes.set_xticks(at, names if last else [])
        return
    years = [int(coverage["month"].iloc[start][:4]) for start in starts]
    every = -(-len(years) // 16)
    shown = [(start + 5.5, str(year)) for start, year in zip(starts, years, strict=True) if year % every == 0]
    axes.set_xticks([place for place, _ in shown], [text for _, text in shown] if last else [])


def _missing(axes: Axes, months: list[str], none: np.ndarray, height: float) -> None:
    """A mark over each empty month; over three or more in a row one line, labeled where there is room."""
    inch = len(months) / (style.WIDTH - NAMES - style.MARGIN - 0.1)
    size = float(np.clip(1800 / max(len(months), 1), 8, 30))
    marked: list[int] = []
    for run in runs(np.flatnonzero(none).tolist()):
        if len(run) < 3:
            marked += run
            continue
        first, last = run[0], run[-1]
        axes.plot([first - 0.4, last + 0.4], [height] * 2, "-", color=MISSING, linewidth=1.6, clip_on=False,
                  solid_capstyle="butt", label="none")  # fmt: skip
        said = next((text for text in _none(months[first], months[last]) if extent(text, 7) * inch <= len(run)), "")
        centre = ((first + last) / 2, 0.5)
        write(axes, said, centre, (0, 0), scale=style.COLUMN, ha="center", va="center", size=7, color=MISSING)
    axes.scatter(marked, [height] * len(marked), marker="v", s=size, color=MISSING, linewidth=0, clip_on=False)


def _none(first: str, last: str) -> tuple[str, ...]:
    """Labels for a run of empty months, the longest first; whole years are named as years."""
    whole = first.endswith("-01") and last.endswith("-12")
    years = f"none {first[:4]}–{last[:4]}" if first[:4] != last[:4] else f"none {first[:4]}"
    return (years if whole else f"none {first} to {last}", "none")


def _spans(coverage: pd.DataFrame, chosen: pd.Series) -> str:
    """The chosen months, runs of them as ``2021-08 to 2021-10``."""
    months = coverage["month"].tolist()
    found = runs(np.flatnonzero(chosen).tolist())
    return ", ".join(f"{months[run[0]]} to {months[run[-1]]}" if len(run) > 1 else months[run[0]] for run in found)
