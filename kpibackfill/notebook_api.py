"""The archive in a notebook: what the commands print, as DataFrames, and what reviewers add to the record.

Functions that only read accept ``latest`` and shortened run ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from kpibackfill import approval
from kpibackfill.archive import history as value_history
from kpibackfill.archive import runs as runs_on_record
from kpibackfill.archive import verify as integrity
from kpibackfill.archive.diff import RunDifference, compare_runs
from kpibackfill.archive.reconcile import reconcile
from kpibackfill.archive.verify import Verdict
from kpibackfill.config import load_config
from kpibackfill.execution import replay as replaying
from kpibackfill.execution.replay import Replay
from kpibackfill.kpis import registry
from kpibackfill.lifecycle import settle as settling
from kpibackfill.numbers import FEW, too_few
from kpibackfill.reporting.run_summary import show_text


@dataclass(frozen=True, repr=False)
class Shown:
    """A run on record: `values` as ``kpibackfill show --json`` prints them, and the text for people."""

    values: Mapping[str, Any]
    text: str

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __repr__(self) -> str:
        return self.text


def runs(
    target: str | None = None, year: int | None = None, kpi: str | None = None, state: str | None = None
) -> pd.DataFrame:
    """List the runs on record, oldest first, optionally only those of one target, year, KPI or state.

    Parameters
    ----------
    target, year, kpi : a target's name, a year that the run covers, the id of a KPI that it computed.
    state : ``applied``, ``dry_run``, ``refused``, ``failed``, ``planned`` or ``unsettled``.

    Returns
    -------
    DataFrame, one row per run: `run_id`, `target`, `from_year`, `to_year` (int), `apply` (bool), `state`, `settled`
    (bool), `started_at`, `ended_at` (UTC; missing until it ends), `operator`, `reason`, `revert_of`, `kpis`
    (list), `planned`, `written` (numbers of rows), `fingerprint`, `notebook` (``as shipped``, ``edited`` or ``not
    archived``), `cells` (SHA-256), `approvals` (list).

    Raises
    ------
    Refused : there is no such state, or neither the configuration nor any run names that target.
    """
    config = load_config()
    runs_on_record.refuse_unknown_target(config, target)
    found = runs_on_record.list_runs(config.runs_dir, target=target, year=year, kpi=kpi, state=state)
    names = ["run_id", "target", "from_year", "to_year", "apply", "state", "settled", "started_at", "ended_at"]
    names += ["operator", "reason", "revert_of", "kpis", "planned", "written", "fingerprint", "notebook", "cells"]
    rows = [{**run.as_json(), "from_year": run.years[0], "to_year": run.years[-1]} for run in found]
    frame = pd.DataFrame(rows, columns=[*names, "approvals"])
    for name in ("started_at", "ended_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    return frame


def show(run: str) -> Shown:
    """Show everything on record about one run; as the last expression of a cell, its results as text.

    Parameters
    ----------
    run : its id, the beginning or end of one, or ``latest``.

    Returns
    -------
    Shown : indexed by the names that ``kpibackfill show --json`` prints.

    Raises
    ------
    Refused : no run matches, or several do.

    Example: ``kb.show("latest")``
    """
    runs_dir = load_config().runs_dir
    details = runs_on_record.show_run(runs_dir, runs_on_record.resolve_run(runs_dir, run))
    return Shown(details.as_json(), show_text(details, value_history.changes(runs_dir, run_id=details.run_id)))


def diff(one: str, other: str) -> pd.DataFrame:
    """List what differs between two runs.

    Parameters
    ----------
    one, other : their ids, the beginnings or ends of them, or ``latest``.

    Returns
    -------
    DataFrame, one row per difference: `about` (``computed``, ``stored``, ``status``, ``parameter``, ``setting``,
    ``database``, ``package``, ``code`` or ``KPI``), `name` (for a row: year, snapshot and KPI), `one`, `other` (the two
    values; "< 5" for a rate based on too few people), `why` (for a computed value).

    Raises
    ------
    Refused : no run matches, several do, or a receipt was altered since it was archived.
    """
    rows = list(_differences(compare_runs(load_config().runs_dir, one, other)))
    return pd.DataFrame(rows, columns=["about", "name", "one", "other", "why"], dtype=object)


def history(
    kpi: str | None = None, target: str | None = None, year: int | None = None, snapshot_id: int | None = None
) -> pd.DataFrame:
    """List every value ever written to a row, optionally only for one KPI, target, year or snapshot.

    Parameters
    ----------
    kpi : the KPI's id in the registry, or as it is stored.
    target, year, snapshot_id : the row's target, year and snapshot.

    Returns
    -------
    DataFrame, one row per value written, oldest first: `when` (UTC), `run_id`, `target`, `snapshot_id`, `kpi_id` (as
    stored), `year`, `action` (``insert``, ``update``, ``delete``), `before`, `value` (float: a count, points, or a rate
    as a fraction; missing if there was no row), `basis_before`, `basis` (Int64: how many observations each is based on,
    missing if unknown), `origin` (``computed``, ``set``, ``remove`` or ``revert``), `reverts` (a run id), `reviewer`,
    `decision_reason` (of the decision on that row; empty without one), `reason`, `operator` (of the run).
    ``attrs["kpis"]`` holds each KPI's `label` and `unit` (``None`` if it has none).

    Raises
    ------
    Refused : neither the configuration nor any run names that target.
    """
    config = load_config()
    found = value_history.select(config, target=target, year=year, kpi=kpi, snapshot_id=snapshot_id)
    names = ["when", "run_id", "target", "snapshot_id", "kpi_id", "year", "action", "before", "value", "basis_before"]
    names += ["basis", "origin", "reverts", "reviewer", "decision_reason", "reason", "operator"]
    rows = [{**asdict(change), "when": change.at, "value": change.after} for change in found]
    frame = pd.DataFrame(rows, columns=names).astype(
        {"before": "float64", "value": "float64", "basis_before": "Int64", "basis": "Int64"}
        | dict.fromkeys(("snapshot_id", "year"), "int64")
    )
    frame["when"] = pd.to_datetime(frame["when"], utc=True)
    kpis = registry.load(config.site.kpi_modules)
    labels = {name: entry.label for kpi_id, entry in kpis.items() for name in config.site.spellings(kpi_id)}
    frame.attrs["kpis"] = {
        change.kpi_id: {"label": labels.get(change.kpi_id, change.kpi_id), "unit": change.unit} for change in found
    }
    return frame


def verify(head: str = "", target: str | None = None) -> Verdict:
    """Check the archive against its ledger and, given a `target`, its rows against the archive and its page.

    Parameters
    ----------
    head : a head digest noted earlier: check that the ledger still contains it.
    target : a target of ``kpibackfill.toml``; its dashboard may show other numbers than the rows until it expires.

    Returns
    -------
    Verdict : `findings` (none if nothing has changed), `notes`, and the `head` to keep somewhere else.

    Raises
    ------
    KpiBackfillError : `head` is not a digest, there are no runs yet, or there is no such target or it can't be read.
    """
    config = load_config()
    return integrity.verify(config.runs_dir, head) if target is None else reconcile(config, target, head)


def approve(run: str, note: str, by: str = "") -> dict[str, Any]:
    """Record that you reviewed a dry run and approve its plan.

    Parameters
    ----------
    run : the dry run's full id.
    note : why, in one sentence.
    by : who approves; by default the system user.

    Returns
    -------
    dict : `run_id`, `by`, `note`, `plan` (its fingerprint), `system_user`, `rows` (how many are planned).

    Raises
    ------
    Refused : it is not a finished dry run, its plan is empty, its files were altered, or `by` was its operator and the
        target requires four eyes; nothing was changed.
    """
    return approval.approve(load_config(), run, note=note, by=by)


def settle(run: str) -> dict[str, Any]:
    """Find out whether a run that was interrupted while writing did write, and record the answer.

    Parameters
    ----------
    run : its full id.

    Returns
    -------
    The settlement: `run_id`, `outcome` (``applied``, ``not_in_effect`` or ``changed_since``), `settled_at`, `by`, and
    `rows`, each with what was `found` (``written``, ``as_before`` or ``changed_since``). For a run that had ended but
    lacked its last line in the ledger: `run_id`, its state as `outcome`, and no `rows`.

    Raises
    ------
    Refused : the run is still running, or its outcome is already known; nothing was changed.
    KpiBackfillError : the database can't be reached now; nothing was changed.
    """
    return settling.as_json(run, settling.settle(load_config(), run))


def replay(run: str) -> Replay:
    """Re-run a past run with its parameters, as of its own instant, as a dry run; then compare every digit.

    Parameters
    ----------
    run : its full id.

    Returns
    -------
    Replay : its text says whether the numbers are the same; ``frame()`` has the rows that differ: `snapshot_id`,
    `kpi_id`, `year`, `then`, `now` (float; missing for none), `why`.

    Raises
    ------
    Refused : there is no such run, it computed nothing, or its files were altered.
    """
    return replaying.replay(load_config(), run)


def _differences(found: RunDifference) -> Iterator[tuple[object, ...]]:
    for row in found.rows:
        name = f"{row.year}, snapshot {row.snapshot_id}, {row.kpi_id}"
        few = any(too_few(found.units.get(row.kpi_id), basis) for basis in row.basis)
        for about, pair in (("computed", row.computed), ("stored", row.stored)):
            if pair[0] != pair[1]:
                shown = [FEW if few and value is not None else value for value in pair]
                yield about, name, *shown, row.why if about == "computed" else ""
        if row.status[0] != row.status[1]:
            yield "status", name, *row.status, ""
    for about in ("parameter", "setting", "database", "package"):
        yield from ((about, name, *pair, "") for name, pair in getattr(found, f"{about}s").items())
    if not found.code.same:
        yield "code", "git_commit", *found.code.git_commit, ""
        yield "code", "sources_sha256", *found.code.sources_sha256, ""
    for kpi_id, kpi in found.kpis.items():
        other = [name for name in ("definition", "sql", "bound_values", "result") if getattr(kpi, name) == "other"]
        yield from (("KPI", f"{kpi_id}: {name.replace('_', ' ')}", "–", "other", "") for name in other)
