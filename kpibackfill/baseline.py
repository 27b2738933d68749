"""The baseline of a drift: what the archive last recorded for a row, and what people decided about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kpibackfill.archive import ledger
from kpibackfill.archive.history import last_recorded
from kpibackfill.archive.models import Begun, Closed, Decision, End
from kpibackfill.database.engine import names_of
from kpibackfill.database.image import RowKey
from kpibackfill.run import Run
from kpibackfill.text import count

if TYPE_CHECKING:
    import numpy as np


_PAST = {"reject": "rejected", "set": "set by hand", "remove": "removed"}


def columns(
    run: Run,
    prefix: str,
    keys: Sequence[RowKey],
    computed_f4: np.ndarray[Any, Any],
    stored_f4: np.ndarray[Any, Any],
    has_row: Any,
) -> dict[str, Any]:
    """`recorded`, `moved` and `decided` for the rows of a drift, as ``compare`` documents them.

    Parameters
    ----------
    prefix : how the stored ids begin.
    keys : snapshot id and the registry's KPI id of each row.
    computed_f4, stored_f4 : float32, NaN for none; `has_row` : bool, whether a row is stored.
    """
    import numpy as np

    last = last_recorded(run.config.runs_dir, *names_of(run.config, run.target))
    decided = last_decided(run)
    found = [last.get((snapshot_id, prefix + kpi_id)) for snapshot_id, kpi_id in keys]
    known = np.array([change is not None for change in found], dtype=bool)
    kept = np.array([change is not None and change.after is not None for change in found], dtype=bool)
    # A value that was set by hand or restored by a revert never came from the sources.
    from_source = np.array([change is not None and change.origin == "computed" for change in found], dtype=bool)
    values = [np.nan if change is None or change.after is None else change.after for change in found]
    recorded = np.array(values, dtype="float64")
    recorded_f4 = recorded.astype("float32")
    source = kept & from_source & ~_equal(computed_f4, recorded_f4)
    store = has_row & known & ~(kept & _equal(stored_f4, recorded_f4))
    moved = np.select(
        [kept & ~has_row, source & store, source, store], ["vanished", "both", "source", "store"], default=""
    ).astype(object)
    return {"recorded": recorded, "moved": moved, "decided": [decided.get(key, "") for key in keys]}


def recorded_snapshots(run: Run, prefix: str) -> Counter[int]:
    """How many rows with a value the archive last recorded for each snapshot, for the run's years and KPIs."""
    years = range(run.parameters.from_year, run.parameters.to_year + 1)
    kpi_ids = {prefix + entry.kpi_id for entry in run.kpis}
    return Counter(
        change.snapshot_id
        for change in last_recorded(run.config.runs_dir, *names_of(run.config, run.target)).values()
        if change.after is not None and change.year in years and change.kpi_id in kpi_ids
    )


def gone_sentence(rows: int) -> str:
    """About recorded rows whose snapshots no longer exist; empty where there are none."""
    if not rows:
        return ""
    belong = "belongs" if rows == 1 else "belong"
    return (
        f"{count(rows, 'row')} recorded for these years and KPIs {belong} to snapshots that no longer exist, as when "
        "snapshots are rebuilt with new ids."
    )


def last_decided(run: Run) -> dict[RowKey, str]:
    """A sentence on each row that a person last rejected, set or removed in any finished run, by snapshot and KPI."""
    names = names_of(run.config, run.target)
    targets: dict[str, str] = {}
    found: dict[RowKey, str] = {}
    for event in ledger.events(run.config.runs_dir):
        if isinstance(event, Begun):
            targets[event.run_id] = event.target
        elif isinstance(event, End) and targets.get(event.run_id) in names:
            dry_run = isinstance(event, Closed) and event.state == "dry_run"
            for decision in event.decisions:
                if event.applied or (decision.decision == "reject" and dry_run):
                    found[decision.snapshot_id, decision.kpi_id] = _sentence(decision, event.at)
    return {key: sentence for key, sentence in found.items() if sentence}


def _equal(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> Any:
    return (one == other) | ((one != one) & (other != other))


def _sentence(decision: Decision, at: str) -> str:
    past = _PAST.get(decision.decision)
    by = f" by {decision.reviewer}" if decision.reviewer else ""
    why = f": {decision.reason}" if decision.reason else ""
    return f"{past} on {at[:10]}{by}{why}" if past else ""
