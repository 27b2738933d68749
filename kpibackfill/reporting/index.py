"""``runs/index.html``: every run and every row's history, for people with nothing but a browser.

It is made from the ledger after each run and is not evidence: the ledger does not cover it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kpibackfill.archive import files, ledger
from kpibackfill.archive.history import RecordedChange, changes_of, origin_of, published_change
from kpibackfill.archive.run_record import INDEX
from kpibackfill.archive.runs import RunSummary, read_runs
from kpibackfill.reporting.markup import page
from kpibackfill.reporting.sentences import state_words


def write(runs_dir: Path) -> None:
    """Make the page again; where that fails the old one stays, since nothing depends on it."""
    path = runs_dir / ledger.FILE_NAME
    with suppress(Exception):
        size = -1
        # A run that ended while the page was made belongs on it.
        while size != path.stat().st_size:
            size = path.stat().st_size
            files.write(runs_dir / INDEX, render(runs_dir))


def render(runs_dir: Path) -> str:
    events = list(ledger.events(runs_dir))
    found = read_runs(events, runs_dir)
    changes = changes_of(events, runs_dir)
    return page("index.html", data=_data(found, changes))


def _data(found: Mapping[str, RunSummary], changes: Sequence[RecordedChange]) -> dict[str, Any]:
    """Lists rather than objects, and runs by their index, since there may be tens of thousands of rows."""
    place = {run_id: number for number, run_id in enumerate(found)}
    return {
        "runs": [
            [
                run.run_id,
                run.started_at[:16].replace("T", "\u00a0"),
                run.target,
                "–".join(dict.fromkeys(map(str, run.years))),
                state_words(run.state, run.settled),
                run.planned,
                run.written,
                run.operator,
                run.reason,
                run.notebook,
                ", ".join(approval.by for approval in run.approvals),
                run.revert_of,
            ]
            for run in found.values()
        ],
        "history": [
            [
                place[change.run_id],
                change.year,
                change.snapshot_id,
                change.kpi_id,
                change.action,
                *published_change(change),
                origin_of(change),
            ]
            for change in changes
            if change.run_id in place
        ],
    }
