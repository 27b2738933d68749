"""The report of a run for people without Jupyter: one self-contained page, rendered from its record alone.

The page opens without a network, and its policy forbids it one. Figures are embedded images, so that only the
templates are markup. Where a rate rests on fewer than five people, neither page nor figures hold a number of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import textwrap
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kpibackfill.archive.models import Document, PlanDocument, Receipt, Settlement, read
from kpibackfill.archive.run_record import PLAN, SETTLEMENT
from kpibackfill.config import web_address
from kpibackfill.reporting import markup
from kpibackfill.reporting.page_table import page_after_sentence, page_table, warm_commands
from kpibackfill.reporting.rows import decision_rows, drift_rows, plan_rows, warnings_by_kpi
from kpibackfill.reporting.sentences import (
    actions_sentence,
    drift_sentence,
    settlement_sentence,
    ways_to_apply,
    written_sentence,
)
from kpibackfill.text import count

_ENDS = {
    "dry_run": "Dry run: nothing was written.",
    "applied": "Applied.",
    "refused": "Refused: a check failed, and nothing was written.",
    "failed": "Failed: nothing was written.",
    "planned": "This run has not ended; nothing has been written yet.",
    "applying": "Unsettled: the run was writing, and its outcome is not on record.",
}


def closing_page(receipt: Receipt, folder: Path, settlement: Settlement | None = None) -> tuple[str, str | None]:
    """The page for a receipt, and for a settlement that is not written yet; and what it could not show.

    It never raises: how a run ended is what its receipt says, and a bug in a figure or in the page must not change
    that. Where the figures or the page can't be made, a page without figures or a bare one says so.
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
        lines = [_ENDS[receipt.state], receipt.error.message if receipt.error else "", missing]
        return markup.page("bare.html", title=receipt.run_id, lines=lines), missing


def full_page(
    receipt: Receipt,
    plan: PlanDocument | None,
    figures: Sequence[tuple[str, str]],
    missing: str | None = None,
    settlement: Settlement | None = None,
) -> str:
    """The page of a run: its receipt, plan and settlement, and its figures (image address and alternative text)."""
    kpis = {entry.kpi_id: entry for entry in receipt.kpis}
    rows = drift_rows(receipt.rows, kpis)
    shown = {row.key: row.shown for row in receipt.review} | {row.key: row.shown for row in receipt.rows}
    planned = plan_rows(plan.rows if plan else (), kpis, receipt.prefix, rows, shown)
    ended = datetime.fromisoformat(receipt.ended_at or receipt.started_at)
    return markup.page(
        "report.html",
        r=receipt,
        kpis=receipt.kpis,
        sources={entry.source_sha256: entry.source_text for entry in receipt.kpis},
        end=_end(receipt, len(planned), settlement),
        rows=rows,
        drift_sentence=drift_sentence(rows) if receipt.computed else "",
        largest=next((row for row in rows if row.status == "changed" and row.drift_text[:1] in "+−"), None),
        planned=planned,
        decided=decision_rows(receipt.decisions, kpis, {row.key for row in rows if row.withheld}),
        plan_sentence=actions_sentence([row.action for row in planned]),
        warnings=warnings_by_kpi(rows),
        page=page_table(receipt.page, kpis, applied=receipt.state == "applied") if receipt.page else None,
        page_after=page_after_sentence(receipt.page_after, ended),
        warm=warm_commands(receipt.page_after),
        figures=figures,
        missing=missing,
        dashboards=web_address(receipt.target.dashboards),
        next=ways_to_apply(receipt.parameters, receipt.target, receipt.run_id)
        if receipt.state == "dry_run" and planned
        else None,
        duration=_duration(receipt),
        bound=_bound,
        script_digest=base64.b64encode(hashlib.sha256(markup.page("report.js").encode()).digest()).decode(),
    )


def drawn(receipt: Receipt) -> list[tuple[str, str]]:
    """The figures of the receipt's drift: the address of an SVG image, and its alternative text."""
    if not receipt.rows:
        return []
    import pandas as pd

    from kpibackfill.plots import plot_drift

    frame = pd.DataFrame([dict(row) for row in receipt.rows])
    frame = frame.astype(dict.fromkeys(("computed", "stored", "delta", "change"), "float64"))
    # No more than these, since pandas copies them with every view of the frame.
    frame.attrs["kpis"] = {entry.kpi_id: {"label": entry.label, "unit": entry.unit} for entry in receipt.kpis}
    return [
        ("data:image/svg+xml;base64," + base64.b64encode(drawing.svg().encode()).decode(), drawing.alt)
        for drawing in plot_drift(frame)
    ]


def _document(model: type[Document], path: Path) -> Document | None:
    return read(model, path.read_bytes()) if path.is_file() else None


def _end(receipt: Receipt, planned: int, settlement: Settlement | None) -> dict[str, str]:
    """How the run ended: a word for its style, a heading, and what it means for the database."""
    state, heading, means = receipt.state, _ENDS[receipt.state], ""
    if settlement:
        heading = f"Cut off while it was writing, and settled on {settlement.settled_at[:10]}."
        means = settlement_sentence(receipt.run_id, settlement)
        return {"state": settlement.outcome, "heading": heading, "means": means}
    if state == "dry_run":
        means = f"An apply of this plan would write {count(planned, 'row') if planned else 'nothing'}."
    elif state == "applied":
        means = written_sentence(receipt.written)
        means = means[:1].upper() + means[1:]
    elif state == "applying":
        means = f"kpibackfill settle {receipt.run_id} finds out whether it wrote."
    elif receipt.error:
        means = receipt.error.message
    return {"state": state, "heading": heading, "means": means}


def _bound(parameters: Any) -> str:
    """A statement's bound values, as many on a line as fit."""
    return textwrap.fill(json.dumps(parameters, ensure_ascii=False), 110, break_long_words=False)


def _duration(receipt: Receipt) -> str:
    if not receipt.ended_at:
        return ""
    taken = datetime.fromisoformat(receipt.ended_at) - datetime.fromisoformat(receipt.started_at)
    return f"{taken.total_seconds():,.0f} s"
