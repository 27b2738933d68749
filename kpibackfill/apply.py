"""This step writes the plan in one transaction, checked inside, or writes nothing."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from sqlalchemy.engine import Connection

from kpibackfill import approval
from kpibackfill.archive.changes import PlanRow, after_image, changes, is_image, row_document
from kpibackfill.archive.plan_file import fingerprint
from kpibackfill.archive.run_record import RunRecord, guards
from kpibackfill.config import Target
from kpibackfill.database import fact_table
from kpibackfill.database.engine import writing
from kpibackfill.database.fact_table import Image
from kpibackfill.errors import KpiBackfillError, OutcomeUnknown, Refused
from kpibackfill.execution.papermill import HandedOver, hand_over
from kpibackfill.lifecycle import closing, settle
from kpibackfill.planning.plan import Plan
from kpibackfill.reporting import markup
from kpibackfill.reporting.next_steps import ways_to_apply
from kpibackfill.run import RUN_VARIABLE, Run, step
from kpibackfill.tables import cachetags, kpi_fact
from kpibackfill.text import some


@dataclass(frozen=True, repr=False)
class Receipt:
    """How a run ended: its state, and how many rows were inserted, updated and deleted."""

    state: str
    written: Mapping[str, int]
    cache_tags: str
    run: Run
    plan: Plan

    def __repr__(self) -> str:
        if self.state == "dry_run":
            return "Dry run: nothing was written."
        tags = f" Drupal's cache tags: {self.cache_tags}." if self.cache_tags else ""
        return f"Applied: {markup.written_sentence(self.written)}{tags}"

    def _repr_html_(self) -> str:
        what, commands = "", list[str]()
        session = self.run.record is None
        if self.state == "dry_run" and self.plan.rows:
            parameters, target = self.run.parameters.as_notebook(), guards(self.run.target)
            named = self.plan.fingerprint if session else ""
            what, commands = ways_to_apply(parameters, target, self.run.run_id or "RUN", named)
        return markup.render(
            "receipt",
            sentence=repr(self),
            what=what,
            session=session,
            asks=self.run.target.wants_approval,
            # Without a run on record there is nothing to approve in a terminal yet.
            commands=[] if session and self.run.target.wants_approval else commands,
        )


@step
def apply_plan(run: Run, plan: Plan) -> Receipt | HandedOver:
    """Write the plan where ``apply`` is ``True``; else close the dry run.

    In a session without a record (JupyterLab) a dry run only shows the plan, and an apply is handed to a papermill
    execution with the same parameters and this plan's fingerprint as ``approved_plan``. Where the target wants an
    approval that was not named, the dry run is handed over, so that there is a record to approve of.

    Parameters
    ----------
    run : what ``begin`` returned.
    plan : what ``make_plan`` returned for that run.

    Returns
    -------
    Receipt, or in a session the outcome of the papermill execution.

    Raises
    ------
    Refused : the plan is not the approved one, or a row or snapshot changed since it was read; nothing was written.
    OutcomeUnknown : the commit was not confirmed and the database can't be asked; ``kpibackfill settle`` will tell.
    """
    _check_own(run, plan)
    record = run.record
    if not run.parameters.apply:
        if record is not None:
            closing.close(record, "dry_run")
        return Receipt("dry_run", {}, "", run, plan)
    if record is None and approval.is_to_be_asked_for(run, plan):
        return hand_over(run, plan, apply=False)
    approved = approval.check(run, plan)
    if record is None:
        return hand_over(run, plan)
    if not plan.rows:
        closing.close(record, "applied", written={"insert": 0, "update": 0, "delete": 0, "rows": []}, approval=approved)
        return Receipt("applied", {"insert": 0, "update": 0, "delete": 0}, "", run, plan)
    record.update(state="applying", approval=approved)
    tags = cache_tags(plan.rows)
    sent = Event()
    try:
        told = _write_or_find_out(run, plan, tags, sent)
    except BaseException as error:
        told_so = isinstance(error, KpiBackfillError) and not isinstance(error, OutcomeUnknown)
        # A settlement has sealed the record already, and says that nothing was written.
        if (told_so or not sent.is_set()) and record.settlement is None:
            record.update(state="planned")
            closing.close_failed(record, error)
        raise
    counts = {action: sum(row.action == action for row in plan.rows) for action in ("insert", "update", "delete")}
    units = {run.site.kpi_id_prefix + entry.kpi_id: entry.unit for entry in run.kpis}
    facts: dict[str, Any] = {
        "written": {**counts, "rows": changes(plan.rows, units)},
        "cache_tags": {"outcome": told, "tags": tags},
    }
    _close(record, run, facts)
    return Receipt("applied", counts, told, run, plan)


def _check_own(run: Run, plan: Plan) -> None:
    """The plan must be what `make_plan` gave this run."""
    if plan.run is not run:
        raise Refused("This plan belongs to another run; nothing was written. Run the cells in order.", code="order")
    if plan.fingerprint != fingerprint(plan.databases, [row_document(row) for row in plan.rows]):
        raise Refused(
            "This plan was changed by hand; nothing was written. Use a decisions file to set a value by hand.",
            code="edited_plan",
        )


def cache_tags(rows: Sequence[PlanRow]) -> list[str]:
    """The tags under which Drupal caches series of these rows."""
    base = "makerspace_snapshot:kpi"
    return [base, *(f"{base}:{kpi_id}" for kpi_id in sorted({row.kpi_id for row in rows}))]


def _write_or_find_out(run: Run, plan: Plan, tags: Sequence[str], sent: Event) -> str:
    """Write, and where no answer to the commit came, or an interrupt instead, ask the database what it did."""
    try:
        return _write(run, plan, tags, sent)
    except BaseException as error:
        if not sent.is_set():
            raise
        lost = f"The commit was not confirmed ({type(error).__name__})."
        assert run.run_id is not None
        unknown = error if isinstance(error, OutcomeUnknown) else OutcomeUnknown(lost, code="outcome_unknown")
        if settle.committed(run.target, plan.rows, run.run_id, plan.fingerprint, unknown):
            return "invalidated with the rows, where the table is there"
        raise KpiBackfillError(
            f"{unknown.message} The rows are as they were before: nothing was written. Run again.",
            code="not_committed",
        ) from None


def _close(record: RunRecord, run: Run, facts: Mapping[str, Any]) -> None:
    """Put a commit on record."""
    try:
        if record.settlement is None:  # else somebody settled it between the commit and here, and found the same
            record.update(state="applied", **facts)
            closing.close(record, "applied", after_apply=_after_apply(run.target))
    except KpiBackfillError as error:
        raise closing.off_record(record, error) from None


def _write(run: Run, plan: Plan, tags: Sequence[str], sent: Event) -> str:
    """One transaction. `sent` is set when only its commit is left: an error after that leaves its outcome open."""
    assert run.run_id is not None
    keys = [(row.snapshot_id, row.kpi_id) for row in plan.rows]
    after = {key: after_image(row, run.run_id, plan.fingerprint) for key, row in zip(keys, plan.rows, strict=True)}
    with writing(run.target.store_url) as connection:
        fact = fact_table.layout(connection)
        tagged = fact_table.has_cachetags(connection)
        assert run.record is not None
        if run.record.settlement is not None:
            raise Refused(f"{run.run_id} was settled while it waited; nothing was written. Run again.", code="settled")
        for table in [kpi_fact, *([cachetags] if tagged else [])]:
            if not fact_table.transactional(connection, table):
                raise Refused(
                    f"{table.name} is a view, or on a storage engine that can't roll back; nothing was written. "
                    f"ALTER TABLE {table.name} ENGINE=InnoDB makes a table fit.",
                    code="storage_engine",
                )
        _check_unmoved(connection, fact, plan)
        _send(connection, fact, plan.rows, after)
        _check_written(connection, fact, after)
        if tagged:
            fact_table.invalidate(connection, tags)
        sent.set()
    return "invalidated" if tagged else "there is no table cachetags that the account may use: clear Drupal's caches"


def _check_unmoved(connection: Connection, fact: fact_table.Layout, plan: Plan) -> None:
    """The rows read again, under the lock: each must still be its before-image, its snapshot still there."""
    present = fact_table.present_snapshots(connection, {row.snapshot_id for row in plan.rows})
    current = fact_table.locked_rows(connection, fact, [(row.snapshot_id, row.kpi_id) for row in plan.rows])
    moved = []
    for row in plan.rows:
        found = current.get((row.snapshot_id, row.kpi_id))
        if row.snapshot_id not in present:
            moved.append(f"snapshot {row.snapshot_id} is gone")
        elif not is_image(found, row.before):
            moved.append(f"({row.snapshot_id}, {row.kpi_id})")
    if moved:
        told = some(dict.fromkeys(moved), between="; ")
        raise Refused(
            f"The stored rows changed since they were read: {told}. Nothing was written; look at a new dry run.",
            code="stale",
        )


def _send(
    connection: Connection,
    fact: fact_table.Layout,
    rows: Sequence[PlanRow],
    after: Mapping[tuple[int, str], Image | None],
) -> None:
    """Plain statements in bulk; their counts must be the plan's."""
    inserts, deletes = [], []
    updates: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for row in rows:
        key: dict[str, Any] = {"snapshot_id": row.snapshot_id, "kpi_id": row.kpi_id}
        image = after[(row.snapshot_id, row.kpi_id)]
        by_id = {"id": row.before.row_id} if fact.surrogate and row.before else {}
        if image is None:
            deletes.append(key | by_id)
            continue
        values = {
            "metric_value": image.metric_value,
            "period_year": image.period_year,
            "period_month": image.period_month,
            "meta": image.meta,
        }
        if row.action == "update":
            updates.append((key | by_id, values))
        else:
            restored_id = {"id": image.row_id} if fact.surrogate and image.row_id is not None else {}
            inserts.append(key | restored_id | values)
    if fact_table.update(connection, updates) != len(updates) or fact_table.delete(connection, deletes) != len(deletes):
        raise Refused("Another writer took rows of the plan away; nothing was written. Try again.", code="stale")
    fact_table.insert(connection, inserts)


def _check_written(
    connection: Connection, fact: fact_table.Layout, after: Mapping[tuple[int, str], Image | None]
) -> None:
    """Every row read back: what is there must be what was meant."""
    current = fact_table.locked_rows(connection, fact, after)
    for (snapshot_id, kpi_id), image in after.items():
        if not is_image(current.get((snapshot_id, kpi_id)), image):
            raise KpiBackfillError(
                f"The database did not keep ({snapshot_id}, {kpi_id}) as it was sent; the transaction was rolled back, "
                "nothing was written. Look for a trigger or a narrower column.",
                code="read_back",
            )


def _after_apply(target: Target) -> dict[str, Any] | None:
    """Run the site's command, without a shell; how it ended never changes what was written."""
    if not target.after_apply:
        return None
    began = time.monotonic()
    # No pipes: what the command leaves running in the background would hold them, and be waited for.
    unheard: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    # A notebook that it executes is no part of this run.
    environment = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
    try:
        ended = subprocess.run(list(target.after_apply), timeout=300, env=environment, **unheard)
        outcome = f"exit status {ended.returncode}"
    except subprocess.TimeoutExpired:
        outcome = "stopped after 300 s"
    except OSError as error:
        outcome = f"could not be started: {error.strerror}"
    return {
        "command": target.after_apply[0],
        "outcome": outcome,
        "seconds": round(time.monotonic() - began, 3),
    }
