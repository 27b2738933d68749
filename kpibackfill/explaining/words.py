"""What people read of an explanation and of a detection: text for the terminal, HTML for the notebook."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from kpibackfill.explaining.parts import Explained
from kpibackfill.numbers import FEW, NOT_FOR_PUBLICATION, amount
from kpibackfill.printable import one_line

if TYPE_CHECKING:
    from kpibackfill.explaining.detection import Detection
    from kpibackfill.explaining.explanation import Explanation

NO_PARTS = "Its module gives no parts."
Table = tuple[str, list[tuple[str, str]]]


def explanation_text(explanation: Explanation) -> str:
    """The explanation for a terminal, with nothing in it that steers one."""
    lines = [headline(explanation), *stored_lines(explanation), *remarks(explanation)]
    tables = tables_of(explanation)
    width = max((len(label) for _, rows in tables for label, _ in rows), default=0)
    for title, rows in tables:
        lines += ["", title, *(f"  {label:{width}}  {number:>10}" for label, number in rows)]
    return "\n".join(one_line(line) for line in lines)


def explanation_html(explanation: Explanation) -> str:
    """The same as HTML, every text escaped."""
    first, *rest = [headline(explanation), *stored_lines(explanation)]
    said = "".join(f"<p>{escape(line)}</p>" for line in rest)
    said += "".join(f"<div class='kb-note'>{escape(line)}</div>" for line in remarks(explanation))
    tables = "".join(
        f"<table><thead><tr><th colspan='2'>{escape(title)}</th></tr></thead><tbody>"
        + "".join(f"<tr><td class='kb-l'>{escape(label)}</td><td>{number}</td></tr>" for label, number in rows)
        + "</tbody></table>"
        for title, rows in tables_of(explanation)
    )
    return f"{_style()}<div class='kb'><p><b>{escape(first)}</b></p>{said}{tables}</div>"


def headline(explanation: Explanation) -> str:
    """``Workshop attendees 2021: 693, resting on 693 of 1,295.``"""
    entry = explanation.kpi
    if explanation.withheld:
        return f"{entry.label} {explanation.year}: {FEW} people, {NOT_FOR_PUBLICATION}."
    rests = ""
    if explanation.basis is not None:
        of = "" if explanation.population is None else f" of {explanation.population:,}"
        rests = f", resting on {explanation.basis:,}{of}"
    value = "nothing to compute from" if explanation.computed is None else amount(explanation.computed, entry.unit)
    return f"{entry.label} {explanation.year}: {value}{rests}."


def stored_lines(explanation: Explanation) -> list[str]:
    """What each snapshot holds."""
    rows = [
        f"Stored: {FEW if explanation.withheld else amount(row.value, explanation.kpi.unit)} "
        f"(snapshot {row.snapshot_id}, {row.snapshot_date}, {row.source})."
        for row in explanation.stored.itertuples()
    ]
    return rows or ["Nothing is stored."]


def remarks(explanation: Explanation) -> list[str]:
    """Where it does not add up, first; then the KPI's own warnings, and the notes on the parts."""
    explained = explanation.explained
    parts = [NO_PARTS] if explained is None else list(explained.notes)
    return [*explanation.problems, *explanation.warnings, *parts]


def tables_of(explanation: Explanation) -> list[Table]:
    """What was considered, left out and added, and the parts; counts of a withheld rate are not told."""
    explained = explanation.explained or Explained()
    if explanation.withheld:
        return [(f"by {parts.by}", [(label, FEW) for label in parts.values]) for parts in explained.parts]
    tables: list[Table] = []
    if explained.considered is not None:
        rows = [(f"all {explained.what}", f"{explained.considered:,}")]
        rows += [(reason, f"−{count:,}") for reason, count in explained.left_out.items() if count]
        rows += [(reason, f"+{count:,}") for reason, count in explained.added.items() if count]
        remains = explained.considered - sum(explained.left_out.values()) + sum(explained.added.values())
        ends = {"value": explanation.kpi.label, "basis": "what the value rests on"}[explained.arrives_at]
        tables.append(("how it comes about", [*rows, (ends, f"{remains:,}")]))
    elif any(explained.left_out.values()):
        tables.append(("left out", [(reason, f"{count:,}") for reason, count in explained.left_out.items() if count]))
    for parts in explained.parts:
        title = f"by {parts.by}" + (", what the value rests on" if parts.of == "basis" else "")
        tables.append((title, [(label, f"{value:,.10g}") for label, value in parts.values.items()]))
    return tables


def detection_html(detection: Detection) -> str:
    """The sentence of each KPI, its definitions in italics."""
    labels = {entry.kpi_id: entry.label for entry in detection.kpis}
    said = "".join(
        f"<p><b>{escape(labels[kpi_id])}</b>: {_italic(escape(sentence))}</p>"
        for kpi_id, sentence in detection.sentences.items()
    )
    return f"{_style()}<div class='kb'>{said}</div>"


def _italic(sentence: str) -> str:
    return re.sub(r"\*([^*]+)\*", r"<i>\1</i>", sentence)


def _style() -> str:
    from kpibackfill.views import templates

    return str(templates().get_template("tables.html").module.style())  # type: ignore[attr-defined]
