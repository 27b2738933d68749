"""Finds out in the database what became of a commit whose outcome is unknown."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kpibackfill.archive.changes import after_image, changes, is_image
from kpibackfill.archive.models import Found, Outcome, PlanRow, Receipt, SettledRow, Settlement, State, now
from kpibackfill.archive.plan_file import read_plan
from kpibackfill.archive.run_record import PLAN, RunRecord
from kpibackfill.config import Config, Site, Target
from kpibackfill.database import fact_table
from kpibackfill.database.engine import writing
from kpibackfill.database.image import Image, RowKey
from kpibackfill.errors import KpiBackfillError, OutcomeUnknown, Refused
from kpibackfill.lifecycle import closing
from kpibackfill.parameters import system_user

# How long an apply itself tries to find out about its commit: a server that crashed is back by then, or not soon.
ASK_SECONDS = 30


@dataclass(frozen=True)
class PlanState:
    """What the database shows about a run's plan as a whole, and about each of its rows in the plan's order.

    A row is ``changed_since`` if it is neither what the run wrote nor what was there before; so is the plan if such
    rows leave its outcome open.
    """

    outcome: Outcome
    rows: tuple[Found, ...]


def settle(config: Config, run_id: str) -> Settlement | State:
    """Find out how a run that was cut off while it was writing ended, and record it as ``settlement.json``.

    The receipt is not changed: it still says ``applying``, and the settlement says what is true.
    A run that was cut off later, while it was being closed, only gets its last line in the ledger, and its state is
    returned. What it refuses is in `notebook_api.settle`.
    """
    record = RunRecord(config.runs_dir, run_id)
    receipt, settlement, sealed = record.receipt, record.settlement, record.sealed
    if settlement is not None and sealed:
        return settlement
    if receipt.ended_at is not None and not sealed:
        closing.finish(record)
        return receipt.state
    if receipt.ended_at is not None or receipt.state not in ("applying", "applied"):
        planned = "planned (it ended before it began to write, or has not reached that point)"
        known = receipt.state.replace("_", " ") if receipt.ended_at else planned
        raise Refused(f"There is nothing to settle: {run_id} is {known}. Nothing was changed.", code="nothing_unknown")
    target = config.target(receipt.target.name)
    document = read_plan(record.folder / PLAN)
    try:
        with writing(target.store_url, config.site, wait=1) as connection:
            fact = fact_table.layout(connection)
            current = fact_table.locked_rows(connection, fact, [row.key for row in document.rows])
            # Put on record under the writers' lock: a run that is still alive finds it when it gets the lock.
            state = compare_with_plan(document.rows, current, run_id, document.fingerprint)
            return _put_on_record(record, receipt, document.rows, state, current)
    except Refused as error:
        if error.code != "locked":
            raise
        raise Refused(
            f"{run_id} may still be running: someone is writing to {target.name}. Nothing was changed; "
            "settle it when that has finished.",
            code="still_running",
        ) from None


def as_json(run_id: str, found: Settlement | State) -> dict[str, Any]:
    """What ``settle --json`` prints: a settlement, or the state in which the run had ended."""
    if isinstance(found, Settlement):
        return found.as_json()
    return {"schema": 1, "run_id": run_id, "outcome": found, "rows": []}


def committed(
    target: Target, site: Site, rows: Sequence[PlanRow], run_id: str, plan_fingerprint: str, unknown: OutcomeUnknown
) -> bool:
    """Whether a run's plan is in the database, read under the writers' lock, so no transaction of the run is pending.

    Raises
    ------
    OutcomeUnknown : the database can't be reached now, or its rows don't show it.
    """
    keys = [row.key for row in rows]
    deadline = time.monotonic() + ASK_SECONDS
    while True:
        try:
            with writing(target.store_url, site) as connection:
                current = fact_table.locked_rows(connection, fact_table.layout(connection), keys)
            break
        except KpiBackfillError:  # a server that is coming back can be reached a little later
            if time.monotonic() > deadline:
                raise _unknown(unknown, run_id, "The database can't be reached to check what it did.") from None
            time.sleep(1)
    found = compare_with_plan(rows, current, run_id, plan_fingerprint)
    if found.outcome == "changed_since":
        raise _unknown(unknown, run_id, "Someone has changed the rows since, so they don't show what it did.")
    return found.outcome == "applied"


def compare_with_plan(
    rows: Sequence[PlanRow], current: Mapping[RowKey, Image], run_id: str, plan_fingerprint: str
) -> PlanState:
    """Compare what is stored with what the plan found and what it would leave; all its rows were one transaction.

    A row that carries the run's id proves the commit. A restored or deleted row carries no id: it counts if no other
    row contradicts it. A row to insert that is missing says little if others were changed since: rebuilding a snapshot
    deletes its rows.
    """
    found: list[Found] = []
    proved = denied = standing = False
    for row in rows:
        stored = current.get(row.key)
        left = after_image(row, run_id, plan_fingerprint)
        marked = left if row.restore is None else None
        proved = proved or (marked is not None and stored is not None and stored.meta == marked.meta)
        if is_image(stored, left):
            found.append("written")
        elif is_image(stored, row.before):
            found.append("as_before")
            standing = standing or row.before is not None
            denied = denied or (marked is not None and row.before is not None)
        else:
            found.append("changed_since")
    if proved or ("written" in found and "as_before" not in found):
        return PlanState("applied", tuple(found))
    if denied or ("written" not in found and (standing or "changed_since" not in found)):
        return PlanState("not_in_effect", tuple(found))
    return PlanState("changed_since", tuple(found))


def state_of(record: RunRecord) -> str:
    """A run's state as known by now: its receipt's, or the outcome of its settlement."""
    settlement = record.settlement
    return record.receipt.state if settlement is None else settlement.outcome


def _put_on_record(
    record: RunRecord, receipt: Receipt, rows: Sequence[PlanRow], state: PlanState, current: Mapping[RowKey, Image]
) -> Settlement:
    stored = [current.get(row.key) for row in rows]
    settlement = Settlement(
        run_id=record.run_id,
        outcome=state.outcome,
        settled_at=now(),
        by=system_user(),
        rows=tuple(
            SettledRow(
                snapshot_id=row.snapshot_id,
                kpi_id=row.kpi_id,
                action=row.action,
                found=found,
                stored=None if image is None else image.metric_value,
            )
            for row, found, image in zip(rows, state.rows, stored, strict=True)
        ),
    )
    units = {receipt.prefix + kpi_id: unit for kpi_id, unit in receipt.units.items()}
    closing.close_settled(record, settlement, changes(rows, units) if state.outcome == "applied" else ())
    return record.settlement or settlement  # someone else's, if they settled it at the same time


def _unknown(unknown: OutcomeUnknown, run_id: str, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{unknown.message} {why} Run `kpibackfill settle {run_id}` to find out, before any other run.",
        code=unknown.code,
    )
