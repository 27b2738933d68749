"""What a run says for people when it has ended: counts, what differs, warnings, decisions, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kpibackfill.archive.models import PlanDocument, Receipt, read
from kpibackfill.archive.run_record import PLAN
from kpibackfill.reporting.markup import DIFFERS, by_weight, decided_rows, drift_rows, planned_rows, remarks
from kpibackfill.reporting.next_steps import ways_to_apply
from kpibackfill.text import count, one_line


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> list[str]:
    """Lines of a table with columns as wide as what is in them."""
    cells = [list(heads), *([one_line(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    signs = [">" if at in set(right) else "<" for at in range(len(heads))]
    return [
        "  ".join(f"{text:{sign}{width}}" for text, sign, width in zip(line, signs, widths, strict=True)).rstrip()
        for line in cells
    ]


def run_summary(receipt: Receipt, folder: Path) -> str:
    """Counts by year, what differs, what was written, where the record is, and the next command."""
    lines = restored(receipt, folder) if receipt.parameters.revert_of else findings(receipt)
    return "\n".join([*lines, "", *_next(receipt, folder)]).lstrip("\n")


def findings(receipt: Receipt) -> list[str]:
    """Notes, counts by year, the rows that differ, warnings and decisions, as lines."""
    counts: list[tuple[object, ...]] = [(year, row.snapshots, row.kpi_rows) for year, row in receipt.years.items()]
    counts.append(("total", sum(row.snapshots for row in receipt.years.values()), receipt.total_kpi_rows))
    drift = drift_rows(receipt.rows, {entry.kpi_id: entry for entry in receipt.kpis})
    differing = [row for row in by_weight(drift) if row["status"] in DIFFERS]
    names = ("period", "snapshot_id", "kpi_id", "stored_text", "computed_text", "drift_text")
    rows = [[*(row[name] for name in names), row["status"].replace("_", " ")] for row in differing]
    heads = ["period", "snapshot", "KPI", "stored", "computed", "drift", "status"]
    return _parts(
        receipt.notes,
        table(["year", "snapshots", "KPI rows"], counts, right=(1, 2)),
        table(heads, rows, right=(1, 3, 4, 5)) if rows else [],
        _noticed(drift),
        _decided(receipt, drift),
    )


def restored(receipt: Receipt, folder: Path) -> list[str]:
    """Notes, the rows that a revert restores, and decisions, as lines, without the drift."""
    plan = read(PlanDocument, (folder / PLAN).read_bytes())
    kpis = {entry.kpi_id: entry for entry in receipt.kpis}
    drift = drift_rows(receipt.rows, kpis)
    rows = [
        (row["year"], row["snapshot_id"], row["kpi_id"], row["action"], row["from_text"], row["to_text"])
        for row in planned_rows(plan.rows, drift, kpis, receipt.site["kpi_id_prefix"])
    ]
    heads = ["year", "snapshot", "KPI", "action", "from", "back to"]
    planned = table(heads, rows, right=(1, 4, 5)) if rows else []
    return _parts(receipt.notes, planned, _decided(receipt, drift))


def _parts(*parts: Sequence[str]) -> list[str]:
    """Lines with an empty one between their parts."""
    return [line for part in parts if part for line in ("", *part)][1:]


def _noticed(drift: Sequence[Mapping[str, Any]]) -> list[str]:
    """The warnings: per KPI each sentence with its periods."""
    lines = []
    for label, sentences in remarks(drift):
        lines += [f"  {label}", *(f"    {periods}: {sentence}" for periods, sentence in sentences)]
    return ["Warnings", *lines] if lines else []


def _decided(receipt: Receipt, drift: Sequence[Mapping[str, Any]]) -> list[str]:
    kpis = {entry.kpi_id: entry for entry in receipt.kpis}
    names = ("year", "snapshot_id", "kpi_id", "decision", "value_text", "reviewer", "reason")
    rows = [[row[name] for name in names] for row in decided_rows(receipt.decisions, kpis, drift)]
    heads = ["year", "snapshot", "KPI", "decision", "value", "reviewer", "reason"]
    return ["Decisions", *table(heads, rows, right=(1, 4))] if rows else []


def _next(receipt: Receipt, folder: Path) -> list[str]:
    rows = receipt.plan.rows if receipt.plan else 0
    planned = count(rows, "row")
    dry = receipt.state == "dry_run"
    if dry and rows:
        lines = [f"Dry run: nothing was written. The plan has {planned}."]
    elif rows:
        lines = [f"Applied: {planned} written."]
    else:
        lines = [f"{'Dry run' if dry else 'Applied'}: nothing was written. {empty(receipt)}"]
    lines.append(f"Record: {folder}")
    if dry and rows:
        what, commands = ways_to_apply(receipt.parameters, receipt.target, receipt.run_id)
        lines.append(f"Next: look at {folder / 'report.html'}, then {what}:")
        lines += [f"  {command}" for command in commands]
    elif rows:
        lines.append(f"Next: {shlex.join(['kpibackfill', 'verify', '--target', receipt.target.name])}")
    return lines


def empty(receipt: Receipt) -> str:
    """That a plan is empty, and that this is as it should be where no row differs."""
    statuses = {row.status for row in receipt.rows}
    if "unchanged" in statuses and not statuses & {*DIFFERS} and not receipt.parameters.revert_of:
        return "The stored values equal the computed ones: there is nothing to do."
    return "The plan is empty."
