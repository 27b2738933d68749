"""What the commands print of runs and the archive for people; whatever comes from the archive is shown on one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kpibackfill.archive.diff import RowDifference, RunDifference
from kpibackfill.archive.history import RecordedChange, origin_of, published_change
from kpibackfill.archive.models import Receipt
from kpibackfill.archive.runs import RunDetails, RunSummary
from kpibackfill.archive.verify import Verdict
from kpibackfill.numbers import Unit, published, too_few
from kpibackfill.reporting.run_summary import empty, findings, table
from kpibackfill.text import count, one_line


def state_words(state: str, settled: bool) -> str:
    return one_line(state).replace("_", " ") + (" (settled)" if settled else "")


def runs_text(runs: Sequence[RunSummary]) -> str:
    if not runs:
        return "No runs match."
    rows = [
        (
            run.run_id,
            state_words(run.state, run.settled),
            run.planned,
            run.written,
            run.operator,
            "; ".join(_remarks(run)),
        )
        for run in runs
    ]
    return "\n".join(table(["run", "state", "planned", "written", "operator", ""], rows, right=(2, 3)))


def _remarks(run: RunSummary) -> list[str]:
    found = [f"“{run.reason}”"] if run.reason else []
    if run.revert_of:
        found.append(f"reverts {run.revert_of}")
    found += [f"approved by {approval.by}" for approval in run.approvals]
    if run.notebook != "as shipped":
        found.append(f"notebook {run.notebook}")
    return found


def history_text(changes: Sequence[RecordedChange]) -> str:
    if not changes:
        return "No run has written such a row."
    rows = [
        (
            change.at[:16].replace("T", " "),
            change.year,
            change.snapshot_id,
            change.kpi_id,
            change.action,
            *published_change(change),
            change.run_id,
            change.operator,
            "; ".join(filter(None, [origin_of(change), change.reason])),
        )
        for change in changes
    ]
    heads = ["when (UTC)", "year", "snapshot", "KPI", "action", "from", "to", "run", "operator", "reason"]
    return "\n".join(table(heads, rows, right=(2, 5, 6)))


def show_text(run: RunDetails, changes: Sequence[RecordedChange]) -> str:
    """A run's findings first, then what it wrote, who and why, and how it was computed."""
    receipt = run.receipt
    lines = [f"{run.run_id}: {state_words(run.state, run.settled)}", *filter(None, [run.altered]), *_outcome(run)]
    if receipt.computed:
        lines += ["", *map(one_line, findings(receipt))]
    if changes:
        heads = ["year", "snapshot", "KPI", "action", "from", "to", ""]
        rows = [(c.year, c.snapshot_id, c.kpi_id, c.action, *published_change(c), origin_of(c)) for c in changes]
        lines += ["", "Written", *table(heads, rows, right=(1, 4, 5))]
    lines += ["", "Requested", *_pairs({name: value for name, value in receipt.parameters if value != ""})]
    lines += ["", "How", *_pairs(_provenance(run, receipt))]
    if receipt.kpis:
        heads = ["KPI", "queries", "groups", "seconds", "fingerprint of the groups"]
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
        lines.append(f"Nothing was written. {empty(receipt)}")
    if run.state == "dry_run":
        planned = f"The plan has {count(run.planned, 'row')}." if run.planned else empty(receipt)
        lines.append(f"Nothing was written. {planned}")
    lines += [
        f"Approved by {one_line(approval.by)} at {approval.at}: {one_line(approval.note)}" for approval in run.approvals
    ]
    vouched = receipt.approval
    if vouched is not None and vouched.by is not None:
        lines.append(f"Its plan was approved by {one_line(vouched.by)} at {vouched.at}, on {vouched.approved_run}.")
    elif vouched is not None:
        lines.append(
            f"Its plan was reviewed on {vouched.reviewed_run or 'no run on record here'}; no approval is on record."
        )
    if run.settlement:
        lines.append(f"Settled at {run.settlement.settled_at}: {state_words(run.state, run.settled)}.")
    return lines


def _provenance(run: RunDetails, receipt: Receipt) -> dict[str, object]:
    store = receipt.databases and receipt.databases.store
    code = receipt.code
    commit = code.git_commit or "no checkout"
    found: dict[str, object] = {
        "begun, ended": f"{receipt.started_at}, {receipt.ended_at or '–'}",
        "by": f"{receipt.operator} ({receipt.system_user} on {receipt.host}, {receipt.started_by})",
        "store": f"{receipt.target.store} {store.dialect} {store.server}" if store else receipt.target.store,
        "sources": receipt.target.sources,
        "code": commit + (f", {count(len(code.modified), 'file')} modified since" if code.modified else ""),
        "sources of the code": code.sources_sha256,
        "notebook": f"{run.notebook}{', its cells ' + run.cells if run.cells else ''}",
        "plan": run.fingerprint or "–",
        "packages": ", ".join(f"{name} {version}" for name, version in receipt.versions.items()),
    }
    if tags := receipt.cache_tags:
        found["cache tags"] = f"{tags.outcome}: {', '.join(tags.tags)}"
    if after := receipt.after_apply:
        found["after_apply"] = f"{after.command}: {after.outcome}, {after.seconds} s"
    return found


def _pairs(values: Mapping[str, object]) -> list[str]:
    width = max(map(len, values), default=0)
    return [f"  {name:{width}}  {one_line(value)}" for name, value in values.items()]


def diff_text(found: RunDifference) -> str:
    """What differs between two runs: rows and why first, then what was asked, code, SQL and packages."""
    one, other = found.runs
    lines = [
        f"one    {one_line(one)}",
        f"other  {one_line(other)}",
        "",
        f"Of {count(found.compared, 'row')} in both, {len(found.rows)} differ.",
    ]
    if found.rows:
        rows = [
            (
                row.year,
                row.snapshot_id,
                row.kpi_id,
                *_amounts(row, row.computed, found.units.get(row.kpi_id)),
                *_amounts(row, row.stored, found.units.get(row.kpi_id)),
                row.why,
            )
            for row in found.rows
        ]
        heads = ["year", "snapshot", "KPI", "computed: one", "other", "stored: one", "other", "why"]
        lines += table(heads, rows, right=(1, 3, 4, 5, 6))
    for only, name in zip(found.only, ("one", "other"), strict=True):
        if only:
            lines.append(f"{count(len(only), 'row')} only in {name}.")
    for title, pairs in (
        ("Parameters", found.parameters),
        ("Settings", found.settings),
        ("Databases", found.databases),
        ("Packages", found.packages),
    ):
        if pairs:
            rows_ = [(name, *("–" if value is None else value for value in pair)) for name, pair in pairs.items()]
            lines += ["", *table([title, "one", "other"], rows_)]
    code = found.code
    lines += ["", "The code is the same." if code.same else "The code is not the same:"]
    if not code.same:
        lines += _pairs(
            {
                name: f"{commit} ({count(len(files), 'file')} modified)"
                for name, commit, files in zip(("one", "other"), code.git_commit, code.modified, strict=True)
            }
        )
    heads = ["KPI", "definition", "SQL", "bound values", "groups returned"]
    rows_ = [(kpi_id, kpi.definition, kpi.sql, kpi.bound_values, kpi.result) for kpi_id, kpi in found.kpis.items()]
    return "\n".join([*lines, "", *table(heads, rows_)])


def _amounts(row: RowDifference, pair: tuple[float | None, float | None], unit: Unit | None) -> list[str]:
    """The two values as people read them; both are withheld where one rests on too few people."""
    basis = next((basis for basis in row.basis if too_few(unit, basis)), None)
    return [published(value, unit, basis) for value in pair]


def verify_text(verdict: Verdict) -> str:
    """Findings, notes, and the digest to note elsewhere."""
    lines = [*(f"FINDING  {one_line(finding)}" for finding in verdict.findings)]
    lines += [f"note     {one_line(note)}" for note in verdict.notes]
    found = count(len(verdict.findings), "finding") if verdict.findings else "each is as the ledger says"
    looked = f"{count(verdict.lines, 'line')}, {count(verdict.runs, 'run')}, {count(verdict.files, 'file')}"
    lines.append(f"Checked {looked}: {found}.")
    if verdict.target is not None and verdict.rows is not None and verdict.recorded is not None:
        recorded, rows = count(verdict.recorded, "row"), count(verdict.rows, "row")
        lines.insert(-1, f"Checked {verdict.target}: {recorded} on record compared with the {rows} of its table.")
    return "\n".join([*lines, f"Head: {verdict.head or 'none'}"])
