"""What became of a commit whose outcome is unknown: found out in the database, not guessed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kpibackfill.archive.changes import after_image, changes, is_image
from kpibackfill.archive.models import Found, Outcome, PlanRow, Receipt, SettledRow, Settlement, State, now
from kpibackfill.archive.plan_file import read_plan
from kpibackfill.archive.run_record import PLAN, RunRecord
from kpibackfill.config import Config, Target
from kpibackfill.database import fact_table
from kpibackfill.database.engine import writing
from kpibackfill.database.image import Image, RowKey
from kpibackfill.errors import KpiBackfillError, OutcomeUnknown, Refused
from kpibackfill.lifecycle import closing
from kpibackfill.parameters import system_user

# How long an apply itself goes on asking what became of its commit: a server that crashed is back by then, or not soon.
ASK_SECONDS = 30


@dataclass(frozen=True)
class Judged:
    """What the database says of a run's plan as a whole, and of each of its rows in the plan's order.

    ``changed_since``: what is stored is neither what the run wrote nor what was there before, in so many rows that
    it is told row by row only.
    """

    outcome: Outcome
    rows: tuple[Found, ...]


def settle(config: Config, run_id: str) -> Settlement | State:
    """Decide a run that was cut off while it was writing, and put that on record as ``settlement.json``.

    A closed file is never changed: the receipt goes on saying ``applying``, and the settlement says what is true.
    A run that was cut off later, while it was being closed, only gets the ledger's line of its end.

    Returns
    -------
    The settlement, or that of an earlier call where there is one; the run's state, where only the ledger's line was
    added.

    Raises
    ------
    Refused : the run is still running, or nothing about it is unknown.
    KpiBackfillError : the database can't be reached now; nothing was changed.
    """
    record = RunRecord(config.runs_dir, run_id)
    receipt, settlement, sealed = record.receipt, record.settlement, record.sealed
    if settlement is not None and sealed:
        return settlement
    if receipt.ended_at is not None and not sealed:
        closing.finish(record)
        return receipt.state
    if receipt.ended_at is not None or receipt.state not in ("applying", "applied"):
        known = (
            receipt.state.replace("_", " ")
            if receipt.ended_at
            else "planned: it ended before it began to write, or has not come that far"
        )
        raise Refused(f"There is nothing to settle: {run_id} is {known}. Nothing was changed.", code="nothing_unknown")
    target = config.target(receipt.target.name)
    document = read_plan(record.folder / PLAN)
    try:
        with writing(target.store_url, wait=1) as connection:
            fact = fact_table.layout(connection)
            current = fact_table.locked_rows(connection, fact, [row.key for row in document.rows])
            # Put on record under the writers' lock: a run that is not dead yet finds it when it gets the lock.
            judged = judge(document.rows, current, run_id, document.fingerprint)
            return _put_on_record(record, receipt, document.rows, judged, current)
    except Refused as error:
        if error.code != "locked":
            raise
        raise Refused(
            f"{run_id} may still be running: somebody is writing to {target.name}. Nothing was changed; "
            "settle when that has ended.",
            code="still_running",
        ) from None


def as_json(run_id: str, found: Settlement | State) -> dict[str, Any]:
    """What ``settle --json`` prints: a settlement, or the state in which the run had ended."""
    if isinstance(found, Settlement):
        return found.as_json()
    return {"schema": 1, "run_id": run_id, "outcome": found, "rows": []}


def committed(
    target: Target, rows: Sequence[PlanRow], run_id: str, plan_fingerprint: str, unknown: OutcomeUnknown
) -> bool:
    """Whether a run's plan is in the database, asked under the writers' lock, so that no transaction of it can be left.

    Raises
    ------
    OutcomeUnknown : the database can't be asked now, or can't tell.
    """

    keys = [row.key for row in rows]
    deadline = time.monotonic() + ASK_SECONDS
    while True:
        try:
            with writing(target.store_url) as connection:
                current = fact_table.locked_rows(connection, fact_table.layout(connection), keys)
            break
        except KpiBackfillError:  # a server that comes back can be asked a little later
            if time.monotonic() > deadline:
                raise _unknown(unknown, run_id, "The database can't be asked whether it was carried out.") from None
            time.sleep(1)
    found = judge(rows, current, run_id, plan_fingerprint)
    if found.outcome == "changed_since":
        raise _unknown(unknown, run_id, "Somebody has changed the rows since, so that they don't tell.")
    return found.outcome == "applied"


def judge(rows: Sequence[PlanRow], current: Mapping[RowKey, Image], run_id: str, plan_fingerprint: str) -> Judged:
    """Hold what is stored against what the plan found and what it would leave; all its rows were one transaction.

    A row that carries the run's id proves the commit. A row put back or deleted carries no id: it counts where no
    other row speaks against it. That a row to insert is not there says little where others were changed since: who
    rebuilds a snapshot deletes its rows.
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
        return Judged("applied", tuple(found))
    if denied or ("written" not in found and (standing or "changed_since" not in found)):
        return Judged("not_in_effect", tuple(found))
    return Judged("changed_since", tuple(found))


def state_of(record: RunRecord) -> str:
    """A run's state as it is known by now: its receipt's, or what a settlement found."""
    settlement = record.settlement
    return record.receipt.state if settlement is None else settlement.outcome


def _put_on_record(
    record: RunRecord, receipt: Receipt, rows: Sequence[PlanRow], judged: Judged, current: Mapping[RowKey, Image]
) -> Settlement:
    stored = [current.get(row.key) for row in rows]
    settlement = Settlement(
        run_id=record.run_id,
        outcome=judged.outcome,
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
            for row, found, image in zip(rows, judged.rows, stored, strict=True)
        ),
    )
    units = {receipt.site["kpi_id_prefix"] + kpi_id: unit for kpi_id, unit in receipt.units.items()}
    closing.close_settled(record, settlement, changes(rows, units) if judged.outcome == "applied" else ())
    return record.settlement or settlement  # somebody else's, who settled it at the same time


def _unknown(unknown: OutcomeUnknown, run_id: str, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{unknown.message} {why} `kpibackfill settle {run_id}` finds out; run nothing else before.", code=unknown.code
    )
