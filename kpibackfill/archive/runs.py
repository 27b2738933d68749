"""What the archive tells of its runs, read from the ledger; a receipt is opened only where the ledger says too little.

Nothing here asks a database, and nothing is ever written or deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpibackfill.archive import ledger
from kpibackfill.archive.run_record import SUMS, RunRecord, open_record, receipt_of
from kpibackfill.archive.vouching import altered
from kpibackfill.errors import Refused
from kpibackfill.text import some

if TYPE_CHECKING:
    from kpibackfill.config import Config

UNSETTLED = "unsettled"
STATES = ("planned", "dry_run", "applied", "refused", "failed", UNSETTLED)
NOT_ARCHIVED = "not archived"


def runs(
    runs_dir: Path,
    *,
    target: str | None = None,
    year: int | None = None,
    kpi: str | None = None,
    state: str | None = None,
) -> list[dict[str, Any]]:
    """A dict per run, the oldest first; of one target, year, KPI or state where these are given.

    Each has `run_id`, `target`, `years` (first and last), `apply`, `state`, `settled` (whether a person's `settle`
    found the state), `started_at`, `ended_at` (ISO instants in UTC), `operator`, `reason`, `revert_of`, `kpis`,
    `planned` and `written` (numbers of rows), `fingerprint` (of the plan), `notebook` (``as shipped``, ``edited`` or
    ``not archived``), `cells` (SHA-256 of the executed cells' sources), `approvals` (each with `by`, `at`, `note`).

    A `state` is the receipt's; a run that was cut off while it was writing is ``unsettled``.

    Raises
    ------
    Refused : there is no such state.
    """
    found = read_runs(ledger.entries(runs_dir), runs_dir)
    states = {*STATES, *(run["state"] for run in found.values())}
    if state is not None and state not in states:
        raise Refused(f"There is no state {state!r}; there are: {', '.join(sorted(states))}.", code="state")
    return [
        run
        for run in found.values()
        if target in (None, run["target"])
        and (year is None or run["years"][0] <= year <= run["years"][-1])
        and (kpi is None or kpi in run["kpis"])
        and state in (None, run["state"])
    ]


def refuse_unknown_target(config: Config, target: str | None) -> None:
    """Refuse a name that neither the configuration nor any run knows: its empty list would be taken for an answer."""
    if target is None or target in config.targets:
        return
    recorded = {entry["target"] for entry in ledger.entries(config.runs_dir) if entry["event"] == "begun"}
    if target not in recorded:
        raise Refused(
            f"There is no target {target!r} in {config.path.name} or on record; "
            f"there are: {', '.join(sorted({*config.targets, *recorded}))}.",
            code="unknown_target",
        )


def read_runs(entries: Iterable[dict[str, Any]], runs_dir: Path) -> dict[str, dict[str, Any]]:
    """The runs by id, gathered from the events of the ledger."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry["event"] == "begun":
            found.setdefault(entry["run_id"], _begun(entry))
            continue
        run = found.get(entry["run_id"])
        if run is None:
            continue  # its first line is gone, which `verify` tells
        if entry["event"] in ("closed", "settled"):
            plan = entry.get("plan") or {}
            run |= {
                "state": entry["state"] if entry["event"] == "closed" else entry["outcome"],
                "settled": entry["event"] == "settled",
                "ended_at": entry["at"],
                "kpis": entry["kpis"],
                "planned": plan.get("rows", 0),
                "fingerprint": plan.get("fingerprint"),
                "written": len(entry["changes"]),
            }
        elif entry["event"] == "archived":
            run |= {"notebook": entry["notebook"], "cells": entry["cells"]}
        elif entry["event"] == "approved":
            run["approvals"].append({"by": entry.get("by"), "at": entry["at"], "note": entry.get("note", "")})
    for run in found.values():
        if run["state"] is None:
            run |= _cut_off(runs_dir / run["run_id"])
    return found


def resolve_run(runs_dir: Path, text: str) -> str:
    """The whole id of a run that is named by ``latest``, or by the beginning or the end of its id. For reading only.

    Raises
    ------
    Refused : no run is meant, or more than one.
    """
    ids: list[str] = list(
        dict.fromkeys(entry["run_id"] for entry in ledger.entries(runs_dir) if entry["event"] == "begun")
    )
    if text == "latest" and ids:
        return ids[-1]
    found = [text] if text in ids else [run_id for run_id in ids if text and run_id.startswith(text)]
    found = found or [run_id for run_id in ids if text and run_id.endswith(text)]
    if not found:
        raise Refused(f"There is no run {text!r} in {runs_dir}; `kpibackfill runs` lists them.", code="unknown_run")
    if len(found) > 1:
        raise Refused(
            f"{text!r} may be {len(found)} runs: {some(found, 3)}. Give more of the id.", code="ambiguous_run"
        )
    return found[0]


def show(runs_dir: Path, run_id: str) -> dict[str, Any]:
    """All that is on record of one run: the dict of `runs`, and what its files and events say.

    It has besides: `altered` (which of its files is not as it was archived, in words; empty where none is), `receipt`
    (the whole ``receipt.json``), `settlement` (``settlement.json``, or ``None``), `files`
    (SHA-256 by name, as the ledger has them), `events` (the ledger's lines of the run, in order), `folder`.

    Raises
    ------
    Refused : there is no such run.
    """
    events = [entry for entry in ledger.entries(runs_dir) if entry["run_id"] == run_id]
    record = open_record(runs_dir, run_id)
    run = read_runs(events, runs_dir).get(run_id)
    if run is None:
        raise Refused(f"The ledger has no beginning of {run_id}; `kpibackfill verify` says more.", code="unknown_run")
    added: dict[str, str] = {}
    for entry in events:
        added |= entry.get("files", {})
    return {
        **run,
        "folder": str(record.folder),
        "altered": _altered(record) if record.sealed else "",
        "receipt": record.receipt,
        "settlement": record.settlement,
        "files": {name: digest for name, digest in sorted(added.items()) if name != SUMS},
        "events": events,
    }


def _altered(record: RunRecord) -> str:
    problem = altered(record)
    return f"{problem}: what is told here may not be so. `kpibackfill verify` says more." if problem else ""


def _begun(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_id": entry["run_id"],
        "target": entry["target"],
        "years": entry["years"],
        "apply": entry["apply"],
        "state": None,
        "settled": False,
        "started_at": entry["at"],
        "ended_at": None,
        "operator": entry["operator"],
        "reason": entry["reason"],
        "revert_of": entry.get("revert_of", ""),
        "kpis": [],
        "planned": 0,
        "written": 0,
        "fingerprint": None,
        "notebook": NOT_ARCHIVED,
        "cells": None,
        "approvals": [],
    }


def _cut_off(folder: Path) -> dict[str, Any]:
    """What the receipt says of a run that the ledger does not know the end of."""
    receipt = receipt_of(folder)
    plan = receipt.get("plan") or {}
    state = receipt.get("state", "unknown")
    return {
        "state": UNSETTLED if state == "applying" else state,
        "kpis": [entry["kpi_id"] for entry in receipt.get("kpis", [])],
        "planned": plan.get("rows", 0),
        "fingerprint": plan.get("fingerprint"),
        "written": len(receipt.get("written", {}).get("rows", [])) if state == "applied" else 0,
    }
