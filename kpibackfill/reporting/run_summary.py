"""What ``run`` and ``show`` print about a run: its results, warnings and decisions, and what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from kpibackfill.archive.history import RecordedChange, origin_of, published_change
from kpibackfill.archive.models import PlanDocument, Receipt, read
from kpibackfill.archive.run_record import PLAN
from kpibackfill.archive.runs import RunDetails
from kpibackfill.reporting.page_table import page_after_sentence, page_table, warm_commands
from kpibackfill.reporting.rows import ReadableDrift, decision_rows, drift_rows, plan_rows, warnings_by_kpi
from kpibackfill.reporting.sentences import empty_sentence, state_words, ways_to_apply
from kpibackfill.reporting.terminal import pairs, table
from kpibackfill.text import count, one_line


def run_summary(receipt: Receipt, folder: Path) -> str:
    """Counts by year, what differs, what was written, where the record is, and the next command."""
    lines = restored(receipt, folder) if receipt.parameters.revert_of else findings(receipt)
    page = page_lines(receipt, _ended(receipt))
    return "\n".join([*lines, "", *([*page, ""] if page else []), *_next(receipt, folder)]).lstrip("\n")


def page_lines(receipt: Receipt, at: datetime | None = None) -> list[str]:
    """The dashboard's annual tables, before and after the plan, as lines."""
    if receipt.page is None:
        return []
    kpis = {entry.kpi_id: entry for entry in receipt.kpis}
    return page_table(receipt.page, kpis, at, applied=receipt.state == "applied").lines()


def show_text(run: RunDetails, changes: Sequence[RecordedChange]) -> str:
    """A run's findings first, then what it wrote, who and why, and how it was computed."""
    receipt = run.receipt
    lines = [f"{run.run_id}: {state_words(run.state, run.settled)}", *filter(None, [run.altered]), *_outcome(run)]
    if receipt.computed:
        lines += ["", *map(one_line, findings(receipt))]
    if page := page_lines(receipt):
        lines += ["", *map(one_line, page)]
    if receipt.page_after:
        sentence = one_line(page_after_sentence(receipt.page_after, _ended(receipt)))
        lines.append(f"Right after the apply: {sentence[:1].lower()}{sentence[1:]}")
    if changes:
        heads = ["year", "snapshot", "KPI", "action", "from", "to", ""]
        rows = [(c.year, c.snapshot_id, c.kpi_id, c.action, *published_change(c), origin_of(c)) for c in changes]
        lines += ["", "Written", *table(heads, rows, right=(1, 4, 5))]
    lines += ["", "Requested", *pairs({name: value for name, value in receipt.parameters if value != ""})]
    lines += ["", "How", *pairs(_provenance(run, receipt))]
    if receipt.kpis:
        heads = ["KPI", "queries", "groups", "seconds", "fingerprint"]
        rows_ = [
            (
                entry.kpi_id,
                len(entry.queries),
                sum(query.rows for query in entry.queries),
                f"{sum(query.seconds for query in entry.queries):.3f}",
                " ".join(query.fingerprint[:16] for query in entry.queries),
            )
            for entry in receipt.kpis
        ]
        lines += ["", "Computed", *table(heads, rows_, right=(1, 2, 3))]
    lines += ["", f"Files in {one_line(run.folder)}"]
    lines += [f"  {digest}  {one_line(name)}" for name, digest in run.files.items()]
    return "\n".join(lines)


def _outcome(run: RunDetails) -> list[str]:
    lines, receipt = [], run.receipt
    if receipt.error:
        lines.append(one_line(receipt.error.message))
    if run.state == "unsettled":
        lines.append(f"It was cut off while it was writing: `kpibackfill settle {run.run_id}` finds out what happened.")
    if run.state == "applied" and not run.written:
        lines.append(f"Nothing was written. {empty_sentence(receipt)}")
    if run.state == "dry_run":
        planned = f"The plan has {count(run.planned, 'row')}." if run.planned else empty_sentence(receipt)
        lines.append(f"Nothing was written. {planned}")
    lines += [
        f"Approved by {one_line(approval.by)} at {approval.at}: {one_line(approval.note)}" for approval in run.approvals
    ]
    vouched = receipt.approval
    if vouched is not None and vouched.by is not None:
        lines.append(f"Its plan was approved by {one_line(vouched.by)} at {vouched.at}, in {vouched.approved_run}.")
    elif vouched is not None:
        reviewed = f"in {vouched.reviewed_run}" if vouched.reviewed_run else "in a run that is not on record here"
        lines.append(f"Its plan was reviewed {reviewed}; no approval is on record.")
    if run.settlement:
        lines.append(f"Settled at {run.settlement.settled_at}: {state_words(run.state, run.settled)}.")
    return lines


def _provenance(run: RunDetails, receipt: Receipt) -> dict[str, object]:
    store = receipt.databases and receipt.databases.store
    code = receipt.code
    commit = code.git_commit or "no checkout"
    found: dict[str, object] = {
        "started, ended": f"{receipt.started_at}, {receipt.ended_at or '–'}",
        "by": f"{receipt.operator} ({receipt.system_user} on {receipt.host}, {receipt.started_by})",
        "store": f"{receipt.target.store} {store.dialect} {store.server}" if store else receipt.target.store,
        "sources": receipt.target.sources,
        "code": commit + (f", {count(len(code.modified), 'file')} modified since" if code.modified else ""),
        "code digest": code.sources_sha256,
        "notebook": f"{run.notebook}{', cells ' + run.cells if run.cells else ''}",
        "plan": run.fingerprint or "–",
        "packages": ", ".join(f"{name} {version}" for name, version in receipt.versions.items()),
    }
    if tags := receipt.cache_tags:
        found["cache tags"] = f"{tags.outcome}: {', '.join(tags.tags)}"
    if ran := receipt.afterwards:
        found["after_apply"] = "; ".join(f"{after.command}: {after.outcome}, {after.seconds} s" for after in ran)
    return found


def findings(receipt: Receipt) -> list[str]:
    """Notes, counts by year, the rows that differ, warnings and decisions, as lines."""
    counts: list[tuple[object, ...]] = [(year, row.snapshots, row.kpi_rows) for year, row in receipt.years.items()]
    counts.append(("total", sum(row.snapshots for row in receipt.years.values()), receipt.total_kpi_rows))
    drift = drift_rows(receipt.rows, {entry.kpi_id: entry for entry in receipt.kpis})
    rows = [
        (
            row.period,
            row.snapshot_id,
            row.kpi_id,
            row.stored_text,
            row.computed_text,
            row.drift_text,
            row.status,
            row.shown_text,
        )
        for row in drift
        if row.differs
    ]
    heads = ["period", "snapshot", "KPI", "stored", "computed", "drift", "status", "on the page"]
    return _parts(
        receipt.notes,
        table(["year", "snapshots", "KPI rows"], counts, right=(1, 2)),
        table(heads, rows, right=(1, 3, 4, 5)) if rows else [],
        _warnings(drift),
        _decisions(receipt, drift),
    )


def restored(receipt: Receipt, folder: Path) -> list[str]:
    """Notes, the rows that a revert restores, and decisions, as lines, without the drift."""
    plan = read(PlanDocument, (folder / PLAN).read_bytes())
    kpis = {entry.kpi_id: entry for entry in receipt.kpis}
    drift = drift_rows(receipt.rows, kpis)
    rows = [
        (row.period, row.snapshot_id, row.kpi_id, row.action, row.from_text, row.to_text)
        for row in plan_rows(plan.rows, kpis, receipt.prefix, drift)
    ]
    heads = ["period", "snapshot", "KPI", "action", "from", "back to"]
    planned = table(heads, rows, right=(1, 4, 5)) if rows else []
    return _parts(receipt.notes, planned, _decisions(receipt, drift))


def _parts(*parts: Sequence[str]) -> list[str]:
    """Lines with an empty one between their parts."""
    return [line for part in parts if part for line in ("", *part)][1:]


def _warnings(drift: Sequence[ReadableDrift]) -> list[str]:
    lines = []
    for label, warnings in warnings_by_kpi(drift):
        lines += [f"  {label}", *(f"    {periods}: {warning}" for periods, warning in warnings)]
    return ["Warnings", *lines] if lines else []


def _decisions(receipt: Receipt, drift: Sequence[ReadableDrift]) -> list[str]:
    decided = decision_rows(
        receipt.decisions, {entry.kpi_id: entry for entry in receipt.kpis}, {row.key for row in drift if row.withheld}
    )
    rows = [
        (row.year, row.snapshot_id, row.kpi_id, row.decision, row.value_text, row.reviewer, row.reason)
        for row in decided
    ]
    heads = ["year", "snapshot", "KPI", "decision", "value", "reviewer", "reason"]
    return ["Decisions", *table(heads, rows, right=(1, 4))] if rows else []


def _ended(receipt: Receipt) -> datetime:
    return datetime.fromisoformat(receipt.ended_at or receipt.started_at)


def _next(receipt: Receipt, folder: Path) -> list[str]:
    rows = receipt.plan.rows if receipt.plan else 0
    planned = count(rows, "row")
    dry = receipt.state == "dry_run"
    if dry and rows:
        lines = [f"Dry run: nothing was written. The plan has {planned}."]
    elif rows:
        lines = [f"Applied: {planned} written."]
    else:
        lines = [f"{'Dry run' if dry else 'Applied'}: nothing was written. {empty_sentence(receipt)}"]
    failed = [ran for ran in receipt.afterwards if ran.outcome != "exit status 0"]
    lines += [f"after_apply, {one_line(ran.command)}: {one_line(ran.outcome)}." for ran in failed]
    lines += filter(None, [page_after_sentence(receipt.page_after, _ended(receipt))])
    lines.append(f"Record: {folder}")
    on_target = ["--target", receipt.target.name]
    if dry and rows:
        what, ways = ways_to_apply(receipt.parameters, receipt.target, receipt.run_id)
        lines.append(f"Next: look at {folder / 'report.html'}, then {what}:")
        lines += [f"  {command}" for command in ways]
    elif rows:
        commands = warm_commands(receipt.page_after)
        if commands:
            lines += ["Next, where the site is, and then look at the page:", *(f"  {command}" for command in commands)]
        lines.append(f"{'Then' if commands else 'Next'}: {shlex.join(['kpibackfill', 'verify', *on_target])}")
    elif receipt.page and any(cell.changes for cell in receipt.page.cells):
        lines.append(f"Next, since the page is behind: {shlex.join(['kpibackfill', 'dashboard', *on_target])}")
    return lines
