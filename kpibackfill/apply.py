"""This step writes the plan in one transaction, checked inside, or writes nothing."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import Any

from sqlalchemy.engine import Connection

from kpibackfill import approval
from kpibackfill.archive.changes import after_image, changes, is_image
from kpibackfill.archive.models import AfterApply, AskedParameters, CacheTags, PageAfter, PlanRow, Written
from kpibackfill.archive.plan_file import fingerprint
from kpibackfill.archive.run_record import RunRecord, guards
from kpibackfill.config import Command, Target
from kpibackfill.database import fact_table
from kpibackfill.database.engine import writing
from kpibackfill.database.image import Image, RowKey
from kpibackfill.database.inspection import name_of
from kpibackfill.errors import KpiBackfillError, OutcomeUnknown, Refused
from kpibackfill.execution.papermill import HandedOver, hand_over
from kpibackfill.lifecycle import closing, settle
from kpibackfill.planning.page import page_after
from kpibackfill.planning.plan import Plan
from kpibackfill.reporting import markup
from kpibackfill.reporting.page_table import page_after_sentence, warm_commands
from kpibackfill.reporting.sentences import ways_to_apply, written_sentence
from kpibackfill.run import RUN_VARIABLE, Run, step
from kpibackfill.tables import cachetags, kpi_fact
from kpibackfill.text import some


@dataclass(frozen=True, repr=False)
class ApplyResult:
    """How a run ended: its state, how many rows were inserted, updated and deleted, and what the page shows since."""

    state: str
    written: Written
    cache_tags: str
    run: Run
    plan: Plan
    page_after: PageAfter | None = None

    def __repr__(self) -> str:
        if self.state == "dry_run":
            return "Dry run: nothing was written."
        tags = f" Drupal's cache tags: {self.cache_tags}." if self.cache_tags else ""
        page = page_after_sentence(self.page_after, datetime.now(UTC))
        return f"Applied: {written_sentence(self.written)}{tags} {page}".rstrip()

    def _repr_html_(self) -> str:
        what, commands = "", list[str]()
        session = self.run.record is None
        if self.state == "dry_run" and self.plan.rows:
            parameters = AskedParameters(**self.run.parameters.as_notebook())
            named = self.plan.fingerprint if session else ""
            what, commands = ways_to_apply(parameters, guards(self.run.target), self.run.run_id or "RUN", named)
        return markup.render(
            "receipt",
            sentence=repr(self),
            warm_commands=warm_commands(self.page_after),
            what=what,
            session=session,
            asks=self.run.target.wants_approval,
            # Without a run on record there is nothing to approve in a terminal yet.
            commands=[] if session and self.run.target.wants_approval else commands,
        )


@step
def apply_plan(run: Run, plan: Plan) -> ApplyResult | HandedOver:
    """Write the plan if ``apply`` is ``True``; otherwise, close the dry run.

    In a session without a record (JupyterLab), a dry run only shows the plan, and an apply is handed to a papermill
    execution with the same parameters and this plan's fingerprint as ``approved_plan``. If the target requires an
    approval and none was named, the dry run is handed over instead, which leaves a record to approve.

    Parameters
    ----------
    run : what ``begin`` returned.
    plan : what ``make_plan`` returned for that run.

    Returns
    -------
    ApplyResult : `state` (``dry_run`` or ``applied``), `written` (numbers of rows, and each change), `cache_tags` and
    `page_after` (what the page shows since); or, in a session, the outcome of the papermill execution.

    Raises
    ------
    Refused : the plan is not the approved one, or a row or snapshot changed since it was read; nothing was written.
    OutcomeUnknown : the commit was not confirmed and the database can't be reached; ``kpibackfill settle`` finds out.
    """
    _check_own(run, plan)
    record = run.record
    if run.parameters.apply and plan.rows and not plan.prefix.known:
        raise Refused(
            "Nothing tells how this site's KPI ids begin; nothing was written. Set kpi_id_prefix in [site] to what the "
            'dashboard reads: "kpi_" since February 2026, "" before.',
            code="kpi_id_prefix",
        )
    if not run.parameters.apply:
        if record is not None:
            closing.close(record, "dry_run")
        return ApplyResult("dry_run", Written(), "", run, plan)
    if record is None and approval.needs_approval(run, plan):
        return hand_over(run, plan.fingerprint, apply=False)
    approved = approval.check(run, plan)
    if record is None:
        return hand_over(run, plan.fingerprint)
    if not plan.rows:
        closing.close(record, "applied", written=Written(), approval=approved)
        return ApplyResult("applied", Written(), "", run, plan)
    record.update(state="applying", approval=approved)
    tags = cache_tags(plan.rows)
    sent = Event()
    try:
        invalidated = _write_or_find_out(run, plan, tags, sent)
    except BaseException as error:
        known = isinstance(error, KpiBackfillError) and not isinstance(error, OutcomeUnknown)
        # A settlement has already sealed the record, and says that nothing was written.
        if (known or not sent.is_set()) and record.settlement is None:
            record.update(state="planned")
            closing.close_failed(record, error)
        raise
    counts = {action: sum(row.action == action for row in plan.rows) for action in ("insert", "update", "delete")}
    units = {plan.prefix.text + entry.kpi_id: entry.unit for entry in run.kpis}
    written = Written(**counts, rows=changes(plan.rows, units))
    _close(record, run, plan, written, CacheTags(outcome=invalidated, tags=tags))
    return ApplyResult("applied", written, invalidated, run, plan, record.receipt.page_after)


def _check_own(run: Run, plan: Plan) -> None:
    """Refuse a plan that is not the one `make_plan` returned for this run."""
    if plan.run is not run:
        raise Refused("This plan belongs to another run; nothing was written. Run the cells in order.", code="order")
    if plan.fingerprint != fingerprint(plan.databases, plan.rows):
        raise Refused(
            "This plan was changed by hand; nothing was written. Use a decisions file to set a value by hand.",
            code="edited_plan",
        )


def cache_tags(rows: Sequence[PlanRow]) -> tuple[str, ...]:
    """The tags under which Drupal caches series of these rows."""
    base = "makerspace_snapshot:kpi"
    return (base, *(f"{base}:{kpi_id}" for kpi_id in sorted({row.kpi_id for row in rows})))


def _write_or_find_out(run: Run, plan: Plan, tags: Sequence[str], sent: Event) -> str:
    """Write; if the commit got no answer, or an interrupt came instead, find out from the database what it did."""
    try:
        return _write(run, plan, tags, sent)
    except BaseException as error:
        if not sent.is_set():
            raise
        lost = f"The commit was not confirmed ({type(error).__name__})."
        assert run.run_id is not None
        unknown = error if isinstance(error, OutcomeUnknown) else OutcomeUnknown(lost, code="outcome_unknown")
        if settle.committed(run.target, run.site, plan.rows, run.run_id, plan.fingerprint, unknown):
            return "invalidated with the rows, if the table exists"
        raise KpiBackfillError(
            f"{unknown.message} The rows are as they were before: nothing was written. Run again.",
            code="not_committed",
        ) from None


def _close(record: RunRecord, run: Run, plan: Plan, written: Written, tags: CacheTags) -> None:
    """Put a commit on record."""
    try:
        if record.settlement is None:  # else someone settled it between the commit and here, and found the same
            record.update(state="applied", written=written, cache_tags=tags)
            ran = _after_apply(run.target)
            page = page_after(run, plan.kpi_ids, plan.prefix)
            closing.close(record, "applied", after_apply=ran, page_after=page)
    except KpiBackfillError as error:
        raise closing.off_record(record, error) from None


def _write(run: Run, plan: Plan, tags: Sequence[str], sent: Event) -> str:
    """Write in one transaction; `sent` is set when only its commit is left: an error then leaves its outcome open."""
    assert run.run_id is not None
    after = {row.key: after_image(row, run.run_id, plan.fingerprint) for row in plan.rows}
    with writing(run.target.store_url, run.site) as connection:
        fact = fact_table.layout(connection)
        tagged = fact_table.has_cachetags(connection)
        assert run.record is not None
        if run.record.settlement is not None:
            raise Refused(f"{run.run_id} was settled while it waited; nothing was written. Run again.", code="settled")
        for table in [kpi_fact, *([cachetags] if tagged else [])]:
            if not fact_table.transactional(connection, table):
                name = name_of(connection, table.name)
                raise Refused(
                    f"{name} is a view, or uses a storage engine that can't roll back; nothing was written. "
                    f"ALTER TABLE {name} ENGINE=InnoDB converts a table.",
                    code="storage_engine",
                )
        _check_unmoved(connection, fact, plan)
        _send(connection, fact, plan.rows, after)
        _check_written(connection, fact, after)
        if tagged:
            fact_table.invalidate(connection, tags)
        sent.set()
    if tagged:
        return "invalidated"
    return f"the account can't use a table {name_of(connection, cachetags.name)}: clear Drupal's caches"


def _check_unmoved(connection: Connection, fact: fact_table.Layout, plan: Plan) -> None:
    """Read the rows again under the lock: each must still be its before-image, and its snapshot must exist."""
    present = fact_table.present_snapshots(connection, {row.snapshot_id for row in plan.rows})
    current = fact_table.locked_rows(connection, fact, [row.key for row in plan.rows])
    moved = []
    for row in plan.rows:
        found = current.get(row.key)
        if row.snapshot_id not in present:
            moved.append(f"snapshot {row.snapshot_id} is gone")
        elif not is_image(found, row.before):
            moved.append(f"({row.snapshot_id}, {row.kpi_id})")
    if moved:
        rows = some(dict.fromkeys(moved), between="; ")
        raise Refused(
            f"The stored rows changed since they were read: {rows}. Nothing was written; review a new dry run.",
            code="stale",
        )


def _send(
    connection: Connection,
    fact: fact_table.Layout,
    rows: Sequence[PlanRow],
    after: Mapping[RowKey, Image | None],
) -> None:
    """Send plain statements in bulk; they must affect as many rows as the plan says."""
    inserts, deletes = [], []
    updates: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for row in rows:
        key: dict[str, Any] = {"snapshot_id": row.snapshot_id, "kpi_id": row.kpi_id}
        image = after[row.key]
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
        raise Refused("Another writer deleted rows of the plan; nothing was written. Run again.", code="stale")
    fact_table.insert(connection, inserts)


def _check_written(connection: Connection, fact: fact_table.Layout, after: Mapping[RowKey, Image | None]) -> None:
    """Read every row back: it must be what was sent."""
    current = fact_table.locked_rows(connection, fact, after)
    for (snapshot_id, kpi_id), image in after.items():
        if not is_image(current.get((snapshot_id, kpi_id)), image):
            raise KpiBackfillError(
                f"The database did not keep ({snapshot_id}, {kpi_id}) as it was sent; the transaction was rolled back "
                "and nothing was written. Look for a trigger or a narrower column.",
                code="read_back",
            )


def _after_apply(target: Target) -> AfterApply | tuple[AfterApply, ...] | None:
    """Run the site's commands; how they end never changes what was written."""
    ran = tuple(_ran(command) for command in target.after_apply)
    return ran[0] if len(ran) == 1 else ran or None


def _ran(command: Command) -> AfterApply:
    """Run a command, without a shell."""
    began = time.monotonic()
    # No pipes: what the command leaves running in the background would hold them open and be waited for.
    unheard: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    # A notebook that it executes is not part of this run.
    environment = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
    try:
        ended = subprocess.run(list(command), timeout=300, env=environment, **unheard)
        outcome = f"exit status {ended.returncode}"
    except subprocess.TimeoutExpired:
        outcome = "stopped after 300 s"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the command
        outcome = f"could not be started: {getattr(error, 'strerror', error)}"
    return AfterApply(command=command[0], outcome=outcome, seconds=round(time.monotonic() - began, 3))
