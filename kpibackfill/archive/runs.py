"""The runs of an archive, read from the ledger; a receipt is opened only where the ledger is not enough.

Nothing here queries a database, and nothing is ever written or deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kpibackfill.archive import ledger
from kpibackfill.archive.models import (
    Approved,
    Archived,
    Begun,
    Closed,
    End,
    Event,
    PlanSummary,
    Receipt,
    Record,
    Settlement,
)
from kpibackfill.archive.run_record import SUMS, open_record, receipt_of
from kpibackfill.config import Config
from kpibackfill.errors import Refused
from kpibackfill.text import some

UNSETTLED = "unsettled"
STATES = ("planned", "dry_run", "applied", "refused", "failed", UNSETTLED)
NOT_ARCHIVED = "not archived"
# What a summary has from the run's first line.
_BEGUN = ("run_id", "target", "years", "apply", "operator", "reason", "revert_of")


class ApprovalNote(Record):
    by: str
    at: str
    note: str


class RunSummary(Record):
    """A run as the ledger has it: the first and last of its years, its plan's fingerprint, the SHA-256 of its cells."""

    run_id: str
    target: str
    years: tuple[int, int]
    apply: bool
    state: str
    """The receipt's; a run that was cut off while it was writing is ``unsettled``."""
    settled: bool = False
    """Whether the state comes from ``settle``."""
    started_at: str
    ended_at: str | None = None
    operator: str
    reason: str
    revert_of: str
    kpis: tuple[str, ...] = ()
    planned: int = 0
    """Number of rows, like `written`."""
    written: int = 0
    fingerprint: str | None = None
    notebook: str = NOT_ARCHIVED
    cells: str | None = None
    approvals: tuple[ApprovalNote, ...] = ()


class RunDetails(RunSummary):
    """Everything on record about one run: also the SHA-256 of its files and its lines, as in the ledger."""

    folder: str
    altered: str
    """Which of its files differs from the ledger, in words; empty if none does."""
    receipt: Receipt
    settlement: Settlement | None
    files: dict[str, str]
    events: tuple[Event, ...]

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | {"receipt": self.receipt.as_json()}


def list_runs(
    runs_dir: Path,
    *,
    target: str | None = None,
    year: int | None = None,
    kpi: str | None = None,
    state: str | None = None,
) -> list[RunSummary]:
    """The runs, oldest first, filtered by target, year, KPI or state.

    Raises
    ------
    Refused : there is no such state.
    """
    found = read_runs(ledger.events(runs_dir), runs_dir)
    states = {*STATES, *(run.state for run in found.values())}
    if state is not None and state not in states:
        raise Refused(f"There is no state {state!r}; the states are: {', '.join(sorted(states))}.", code="state")
    return [
        run
        for run in found.values()
        if target in (None, run.target)
        and (year is None or run.years[0] <= year <= run.years[-1])
        and (kpi is None or kpi in run.kpis)
        and state in (None, run.state)
    ]


def refuse_unknown_target(config: Config, target: str | None) -> None:
    """Refuse a target that neither the configuration nor any run has: an empty list would look like an answer."""
    if target is None or target in config.targets:
        return
    recorded = {event.target for event in ledger.events(config.runs_dir) if isinstance(event, Begun)}
    if target not in recorded:
        raise Refused(
            f"There is no target {target!r} in {config.path.name} or on record; "
            f"the targets are: {', '.join(sorted({*config.targets, *recorded}))}.",
            code="unknown_target",
        )


def read_runs(events: Iterable[Event], runs_dir: Path) -> dict[str, RunSummary]:
    """The runs by id, gathered from the events of the ledger."""
    by_run: dict[str, list[Event]] = {}
    for event in events:
        # Nothing is known about a run whose first line is gone; `verify` reports that.
        if isinstance(event, Begun) or event.run_id in by_run:
            by_run.setdefault(event.run_id, []).append(event)
    return {run_id: _summary(events, runs_dir / run_id) for run_id, events in by_run.items()}


def _summary(events: list[Event], folder: Path) -> RunSummary:
    begun = events[0]
    assert isinstance(begun, Begun)
    members: dict[str, Any] = {}
    for event in events:
        if isinstance(event, End):
            members |= _found(event.plan, event.kpis, len(event.changes)) | {
                "state": event.state if isinstance(event, Closed) else event.outcome,
                "settled": not isinstance(event, Closed),
                "ended_at": event.at,
            }
        elif isinstance(event, Archived):
            members |= {"notebook": event.notebook, "cells": event.cells}
    if "state" not in members:
        members |= _cut_off(folder)
    return RunSummary(
        **{name: getattr(begun, name) for name in _BEGUN},
        started_at=begun.at,
        approvals=tuple(
            ApprovalNote(by=event.by, at=event.at, note=event.note) for event in events if isinstance(event, Approved)
        ),
        **members,
    )


def _cut_off(folder: Path) -> dict[str, Any]:
    """What the receipt says about a run whose end is not in the ledger."""
    receipt = receipt_of(folder)
    if receipt is None:
        return {"state": "unknown"}
    written = len(receipt.written.rows) if receipt.state == "applied" else 0
    state = UNSETTLED if receipt.state == "applying" else receipt.state
    return {"state": state, **_found(receipt.plan, tuple(entry.kpi_id for entry in receipt.kpis), written)}


def _found(plan: PlanSummary | None, kpis: tuple[str, ...], written: int) -> dict[str, Any]:
    planned = {"planned": plan.rows, "fingerprint": plan.fingerprint} if plan else {}
    return {"kpis": kpis, "written": written, **planned}


def resolve_run(runs_dir: Path, text: str) -> str:
    """The full id of a run named by ``latest`` or by the beginning or end of its id; for reading only.

    Raises
    ------
    Refused : the name fits no run, or several.
    """
    ids = list(dict.fromkeys(event.run_id for event in ledger.events(runs_dir) if isinstance(event, Begun)))
    if text == "latest" and ids:
        return ids[-1]
    found = [text] if text in ids else [run_id for run_id in ids if text and run_id.startswith(text)]
    found = found or [run_id for run_id in ids if text and run_id.endswith(text)]
    if not found:
        raise Refused(f"There is no run {text!r} in {runs_dir}; `kpibackfill runs` lists them.", code="unknown_run")
    if len(found) > 1:
        raise Refused(
            f"{text!r} matches {len(found)} runs: {some(found, 3)}. Give more of the id.", code="ambiguous_run"
        )
    return found[0]


def show_run(runs_dir: Path, run_id: str) -> RunDetails:
    """Everything on record about one run.

    Raises
    ------
    Refused : there is no such run.
    """
    record = open_record(runs_dir, run_id)
    events = record.events()
    run = read_runs(events, runs_dir).get(run_id)
    if run is None:
        raise Refused(
            f"The ledger has no first line for {run_id}. Run `kpibackfill verify` for details.", code="unknown_run"
        )
    added = {name: digest for event in events for name, digest in event.files.items()}
    problem = record.altered if record.sealed else ""
    return RunDetails(
        **dict(run),
        folder=str(record.folder),
        altered=f"{problem}: what is shown here may be wrong. Run `kpibackfill verify` for details." if problem else "",
        receipt=record.receipt,
        settlement=record.settlement,
        files={name: digest for name, digest in sorted(added.items()) if name != SUMS},
        events=tuple(events),
    )
