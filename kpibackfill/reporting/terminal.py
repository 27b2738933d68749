"""What the commands print of runs and the archive for people; whatever comes from the archive is shown on one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kpibackfill.archive import history
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.archive.verdict import Verdict
from kpibackfill.numbers import published, too_few
from kpibackfill.reporting.run_summary import empty, findings, table
from kpibackfill.text import one_line


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


def show_text(shown: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> str:
    """A run's findings first, then what it wrote, who and why, and how it was computed.

    Raises
    ------
    Refused : the receipt lacks what it must tell, since it was altered.
    """
    try:
        return _show_text(shown, changes)
    except (LookupError, TypeError, AttributeError, ValueError):
        from kpibackfill.archive.vouching import refuse_altered

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
        lines.append(f"Nothing was written. {empty(receipt)}")
    if shown["state"] == "dry_run":
        rows = shown["planned"]
        planned = f"The plan has {rows} row{'s' * (rows != 1)}." if rows else empty(receipt)
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
