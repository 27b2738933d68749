"""The report of a run for people without Jupyter: one self-contained page, rendered from its records alone.

The page opens without a network, and its policy forbids it one. Figures are images of their own in it, so that
nothing but text of ours and escaped values is markup. Where a rate rests on fewer than five people neither the page
nor its figures hold a number of it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpibackfill.archive.models import Document, PlanDocument, Receipt, Settlement, read
from kpibackfill.archive.run_record import PLAN, SETTLEMENT
from kpibackfill.config import web_address
from kpibackfill.reporting import markup
from kpibackfill.reporting.next_steps import ways_to_apply

if TYPE_CHECKING:
    import pandas as pd

DASHBOARDS = ("overview", "outreach", "education")
_ENDS = {
    "dry_run": "Dry run: nothing was written.",
    "applied": "Applied.",
    "refused": "Refused: a check said no, and nothing was written.",
    "failed": "Failed: nothing was written.",
    "planned": "This run has not ended; nothing is written yet.",
    "applying": "Unsettled: the run was writing, and its end is not on record.",
}
_MEANINGS = {
    "unsupported": "a value is stored, with nothing to compute it from",
    "changed": "the computed value or the period differs",
    "new": "computed, and not stored yet",
    "unchanged": "stored as computed",
    "no_data": "neither stored nor computed",
}


def closing_page(receipt: Receipt, folder: Path, settlement: Settlement | None = None) -> tuple[str, str | None]:
    """The page for a receipt, and a settlement that is not written yet, and what could not be shown in it.

    It never raises.

    A run's end is what its receipt says: a bug in a figure, or in the page, must change nothing about it. So a page
    without figures, or a bare one, takes the place of one that can't be made, and says so.
    """
    try:
        figures, missing = drawn(receipt), None
    except Exception as error:  # noqa: BLE001 - see above
        figures, missing = [], f"The figures could not be drawn ({type(error).__name__})."
    try:
        plan = _document(PlanDocument, folder / PLAN)
        settled = settlement or _document(Settlement, folder / SETTLEMENT)
        return full_page(receipt, plan, figures, missing, settled), missing
    except Exception as error:  # noqa: BLE001 - see above
        missing = f"The report could not be made ({type(error).__name__})."
        return _bare_page(receipt, missing), missing


def full_page(
    receipt: Receipt,
    plan: PlanDocument | None,
    figures: Sequence[tuple[str, str]],
    missing: str | None = None,
    settlement: Settlement | None = None,
) -> str:
    """The page of a receipt, the plan and the settlement of that run, and its figures: image address, alternative."""
    kpis = {entry.kpi_id: entry for entry in receipt.kpis}
    rows = markup.by_weight(markup.drift_rows(receipt.rows, kpis))
    planned = markup.planned_rows(plan.rows if plan else (), rows, kpis, receipt.site["kpi_id_prefix"])
    script = markup.templates().get_template("report.js").render()
    return (
        markup.templates()
        .get_template("report.html")
        .render(
            r=receipt,
            kpis=receipt.kpis,
            sources={entry.source_sha256: entry.source_text for entry in receipt.kpis},
            title=_title(receipt),
            end=_end(receipt, len(planned), settlement),
            differing=[row for row in rows if row["status"] not in ("unchanged", "no_data")],
            same=[row for row in rows if row["status"] in ("unchanged", "no_data")],
            counts=_counts(rows),
            drift_sentence=markup.drift_sentence(rows) if receipt.computed else "",
            largest=_largest(rows),
            planned=planned,
            decided=markup.decided_rows(receipt.decisions, kpis, rows),
            plan_sentence=markup.actions_sentence([row["action"] for row in planned]),
            remarks=markup.remarks(rows),
            figures=figures,
            missing=missing,
            dashboards=_dashboards(receipt.target.dashboards),
            next=ways_to_apply(receipt.parameters, receipt.target, receipt.run_id)
            if receipt.state == "dry_run" and planned
            else None,
            duration=_duration(receipt),
            meanings=_MEANINGS,
            bound=_bound,
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def drawn(receipt: Receipt) -> list[tuple[str, str]]:
    """The figures of the drift that the receipt tells: the address of an SVG image, and its alternative text."""
    if not receipt.rows:
        return []
    from kpibackfill.plots import plot_drift

    return [
        ("data:image/svg+xml;base64," + base64.b64encode(drawing.svg().encode()).decode(), drawing.alt)
        for drawing in plot_drift(drift_frame(receipt))
    ]


def drift_frame(receipt: Receipt) -> pd.DataFrame:
    """The drift again, as far as figures and tables need it, from a receipt's rows."""
    import pandas as pd

    frame = pd.DataFrame([dict(row) for row in receipt.rows])
    frame = frame.astype(dict.fromkeys(("computed", "stored", "delta", "change"), "float64"))
    # No more than that, since pandas copies it with every view of the frame.
    frame.attrs["kpis"] = {entry.kpi_id: {"label": entry.label, "unit": entry.unit} for entry in receipt.kpis}
    return frame


def _document(model: type[Document], path: Path) -> Document | None:
    return read(model, path.read_bytes()) if path.is_file() else None


def _title(receipt: Receipt) -> str:
    asked = receipt.parameters
    years = "–".join(dict.fromkeys([str(asked.from_year), str(asked.to_year)]))
    return f"KPI backfill of {receipt.target.name}, {years}"


def _end(receipt: Receipt, planned: int, settlement: Settlement | None) -> dict[str, str]:
    """How the run ended: a word for its style, a heading, and what that means for the database."""
    state: str = receipt.state
    means = ""
    if settlement:
        heading = f"Cut off while it was writing, and settled on {settlement.settled_at[:10]}."
        means = markup.settlement_sentence(receipt.run_id, settlement)
        return {"state": settlement.outcome, "heading": heading, "means": means}
    if state == "dry_run":
        rows = f"{planned} row{'s' * (planned != 1)}"
        means = f"An apply of this plan would write {rows}." if planned else "An apply would write nothing."
    elif state == "applied":
        means = markup.written_sentence(receipt.written)
    elif state == "applying":
        means = f"kpibackfill settle {receipt.run_id} finds out whether it wrote."
    elif receipt.error:
        means = receipt.error.message
    return {"state": state, "heading": _ENDS.get(state, state), "means": means}


def _counts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    found = [row["status"] for row in rows]
    return [(status, found.count(status)) for status in ("unsupported", "changed", "new", "unchanged", "no_data")]


def _largest(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((row for row in rows if row["status"] == "changed" and row["drift_text"][:1] in "+−"), None)


def _bound(parameters: Any) -> str:
    """A statement's bound values, as many in a line as fit."""
    return textwrap.fill(json.dumps(parameters, ensure_ascii=False), 110, break_long_words=False)


def _dashboards(base: str | None) -> list[tuple[str, str]]:
    """Names and addresses of the pages to look at."""
    base = web_address(base)
    return [(name, f"{base}/{name}") for name in DASHBOARDS] if base else []


def _duration(receipt: Receipt) -> str:
    if not receipt.ended_at:
        return ""
    taken = datetime.fromisoformat(receipt.ended_at) - datetime.fromisoformat(receipt.started_at)
    return f"{taken.total_seconds():,.0f} s"


def _bare_page(receipt: Receipt, missing: str) -> str:
    lines = [_ENDS[receipt.state], receipt.error.message if receipt.error else "", missing]
    lines.append("receipt.json and plan.json next to this file hold everything.")
    text = "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
    title = html.escape(receipt.run_id)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
        f"<title>{title}</title><h1>{title}</h1>{text}</html>\n"
    )
