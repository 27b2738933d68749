"""How the rows of one KPI got their values, over the time of recording."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

from kpibackfill.errors import Refused
from kpibackfill.numbers import FEW, Unit, amount, too_few
from kpibackfill.plots import style
from kpibackfill.plots.captions import WITHHELD
from kpibackfill.plots.figures import Drawing, Figures, nothing_drawn
from kpibackfill.plots.layout import rows
from kpibackfill.plots.style import clean, drawable, extent, fit, sheet, styled, write
from kpibackfill.text import count, some

NAMES, END, ROW, FOOT = 1.1, 0.75, 0.62, 0.36  # inches: the rows' names, the last values, a row, the dates
APART = 0.12  # minimum inches between two writes of a row on a time scale
LISTED = 8  # runs listed in the notes
NOTHING = "No run has written a value"


def plot_history(history: pd.DataFrame) -> Figures:
    """Draw what was written to one KPI's rows, with a line for each row.

    Parameters
    ----------
    history : one row per value written, for one `kpi_id` and, if given, one `target`: `snapshot_id`, `year`
        (int), `when` (datetime), `before` and `value` (float; NaN: no row before, or deleted), `basis_before` and
        `basis` (what these are based on, missing where unknown), `run_id`, `reason`. ``attrs["kpis"]`` holds the KPI's
        `label` and `unit`, if any.

    Returns
    -------
    Figures with one drawing, ``history``. A rate based on fewer than five people shows "< 5" and no mark.

    Raises
    ------
    Refused : the rows are of several KPIs or of several targets.
    """
    if history.empty:
        return nothing_drawn("history", NOTHING, f"{NOTHING}.")
    _refuse_several(history)
    kpi_id = str(history["kpi_id"].iloc[0])
    described: Mapping[str, str] = history.attrs.get("kpis", {}).get(kpi_id, {})
    unit: Unit | None = described.get("unit")  # type: ignore[assignment]
    label = described.get("label") or kpi_id
    written = _writes_by_time(history, unit)
    if in_order := _in_order(written):
        written["x"] = written["when"].rank(method="dense")
    lines = list(written.groupby(["year", "snapshot_id"], sort=True))
    with styled():
        page = sheet(
            _title(written, drawable(label, instead=kpi_id)),
            _counts(written),
            _notes(written, in_order),
            body=ROW * len(lines) + FOOT,
        )
        first, last = float(written["x"].min()), float(written["x"].max())
        room = 0.5 if in_order else (last - first) * 0.04
        span = first - room, last + room
        for number, ((year, snapshot_id), writes) in enumerate(lines):
            axes = page.axes(NAMES, number * ROW, style.WIDTH - NAMES - END, ROW)
            twice = sum(year == other for (other, _), _ in lines) > 1
            name = f"{year}, snapshot {snapshot_id}" if twice else f"{year}"
            _line(axes, writes, fit(name, NAMES - style.MARGIN - 0.1, 8, lines=2), span)
            _dates(axes, written if in_order else None, last=number == len(lines) - 1)
    alternative = f"{_title(written, clean(label))}. {_counts(written)}."
    return Figures((Drawing("history", page.figure, alternative),))


def _refuse_several(history: pd.DataFrame) -> None:
    """Rows of several KPIs or databases would appear under one name and join into one line."""
    named = ""
    for column, argument, noun in (("kpi_id", "kpi", "KPI"), ("target", "target", "target")):
        found = sorted(set(history[column].astype(str))) if column in history else []
        named += f'{", " * bool(named)}{argument}="{found[0]}"' if found else ""
        if len(found) > 1:
            raise Refused(
                f"A history shows one {noun}, but these rows are of {len(found)}: {some(found, 3)}. "
                f"Name the one to draw: kb.history({named}).",
                code=f"several_{argument}s",
            )


def _writes_by_time(history: pd.DataFrame, unit: Unit | None) -> pd.DataFrame:
    """The history by time, with `x` and each value in words; a withheld value is NaN from here on."""
    written = history[["snapshot_id", "year", "run_id", "reason"]].copy()
    written["when"] = pd.to_datetime(history["when"], utc=True).dt.tz_localize(None)
    written["x"] = date2num(written["when"])  # type: ignore[no-untyped-call]
    for name, basis in (("before", "basis_before"), ("value", "basis")):
        values = history[name].astype(float).replace([np.inf, -np.inf], np.nan)
        few = np.array([not pd.isna(rests) and too_few(unit, int(rests)) for rests in history[basis]], dtype=bool)
        few &= values.notna().to_numpy()
        words = [FEW if hidden else amount(value, unit) for hidden, value in zip(few, values, strict=True)]
        written[f"{name}_words"] = np.where(values.isna(), "deleted" if name == "value" else "no row", words)
        written[name] = values.mask(few)
    return written.sort_values(["when", "snapshot_id"], kind="stable", ignore_index=True)


def _in_order(written: pd.DataFrame) -> bool:
    """Whether two writes of a row would overlap on a time scale; a single moment has no such scale."""
    shortest, whole = written.groupby(["year", "snapshot_id"])["x"].diff().min(), np.ptp(written["x"])
    return bool(whole == 0 or shortest / whole * (style.WIDTH - NAMES - END) < APART)


def _line(axes: Axes, writes: pd.DataFrame, name: str, span: tuple[float, float]) -> None:
    """One row of the fact table: a ring is what a run found stored, a dot what it wrote."""
    values = writes[["before", "value"]].to_numpy().ravel()
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    reach = (high - low) or 1.0
    axes.set_xlim(*span)
    axes.set_ylim(low - 0.45 * reach, high + 0.9 * reach)
    before_x, before = span[0], float("nan")
    for number, row in enumerate(rows(writes)):
        start = before if number else row.before
        kept = start == row.before
        axes.plot(
            [before_x, row.x], [start, row.before], "--" if kept else ":", color=style.STORED if kept else style.MUTED,
            linewidth=1.0, zorder=2, label="kept" if kept else "changed in between",
        )  # fmt: skip
        axes.plot([row.x] * 2, [row.before, row.value], color=style.MUTED, linewidth=0.8, zorder=2, label="written")
        before_x, before = row.x, row.value
    axes.plot([before_x, span[1]], [before] * 2, "--", color=style.STORED, linewidth=1.0, zorder=2, label="kept")
    axes.plot(
        writes["x"], writes["before"], "o", color=style.STORED, markersize=5.5, markerfacecolor="white", zorder=3,
        markeredgewidth=1.2, label="before",
    )  # fmt: skip
    axes.plot(writes["x"], writes["value"], "o", color=style.COMPUTED, markersize=3.6, zorder=4, label="value")
    _words(axes, writes, span)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    look: dict[str, Any] = {"scale": style.WHOLE, "va": "center", "size": 8}
    write(axes, name, (0, 0.4), (-6, 0), ha="right", **look)
    write(axes, str(writes["value_words"].iloc[-1]), (1, 0.4), (4, 0), weight="bold", **look)
    axes.axhline(axes.get_ylim()[0], color=style.RULE, linewidth=0.6)


def _dates(axes: Axes, in_order: pd.DataFrame | None, *, last: bool) -> None:
    """The dates below the last row: a time scale, or each run's date if runs are shown in order."""
    axes.spines["bottom"].set_visible(last)
    axes.tick_params(axis="x", color=style.MUTED, length=4 if last else 0, labelbottom=last)
    if in_order is not None:
        moments = in_order.drop_duplicates("x")
        every = math.ceil(0.75 * len(moments) / (style.WIDTH - NAMES - END))  # inches per date
        axes.set_xticks(moments["x"][::every], _moments(moments["when"])[::every])
        return
    locator = AutoDateLocator(minticks=2, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.xaxis.get_offset_text().set(color=style.MUTED, size=7.5, visible=last)


def _moments(when: pd.Series) -> list[str]:
    """Dates, with as much of the time as is needed to distinguish them."""
    for form in ("%Y-%m-%d", "%Y-%m-%d\n%H:%M", "%Y-%m-%d\n%H:%M:%S"):
        words = [f"{moment:{form}}" for moment in when]
        if len(set(words)) == len(words):
            break
    return words


def _words(axes: Axes, writes: pd.DataFrame, span: tuple[float, float]) -> None:
    """``100 → 69`` above each write, as long as they don't overlap; the newest first."""
    inch = (span[1] - span[0]) / (style.WIDTH - NAMES - END)
    free = span[1] + END * inch
    for row in list(rows(writes))[::-1]:
        text = f"{row.before_words} → {row.value_words}"
        half = extent(text, 7.5) / 2 * inch
        centre = max(row.x, span[0] + half)
        if centre + half < free:
            look = {"ha": "center", "va": "top", "size": 7.5, "path_effects": style.HALO, "zorder": 5}
            write(axes, text, (centre, 1), (0, -2), scale=style.COLUMN, **look)
            free = centre - half - 0.05 * inch


def _title(written: pd.DataFrame, label: str) -> str:
    per_row = written.groupby(["year", "snapshot_id"]).size()
    year, snapshot_id = per_row.idxmax()
    writes = written[(written["year"] == year) & (written["snapshot_id"] == snapshot_id)]
    if len(writes) == 1:
        return f"{label}: {count(len(written), 'value')} written{', each once' * (len(written) > 1)}"
    path = [writes["before_words"].iloc[0], *writes["value_words"]]
    way = " → ".join(path if len(path) <= 6 else [path[0], "…", *path[-3:]])
    return f"{label} {year} was written {len(writes)} times: {way}"


def _counts(written: pd.DataFrame) -> str:
    words = f"{count(written['run_id'].nunique(), 'run')} · {count(written['snapshot_id'].nunique(), 'row')}"
    first, last = (f"{moment:%Y-%m-%d}" for moment in (written["when"].min(), written["when"].max()))
    return f"{words} · {first}{f' to {last}' if first != last else ''} UTC"


def _notes(written: pd.DataFrame, in_order: bool) -> list[str]:
    """How to read the marks, and each run's reason."""
    earlier = written.groupby(["year", "snapshot_id"])["value"].shift()
    marks = {
        "Ring: what the run found.": written["before"].notna().any(),
        "Dot: what it wrote.": written["value"].notna().any(),
        "Dashed: kept.": written[["before", "value"]].notna().any(axis=None),
        "Dotted: changed in between by something else.": (earlier - written["before"]).fillna(0).ne(0).any(),
        "Runs are in order, not on a time scale.": in_order and written["x"].nunique() > 1,
    }
    notes = [" ".join(text for text, drawn in marks.items() if drawn)]
    if FEW in {*written["before_words"], *written["value_words"]}:
        notes.append(f"{FEW}: {WITHHELD}.")
    runs = written.drop_duplicates("run_id").iloc[::-1]
    for run in rows(runs.head(LISTED)):
        reason = drawable(run.reason) if run.reason else "no reason given"
        notes.append(fit(f"{run.when:%Y-%m-%d} {drawable(run.run_id)}: {reason}", style.WIDTH - 2 * style.MARGIN, 7.5))
    if len(runs) > LISTED:
        notes.append(f"and {count(len(runs) - LISTED, 'earlier run')}")
    return notes
