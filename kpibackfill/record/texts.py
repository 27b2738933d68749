"""What the commands print of runs and the archive for people; whatever comes from the archive is shown on one line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kpibackfill.next_steps import ways_to_apply
from kpibackfill.numbers import published, too_few
from kpibackfill.printable import one_line
from kpibackfill.record import history
from kpibackfill.record.receipt import PLAN, RunRecord
from kpibackfill.record.verdict import Verdict
from kpibackfill.views import DIFFERS, by_weight, decided_rows, drift_rows, planned_rows, remarks


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> list[str]:
    """Lines of a table with columns as wide as what is in them."""
    cells = [list(heads), *([one_line(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    signs = [">" if at in set(right) else "<" for at in range(len(heads))]
    return [
        "  ".join(f"{text:{sign}{width}}" for text, sign, width in zip(line, signs, widths, strict=True)).rstrip()
        for line in cells
    ]


def state_words(run: Mapping[str, Any]) -> str:
    return one_line(run["state"]).replace("_", " ") + (" (settled)" if run["settled"] else "")


def runs_text(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return "No run is like that."
    rows = [
        (run["run_id"], state_words(run), run["planned"], run["written"], run["operator"], "; ".join(_remarks(run)))
        for run in runs
    ]
    return "\n".join(table(["run", "state", "planned", "written", "operator", ""], rows, right=(2, 3)))


def _remarks(run: Mapping[str, Any]) -> list[str]:
    found = [f"“{run['reason']}”"] if run["reason"] else []
    if run["revert_of"]:
        found.append(f"reverts {run['revert_of']}")
    found += [f"approved by {approval['by']}" for approval in run["approvals"]]
    if run["notebook"] != "as shipped":
        found.append(f"notebook {run['notebook']}")
    return found


def history_text(changes: Sequence[Mapping[str, Any]]) -> str:
    if not changes:
        return "No run has written such a row."
    rows = [
        (
            change["at"][:16].replace("T", " "),
            change["year"],
            change["snapshot_id"],
            change["kpi_id"],
            change["action"],
            *history.shown(change),
            change["run_id"],
            change["operator"],
            "; ".join(filter(None, [history.origin_words(change), change["reason"]])),
        )
        for change in changes
    ]
    heads = ["when (UTC)", "year", "snapshot", "KPI", "action", "from", "to", "run", "operator", "reason"]
    return "\n".join(table(heads, rows, right=(2, 5, 6)))


def run_summary(receipt: Mapping[str, Any], folder: Path) -> str:
    """Counts by year, what differs, what was written, where the record is, and the next command."""
    told = put_back(receipt, folder) if receipt["parameters"]["revert_of"] else findings(receipt)
    return "\n".join([*told, "", *_next(receipt, folder)]).lstrip("\n")


def findings(receipt: Mapping[str, Any]) -> list[str]:
    """Notes, counts by year, the rows that differ, warnings and decisions, as lines."""
    counts = ["year  snapshots  KPI rows"]
    counts += [f"{year}  {found['snapshots']:9}  {found['kpi_rows']:8}" for year, found in receipt["years"].items()]
    counts.append(f"total {sum(c['snapshots'] for c in receipt['years'].values()):9}  {receipt['total_kpi_rows']:8}")
    drift = drift_rows(receipt["rows"], {entry["kpi_id"]: entry for entry in receipt["kpis"]})
    differing = [row for row in by_weight(drift) if row["status"] in DIFFERS]
    lines = []
    if differing:
        width = max(len(row["kpi_id"]) for row in differing)
        lines.append(
            f"{'period':7}  {'snapshot':>8}  {'KPI':{width}}  {'stored':>10}  {'computed':>10}  {'drift':>14}  status"
        )
        lines += [
            f"{row['period']:7}  {row['snapshot_id']:8}  {row['kpi_id']:{width}}  {row['stored_text']:>10}  "
            f"{row['computed_text']:>10}  {row['drift_text']:>14}  {row['status'].replace('_', ' ')}"
            for row in differing
        ]
    return _parts(receipt["notes"], counts, lines, _noticed(drift), _decided(receipt, drift))


def put_back(receipt: Mapping[str, Any], folder: Path) -> list[str]:
    """Notes, the rows that a revert puts back, and decisions: as lines. The drift beside them is not its matter."""
    plan = json.loads((folder / PLAN).read_bytes())
    words = {entry["kpi_id"]: entry for entry in receipt["kpis"]}
    drift = drift_rows(receipt["rows"], words)
    rows = [
        (row["year"], row["snapshot_id"], row["kpi_id"], row["action"], row["from_text"], row["to_text"])
        for row in planned_rows(plan["rows"], drift, words, receipt["site"]["kpi_id_prefix"])
    ]
    heads = ["year", "snapshot", "KPI", "action", "from", "back to"]
    planned = table(heads, rows, right=(1, 4, 5)) if rows else []
    return _parts(receipt["notes"], planned, _decided(receipt, drift))


def _parts(*parts: Sequence[str]) -> list[str]:
    """Lines with an empty one between their parts."""
    return [line for part in parts if part for line in ("", *part)][1:]


def _noticed(drift: Sequence[Mapping[str, Any]]) -> list[str]:
    """The warnings: per KPI each sentence with its periods."""
    lines = []
    for label, sentences in remarks(drift):
        lines += [f"  {label}", *(f"    {periods}: {sentence}" for periods, sentence in sentences)]
    return ["Warnings", *lines] if lines else []


def _decided(receipt: Mapping[str, Any], drift: Sequence[Mapping[str, Any]]) -> list[str]:
    words = {entry["kpi_id"]: entry for entry in receipt["kpis"]}
    names = ("year", "snapshot_id", "kpi_id", "decision", "value_text", "reviewer", "reason")
    rows = [[row[name] for name in names] for row in decided_rows(receipt.get("decisions", []), words, drift)]
    heads = ["year", "snapshot", "KPI", "decision", "value", "reviewer", "reason"]
    return ["Decisions", *table(heads, rows, right=(1, 4))] if rows else []


def _next(receipt: Mapping[str, Any], folder: Path) -> list[str]:
    rows = receipt["plan"]["rows"]
    planned = f"{rows} row{'s' * (rows != 1)}"
    dry = receipt["state"] == "dry_run"
    if dry and rows:
        lines = [f"Dry run: nothing was written. The plan has {planned}."]
    elif rows:
        lines = [f"Applied: {planned} written."]
    else:
        lines = [f"{'Dry run' if dry else 'Applied'}: nothing was written. {_empty(receipt)}"]
    lines.append(f"Record: {folder}")
    if dry and rows:
        what, commands = ways_to_apply(receipt["parameters"], receipt["target"], receipt["run_id"])
        lines.append(f"Next: look at {folder / 'report.html'}, then {what}:")
        lines += [f"  {command}" for command in commands]
    elif rows:
        lines.append(f"Next: {shlex.join(['kpibackfill', 'verify', '--target', receipt['target']['name']])}")
    return lines


def _empty(receipt: Mapping[str, Any]) -> str:
    """That a plan is empty, and that this is as it should be where no row differs."""
    statuses = {row["status"] for row in receipt["rows"]}
    if "unchanged" in statuses and not statuses & {*DIFFERS} and not receipt["parameters"]["revert_of"]:
        return "What is stored is what is computed: there is nothing to do."
    return "The plan is empty."


def show_text(shown: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> str:
    """A run's findings first, then what it wrote, who and why, and how it was computed.

    Raises
    ------
    Refused : the receipt lacks what it must tell, since it was altered.
    """
    try:
        return _show_text(shown, changes)
    except (LookupError, TypeError, AttributeError, ValueError):
        from kpibackfill.record.vouching import refuse_altered

        refuse_altered(RunRecord(Path(shown["folder"]).parent, shown["run_id"]))
        raise


def _show_text(shown: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> str:
    receipt = shown["receipt"]
    lines = [f"{shown['run_id']}: {state_words(shown)}", *filter(None, [shown["altered"]]), *_outcome(shown, receipt)]
    if "rows" in receipt:
        lines += ["", *map(one_line, findings(receipt))]
    if changes:
        heads = ["year", "snapshot", "KPI", "action", "from", "to", ""]
        rows = [
            (c["year"], c["snapshot_id"], c["kpi_id"], c["action"], *history.shown(c), history.origin_words(c))
            for c in changes
        ]
        lines += ["", "Written", *table(heads, rows, right=(1, 4, 5))]
    lines += ["", "Asked", *_pairs({name: value for name, value in receipt["parameters"].items() if value != ""})]
    lines += ["", "How", *_pairs(_provenance(shown, receipt))]
    if receipt.get("kpis"):
        heads = ["KPI", "queries", "groups", "seconds", "fingerprint of the groups"]
        rows_ = [
            (
                entry["kpi_id"],
                len(entry["queries"]),
                sum(query["rows"] for query in entry["queries"]),
                f"{sum(query['seconds'] for query in entry['queries']):.3f}",
                " ".join(query["fingerprint"][:16] for query in entry["queries"]),
            )
            for entry in receipt["kpis"]
        ]
        lines += ["", "Computed", *table(heads, rows_, right=(1, 2, 3))]
    lines += ["", f"Files in {one_line(shown['folder'])}"]
    lines += [f"  {digest}  {one_line(name)}" for name, digest in shown["files"].items()]
    return "\n".join(lines)


def _outcome(shown: Mapping[str, Any], receipt: Mapping[str, Any]) -> list[str]:
    lines = []
    if receipt["error"]:
        lines.append(one_line(receipt["error"]["message"]))
    if shown["state"] == "unsettled":
        lines.append(
            f"It was cut off while it was writing: `kpibackfill settle {shown['run_id']}` finds out what happened."
        )
    if shown["state"] == "applied" and not shown["written"]:
        lines.append(f"Nothing was written. {_empty(receipt)}")
    if shown["state"] == "dry_run":
        rows = shown["planned"]
        planned = f"The plan has {rows} row{'s' * (rows != 1)}." if rows else _empty(receipt)
        lines.append(f"Nothing was written. {planned}")
    lines += [
        f"Approved by {one_line(approval['by'])} at {approval['at']}: {one_line(approval['note'])}"
        for approval in shown["approvals"]
    ]
    vouched = receipt.get("approval") or {}
    if "by" in vouched:
        lines.append(
            f"Its plan was approved by {one_line(vouched['by'])} at {vouched['at']}, on {vouched['approved_run']}."
        )
    elif vouched:
        lines.append(
            f"Its plan was reviewed on {vouched['reviewed_run'] or 'no run on record here'}; no approval is on record."
        )
    if shown["settlement"]:
        lines.append(f"Settled at {shown['settlement']['settled_at']}: {state_words(shown)}.")
    return lines


def _provenance(shown: Mapping[str, Any], receipt: Mapping[str, Any]) -> dict[str, object]:
    store = (receipt.get("databases") or {}).get("store", {})
    code = receipt["code"]
    after = receipt.get("after_apply")
    commit = code["git_commit"] or "no checkout"
    found: dict[str, object] = {
        "begun, ended": f"{receipt['started_at']}, {receipt['ended_at'] or '–'}",
        "by": f"{receipt['operator']} ({receipt['system_user']} on {receipt['host']}, {receipt['started_by']})",
        "store": f"{receipt['target']['store']} {store.get('dialect', '')} {store.get('server', '')}".rstrip(),
        "sources": receipt["target"]["sources"],
        "code": commit + (f", {len(code['modified'])} files modified since" if code["modified"] else ""),
        "sources of the code": code["sources_sha256"],
        "notebook": f"{shown['notebook']}{', its cells ' + shown['cells'] if shown['cells'] else ''}",
        "plan": shown["fingerprint"] or "–",
        "packages": ", ".join(f"{name} {version}" for name, version in receipt["versions"].items()),
    }
    if receipt.get("cache_tags"):
        found["cache tags"] = f"{receipt['cache_tags']['outcome']}: {', '.join(receipt['cache_tags']['tags'])}"
    if after:
        found["after_apply"] = f"{after['command']}: {after['outcome']}, {after['seconds']} s"
    return found


def _pairs(values: Mapping[str, object]) -> list[str]:
    width = max(map(len, values), default=0)
    return [f"  {name:{width}}  {one_line(value)}" for name, value in values.items()]


def diff_text(found: Mapping[str, Any], units: Mapping[str, Any]) -> str:
    """What differs between two runs: rows and why first, then what was asked, code, SQL and packages."""
    one, other = found["runs"]
    lines = [
        f"one    {one_line(one)}",
        f"other  {one_line(other)}",
        "",
        f"Of {found['compared']} rows in both, {len(found['rows'])} differ.",
    ]
    if found["rows"]:
        rows = [
            (
                row["year"],
                row["snapshot_id"],
                row["kpi_id"],
                *_amounts(row, "computed", units.get(row["kpi_id"])),
                *_amounts(row, "stored", units.get(row["kpi_id"])),
                row["why"],
            )
            for row in found["rows"]
        ]
        heads = ["year", "snapshot", "KPI", "computed: one", "other", "stored: one", "other", "why"]
        lines += table(heads, rows, right=(1, 3, 4, 5, 6))
    for side, name in enumerate(("one", "other")):
        if found["only"][side]:
            lines.append(f"{len(found['only'][side])} rows are in {name} only.")
    for title, about in (
        ("Parameters", "parameters"),
        ("Settings", "settings"),
        ("Databases", "databases"),
        ("Packages", "packages"),
    ):
        if found[about]:
            rows_ = [
                (name, *("–" if value is None else value for value in pair)) for name, pair in found[about].items()
            ]
            lines += ["", *table([title, "one", "other"], rows_)]
    code = found["code"]
    lines += ["", "The code is the same." if code["same"] else "The code is not the same:"]
    if not code["same"]:
        lines += _pairs(
            {
                name: f"{commit} ({len(files)} files modified)"
                for name, commit, files in zip(("one", "other"), code["git_commit"], code["modified"], strict=True)
            }
        )
    heads = ["KPI", "definition", "SQL", "bound values", "groups returned"]
    rows_ = [(kpi_id, k["definition"], k["sql"], k["bound_values"], k["result"]) for kpi_id, k in found["kpis"].items()]
    return "\n".join([*lines, "", *table(heads, rows_)])


def _amounts(row: Mapping[str, Any], name: str, unit: Any) -> list[str]:
    """The two values as people read them; both are withheld where one rests on too few people."""
    basis = next((basis for basis in row["basis"] if too_few(unit, basis)), None)
    return [published(None if value is None else float(value), unit, basis) for value in row[name]]


def verify_text(verdict: Verdict) -> str:
    """Findings, notes, and the digest to note elsewhere."""
    lines = [*(f"FINDING  {one_line(finding)}" for finding in verdict.findings)]
    lines += [f"note     {one_line(note)}" for note in verdict.notes]
    count = len(verdict.findings)
    looked = f"{verdict.lines} lines, {verdict.runs} runs, {verdict.files} files"
    said = "each is as the ledger says" if not count else f"{count} finding{'s' * (count != 1)}"
    lines.append(f"Looked at {looked}: {said}.")
    if verdict.target is not None:
        held = f"{verdict.recorded} rows on record were held against the {verdict.rows} rows of its table"
        lines.insert(-1, f"Looked at {verdict.target}: {held}.")
    return "\n".join([*lines, f"Head: {verdict.head or 'none'}"])
