"""The explanation of one value as a waterfall: all that was considered, what was left out and why, and what remains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from kpibackfill.explaining.account import NO_PARTS, Account, Step
from kpibackfill.explaining.parts import Explained, Parts
from kpibackfill.numbers import FEW, NOT_FOR_PUBLICATION, amount
from kpibackfill.plots import style
from kpibackfill.plots.figures import Drawing, Figures
from kpibackfill.plots.style import Sheet, drawable, name_row, sheet, styled, write
from kpibackfill.text import count

NAMES, BAR, PANEL, MOST = 3.3, 0.26, 1.15, 14  # inches: reasons, a bar, a panel of parts; bars that a panel names
ACROSS, GAP_ABOVE = style.WIDTH - NAMES - style.MARGIN - 0.9, 0.42
TINT = "#d98a5c"  # of what is computed: a part of it
MONTHS = ("J", "F", "M", "A", "M", "J", "J", "A", "S", "O", "N", "D")


def plot_explanation(explanation: Account) -> Figures:
    """Draw how the value is computed, with its parts below.

    Parameters
    ----------
    explanation : what ``explain`` returned.

    Returns
    -------
    Figures with one drawing, ``waterfall``. A rate based on fewer than five people has no bars or numbers.
    """
    explained = explanation.explained or Explained()
    steps = [] if explanation.withheld else explanation.steps
    panels = [] if explanation.withheld else _panels(explained)
    height = BAR * len(steps) + sum(GAP_ABOVE + _panel_height(parts) for parts in panels) + 0.1
    with styled():
        page = sheet(_title(explanation), _subtitle(explanation), _notes(explanation, steps), body=height)
        if steps:
            axes = page.axes(NAMES, 0, ACROSS, BAR * len(steps))
            _draw_steps(axes, steps, explanation.stored["value"].tolist() if explained.arrives_at == "value" else [])
        top = BAR * len(steps) - (0 if steps else 0.15)
        left = NAMES if steps or not all(map(_is_months, panels)) else style.MARGIN
        for parts in panels:
            _draw_panel(page, parts, top + GAP_ABOVE, left)
            top += GAP_ABOVE + _panel_height(parts)
    return Figures((Drawing("waterfall", page.figure, _alternative(explanation)),))


def _panels(explained: Explained) -> list[Parts]:
    """What breaks the value down; a single part says nothing next to others."""
    found = explained.nonzero
    return [parts for parts in found if len(parts.values) > 1] or found[:1]


LOOKS: Mapping[str, dict[str, Any]] = {
    "considered": {"facecolor": "#8b939b", "edgecolor": "#8b939b"},
    "out": {"facecolor": style.PAPER, "edgecolor": "#8b939b", "hatch": "////"},
    "in": {"facecolor": style.PAPER, "edgecolor": style.COMPUTED},
    "remains": {"facecolor": style.COMPUTED, "edgecolor": style.COMPUTED},
}


def _draw_steps(axes: Axes, steps: list[Step], stored: list[float]) -> None:
    largest = max(*(max(step.start, step.end) for step in steps), *stored) or 1
    for line, step in enumerate(steps):
        low, high = sorted((step.start, step.end))
        axes.barh(line, high - low, left=low, height=0.68, linewidth=0.8, **LOOKS[step.kind])
        if line + 1 < len(steps):
            axes.plot([step.end, step.end], [line + 0.34, line + 0.66], color=style.MUTED, linewidth=0.8)
        bold = step.kind in ("considered", "remains")
        x, right = (max(high, *stored), 12) if step.kind == "remains" and stored else (high, 5)
        color = style.COMPUTED if step.kind == "remains" else style.INK
        look = {"color": color, "weight": "bold" if bold else "normal", "va": "center_baseline", "size": 8.5}
        write(axes, step.text, (x, line), (right, 0), **look)
        name_row(axes, drawable(step.label), line, NAMES - style.MARGIN - 0.15, bold=bold, color=color)
    axes.scatter(
        stored, [len(steps) - 1] * len(stored), s=70, facecolor="none", edgecolor=style.STORED, linewidth=1.6, zorder=4,
        clip_on=False,
    )  # fmt: skip
    axes.set_xlim(0, largest)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set_axis_off()


def _is_months(parts: Parts) -> bool:
    return parts.by == "month" and len(parts.values) <= 12


def _panel_height(parts: Parts) -> float:
    return PANEL + 0.2 if _is_months(parts) else 0.24 * min(len(parts.values), MOST)


def _draw_panel(page: Sheet, parts: Parts, top: float, left: float) -> None:
    if _is_months(parts):
        axes = page.axes(left, top, NAMES + ACROSS - left, PANEL)  # months have no names on the left
        _columns(axes, parts)
    else:
        axes = page.axes(left, top, ACROSS, _panel_height(parts))
        _bars(axes, parts)
    write(axes, parts.title, (0, 1), (0, 6), scale=style.WHOLE, size=8.5, color=style.MUTED, va="bottom")


def _columns(axes: Axes, parts: Parts) -> None:
    """Twelve months, some of which may be missing."""
    numbers = {int(label[5:7]): value for label, value in parts.values.items()}
    largest = max(numbers.values(), default=0) or 1
    bars = axes.bar(list(numbers), list(numbers.values()), width=0.72, color=TINT)
    axes.bar_label(bars, fmt="{:,.0f}", padding=2, size=7.5)
    for month in set(range(1, 13)) - set(numbers):
        axes.bar(month, largest * 1.02, width=0.86, color=style.GAP)
        axes.text(month, largest * 0.5, "none", rotation=90, ha="center", va="center", size=7.5, color=style.MUTED)
    axes.set_xticks(range(1, 13), MONTHS)
    axes.set_yticks([])
    axes.set_xlim(0.4, 12.6)
    axes.set_ylim(0, largest * 1.15)
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)


def _bars(axes: Axes, parts: Parts) -> None:
    items = list(parts.values.items())
    rest = items[MOST - 1 :] if len(items) > MOST else []
    if rest:
        items = [*items[: MOST - 1], (count(len(rest), "other"), sum(value for _, value in rest))]
    largest = max((value for _, value in items), default=0) or 1
    whole = sum(value for _, value in items)
    for line, (label, value) in enumerate(items):
        axes.barh(line, value, height=0.66, color=TINT)
        share = f"  ({value / whole * 100:.0f} %)" if whole and len(items) > 1 else ""
        write(axes, f"{value:,.0f}{share}", (value, line), (5, 0), va="center_baseline", size=8)
        name_row(axes, drawable(label), line, NAMES - style.MARGIN - 0.12, 8)
    axes.set_xlim(0, largest)
    axes.set_ylim(len(items) - 0.5, -0.5)
    axes.set_axis_off()


def _title(explanation: Account) -> str:
    label = drawable(explanation.kpi.label, instead=explanation.kpi.kpi_id)
    if explanation.withheld:
        return f"{label} {explanation.year}: {FEW} people reported, {NOT_FOR_PUBLICATION}"
    if explanation.computed is None:
        return f"{label} {explanation.year}: nothing to compute from"
    value = amount(explanation.computed, explanation.kpi.unit)
    return f"{label} {explanation.year}: {value}{_rule(explanation)}"


def _rule(explanation: Account) -> str:
    """How the value follows from its parts, in a few words."""
    explained = explanation.explained or Explained()
    kinds = {parts.by: parts.values for parts in explained.parts}
    if "kind of score" in kinds:
        scores = kinds["kind of score"]
        promoters, detractors = (count(int(scores[f"{kind}s"]), kind) for kind in ("promoter", "detractor"))
        return f", from {promoters} minus {detractors} in {count(explanation.basis or 0, 'score')}"
    if "ethnicity" in kinds:
        reported = count(explanation.basis or 0, "person", "people")
        return f", {kinds['ethnicity']['BIPOC']:,.0f} of {reported} who reported"
    if explained.considered:
        return f" of {explained.considered:,} {explained.what}"
    if "month" in kinds:
        return f", from {count(len(kinds['month']), 'month')}"
    return ""


def _subtitle(explanation: Account) -> str:
    if explanation.withheld:
        return ""
    stored = [
        f"{amount(row.value, explanation.kpi.unit)} ({drawable(row.source or row.snapshot_date)})"
        for row in explanation.stored.itertuples()
    ]
    return f"Stored: {', '.join(stored)}." if stored else "Nothing is stored."


def _notes(explanation: Account, steps: list[Step]) -> list[str]:
    explained = explanation.explained or Explained()
    marks = {
        "Hatched: left out, for the first reason that applies.": any(step.kind == "out" for step in steps),
        "Ring: stored.": steps and not explanation.stored.empty and steps[-1].label == explanation.kpi.label,
        NO_PARTS: explanation.explained is None,
    }
    said = " ".join(text for text, applies in marks.items() if applies)
    return [said, *explanation.problems, *map(drawable, (*explanation.warnings, *explained.notes))]


def _alternative(explanation: Account) -> str:
    said = [f"Waterfall. {_title(explanation)}. {_subtitle(explanation)}"]
    explained = explanation.explained or Explained()
    if not explanation.withheld:
        left = [f"{reason}: {number:,}" for reason, number in explained.left_out.items() if number]
        said += [f"Left out: {'; '.join(left)}."] if left else []
        for parts in explained.nonzero:
            listed = ", ".join(f"{name} {value:,.0f}" for name, value in list(parts.values.items())[:MOST])
            said.append(f"By {parts.by}: {listed}.")
    return " ".join([*said, *explanation.problems])
