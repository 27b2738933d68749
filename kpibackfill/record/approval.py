"""Whether a plan may be applied: it must be the plan that was reviewed, and approved where the target asks for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kpibackfill.errors import Refused
from kpibackfill.plan import Plan, read_plan
from kpibackfill.record import ledger
from kpibackfill.record.receipt import PLAN, RunRecord

if TYPE_CHECKING:
    from kpibackfill.run import Run


def check(run: Run, plan: Plan) -> dict[str, Any] | None:
    """What vouches for the plan, for the receipt; ``None`` where none was asked for or given.

    Raises
    ------
    Refused : the plan is not the reviewed one, no approval is on record, or a reason is missing.
    """
    target, parameters = run.target, run.parameters
    if target.require_approval and not parameters.reason:
        raise Refused(
            f"{target.name} asks for a reason; nothing was written. Say why in a sentence: reason.", code="reason"
        )
    if not parameters.approved_plan:
        if target.require_approval and plan.rows:
            raise Refused(
                f"{target.name} applies only an approved plan; nothing was written. Do a dry run, have it reviewed "
                "(`kpibackfill approve RUN`), and give its id as approved_plan.",
                code="approval",
            )
        return None
    reviewed_by, reviewed = _reviewed(run, parameters.approved_plan)
    if plan.fingerprint != parameters.approved_plan:
        if reviewed is None:
            raise Refused(
                "This run's plan is not the approved one, which is in no record here; nothing was written. "
                "Look at a new dry run.",
                code="stale_plan",
            )
        _compare(plan, reviewed)
    found: dict[str, Any] = {"approved_plan": parameters.approved_plan, "reviewed_run": reviewed_by, "word": "reviewed"}
    if target.require_approval and plan.rows:
        found |= _approval(run, reviewed_by, parameters.approved_plan)
    return found


def _reviewed(run: Run, wanted: str) -> tuple[str | None, dict[str, Any] | None]:
    """The run whose plan is meant, and that plan: by run id, or by fingerprint among the runs on record."""
    runs_dir = run.config.runs_dir
    if not re.fullmatch(r"[0-9a-f]{64}", wanted):
        record = RunRecord(runs_dir, wanted)
        if record.receipt["state"] == "planned" or record.receipt["plan"] is None:
            raise Refused(f"{wanted} has no plan to go by; nothing was written.", code="stale_plan")
        return wanted, read_plan(record.folder / PLAN)
    for entry in ledger.entries(runs_dir):
        if entry["event"] == "closed" and (entry.get("plan") or {}).get("fingerprint") == wanted:
            record = RunRecord(runs_dir, entry["run_id"])
            return record.run_id, read_plan(record.folder / PLAN)
    return None, None


def _compare(plan: Plan, reviewed: dict[str, Any]) -> None:
    """The plan must be the reviewed one, or that one less rows that decisions took out."""
    from kpibackfill.plan import fingerprint, row_document

    now = {(row.snapshot_id, row.kpi_id): row_document(row) for row in plan.rows}
    then = {(row["snapshot_id"], row["kpi_id"]): row for row in reviewed["rows"]}
    kept = [row for key, row in then.items() if key in now]
    databases = reviewed["databases"]
    differing = [
        key for key, row in now.items() if key not in then or _alone(databases, row) != _alone(databases, then[key])
    ]
    missing = [key for key in then if key not in now]
    taken_out = bool(plan.run.parameters.decisions)
    if fingerprint(plan.databases, kept) == plan.fingerprint and (taken_out or not missing):
        return
    named = differing + ([] if taken_out else missing)
    some = ", ".join(f"({snapshot_id}, {kpi_id})" for snapshot_id, kpi_id in named[:5])
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    where = f"differs in {some}{more}" if named else "is for another database"
    raise Refused(
        f"This run's plan is not the approved one: it {where}. Nothing was written; look at a new dry run.",
        code="stale_plan",
    )


def _alone(databases: dict[str, Any], row: dict[str, Any]) -> str:
    from kpibackfill.plan import fingerprint

    return fingerprint(databases, [row])


def _approval(run: Run, reviewed_by: str | None, wanted: str) -> dict[str, Any]:
    """The ledger's approval of the reviewed dry run, or of another run with the same plan."""
    for entry in ledger.entries(run.config.runs_dir):
        if entry["event"] != "approved":
            continue
        if entry["run_id"] == reviewed_by or entry.get("plan") == wanted:
            if run.target.four_eyes and entry.get("by") == run.parameters.operator:
                continue
            return {"word": "approved", "approved_run": entry["run_id"], "by": entry.get("by"), "at": entry["at"]}
    again = " by somebody else than the operator" if run.target.four_eyes else ""
    raise Refused(
        f"{run.target.name} applies only a plan that was approved{again}; nothing was written. "
        f"`kpibackfill approve {reviewed_by or 'RUN'} --note …` puts an approval on record.",
        code="approval",
    )
