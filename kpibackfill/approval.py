"""Whether a plan may be applied: it must be the plan that was reviewed, and approved if the target requires it."""

from __future__ import annotations

import re
from typing import Any

from kpibackfill.archive import ledger
from kpibackfill.archive.models import Approval, Approved, Begun, Closed, End, Event, PlanDocument
from kpibackfill.archive.plan_file import fingerprint, read_plan
from kpibackfill.archive.run_record import PLAN, RunRecord
from kpibackfill.config import Config
from kpibackfill.errors import Refused
from kpibackfill.parameters import one_line, system_user
from kpibackfill.planning.plan import Plan
from kpibackfill.run import Run
from kpibackfill.text import some

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def approve(config: Config, run_id: str, *, note: str, by: str = "") -> dict[str, Any]:
    """Record that someone has reviewed a dry run and approves its plan, as `notebook_api.approve` documents it."""
    note, by = one_line("note", note), one_line("by", by) or system_user()
    if not note.strip("… "):
        raise Refused("An approval needs a note that says why; nothing was changed. Give --note.", code="approval")
    record = RunRecord(config.runs_dir, run_id)
    receipt = record.receipt
    if receipt.state != "dry_run" or not record.closed:
        raise Refused(
            f"{run_id} is not a finished dry run ({receipt.state}), and only those can be approved; "
            "nothing was changed.",
            code="approval",
        )
    record.require_unaltered()
    document = read_plan(record.folder / PLAN)
    if not document.rows:
        raise Refused(f"The plan of {run_id} is empty; there is nothing to approve.", code="approval")
    target = config.targets.get(receipt.target.name)
    if target is not None and target.four_eyes and _same_person(by, receipt.operator):
        raise Refused(
            f"{target.name} requires four eyes: {by} was the operator of {run_id}, so someone else must approve; "
            "nothing was changed.",
            code="four_eyes",
        )
    event = Approved(run_id=run_id, by=by, note=note, plan=document.fingerprint, system_user=system_user())
    ledger.append(config.runs_dir, event)
    return {"run_id": run_id, **event.facts(), "rows": len(document.rows)}


def check(run: Run, plan: Plan) -> Approval | None:
    """The review or approval of the plan, for the receipt; ``None`` if none was required or given.

    Raises
    ------
    Refused : the plan is not the reviewed one, no approval is on record, or a reason is missing.
    """
    target, parameters = run.target, run.parameters
    if target.wants_approval and not parameters.reason.strip("… "):
        raise Refused(
            f"{target.name} requires a reason; nothing was written. Give a sentence as reason.", code="reason"
        )
    if not parameters.approved_plan:
        if needs_approval(run, plan):
            raise Refused(
                f"{target.name} applies only an approved plan; nothing was written. Do a dry run, have it approved "
                "(`kpibackfill approve RUN`), and give its id as approved_plan.",
                code="approval",
            )
        return None
    reviewed = _reviewed(run, parameters.approved_plan)
    if reviewed is None:
        if plan.fingerprint != parameters.approved_plan:
            raise Refused(
                "This run's plan is not the reviewed one, which is not on record here; nothing was written. "
                "Review a new dry run.",
                code="stale_plan",
            )
        approved = plan.fingerprint
    else:
        _compare(plan, reviewed)
        approved = reviewed.fingerprint
    approval, otherwise = _approval(run, approved)
    if approval is None and target.wants_approval and plan.rows:
        again, name = (" by someone other than the operator", " --by NAME") if target.four_eyes else ("", "")
        run_id = reviewed.run_id if reviewed else "RUN"
        raise Refused(
            f"{target.name} applies only a plan that was approved{again}{otherwise}; nothing was written. "
            f'`kpibackfill approve {run_id}{name} --note "…"` records an approval.',
            code="approval",
        )
    return Approval(
        approved_plan=parameters.approved_plan,
        reviewed_run=reviewed.run_id if reviewed else None,
        word="approved" if approval else "reviewed",
        approved_run=approval.run_id if approval else None,
        by=approval.by if approval else None,
        at=approval.at if approval else None,
    )


def needs_approval(run: Run, plan: Plan) -> bool:
    """Whether only an approval is missing: none was named, and the target applies nothing without one."""
    parameters = run.parameters
    return bool(run.target.wants_approval and parameters.reason and plan.rows and not parameters.approved_plan)


def _reviewed(run: Run, wanted: str) -> PlanDocument | None:
    """The reviewed plan: that of the run with this id, or of the newest dry run with this fingerprint."""
    run_ids = [wanted]
    if _FINGERPRINT.fullmatch(wanted):
        closed = [event for event in ledger.events(run.config.runs_dir) if isinstance(event, Closed)]
        dry_runs = [(event.run_id, event.plan) for event in closed if event.state == "dry_run"]
        run_ids = [run_id for run_id, plan in dry_runs if plan is not None and plan.fingerprint == wanted]
    if not run_ids:
        return None
    record = RunRecord(run.config.runs_dir, run_ids[-1])
    receipt = record.receipt
    if receipt.state != "dry_run" or not record.closed:
        raise Refused(f"{record.run_id} is not a finished dry run; nothing was written.", code="stale_plan")
    if receipt.parameters.revert_of != run.parameters.revert_of:
        raise Refused(
            f"{record.run_id} is not about the same revert; nothing was written. Review a new dry run.",
            code="stale_plan",
        )
    record.require_unaltered()
    return read_plan(record.folder / PLAN)


def _compare(plan: Plan, reviewed: PlanDocument) -> None:
    """Refuse a plan that is neither the reviewed one nor that one without rows that decisions removed."""
    now = {row.key: row for row in plan.rows}
    then = {row.key: row for row in reviewed.rows}
    databases = reviewed.databases
    differing = [
        key
        for key, row in now.items()
        if key not in then or fingerprint(databases, [row]) != fingerprint(databases, [then[key]])
    ]
    missing = [key for key in then if key not in now]
    if plan.run.parameters.decisions:
        prefix = plan.prefix.text
        wanted = {(line.snapshot_id, prefix + line.kpi_id) for line in plan.decided if line.decision != "reject"}
        missing = [key for key in missing if key in wanted]
    differing += missing
    kept = [row for key, row in then.items() if key in now]
    if not differing and fingerprint(databases, kept) == plan.fingerprint:
        return
    named = some(f"({snapshot_id}, {kpi_id})" for snapshot_id, kpi_id in differing)
    where = f"differs in {named}" if differing else "is for another database"
    runs = [event.run_id for event in ledger.events(plan.run.config.runs_dir) if _applies(event, reviewed.fingerprint)]
    already = f" The reviewed one was already applied by {runs[-1]}." if runs else ""
    raise Refused(
        f"This run's plan is not the reviewed one: it {where}.{already} Nothing was written; review a new dry run.",
        code="stale_plan",
    )


def _approval(run: Run, approved: str) -> tuple[Approved | None, str]:
    """The newest approval of a plan that no apply has used, and of the named run if one is named.

    If there is none, also why the last one does not count. `approved` is the fingerprint of the plan.
    """
    found: Approved | None = None
    otherwise = ""
    operators: dict[str, str] = {}
    for event in ledger.events(run.config.runs_dir):
        if isinstance(event, Begun):
            operators[event.run_id] = event.operator
        elif found and _applies(event, approved, found.run_id):
            # The same plan, for example after a revert, needs another review; so does what a smaller one left of it.
            otherwise = f", and {event.run_id} has used the approval by {found.by}"
            found = None
        elif isinstance(event, Approved) and event.plan == approved:
            if run.parameters.approved_plan not in (event.run_id, approved):
                otherwise = f", and {event.by} approved another run, {event.run_id}"
            elif run.target.four_eyes and any(
                _same_person(event.by, name) for name in (run.parameters.operator, operators.get(event.run_id, ""))
            ):
                otherwise = f", and {event.by} was the operator"
            else:
                found = event
    return found, otherwise


def _applies(event: Event, plan: str, approved_run: str = "") -> bool:
    """Whether an event says that the plan with this fingerprint was applied, or a part of it as approved on a run."""
    if not (isinstance(event, End) and event.applied):
        return False
    whole = event.plan is not None and event.plan.fingerprint == plan
    return whole or bool(approved_run and event.approved_run == approved_run)


def _same_person(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()
