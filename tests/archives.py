from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kpibackfill.archive import history, ledger
from kpibackfill.archive.models import Approved
from kpibackfill.archive.provenance import notebook_path
from kpibackfill.archive.run_record import NOTEBOOK, RunRecord, is_run_id
from kpibackfill.archive.runs import list_runs
from kpibackfill.lifecycle import closing
from tests.databases import ReferenceDatabases
from tests.workbench import Workbench

# Few KPIs make small figures, and each run draws some for its record.
FEW = {"kpis": "education_nps,total_new_member_signups"}


def listed_runs(runs_dir: Path, **wanted: Any) -> list[dict[str, Any]]:
    """The runs as ``runs --json`` prints them."""
    return [run.as_json() for run in list_runs(runs_dir, **wanted)]


def recorded_changes(runs_dir: Path) -> list[dict[str, Any]]:
    """The changes as ``history --json`` prints them."""
    return [change.as_json() for change in history.changes(runs_dir)]


def ledger_entries(runs_dir: Path) -> list[dict[str, Any]]:
    return [event.as_json() for event in ledger.events(runs_dir)]


def approved(run_id: str, by: str = "somebody", note: str = "", plan: str = "0" * 64) -> Approved:
    """An event for a ledger; the id of its run may be a short name."""
    if not is_run_id(run_id):
        run_id = f"20260101T000000Z-{run_id}-{hashlib.sha256(run_id.encode()).hexdigest()[:6]}"
    return Approved(run_id=run_id, by=by, note=note, plan=plan)


def archive_as_shipped(record: RunRecord) -> None:
    """Seal the notebook as shipped: what a papermill execution adds to it makes no difference here."""
    shutil.copyfile(notebook_path(), record.folder / NOTEBOOK)
    closing.archive_notebook(record)


@pytest.fixture(scope="session")
def made_archive(
    reference_databases: ReferenceDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workbench]:
    """Three runs on SQLite, once for all tests: a dry run, its apply, and a run of one year with nothing to do."""
    database = reference_databases.copy("sqlite", "composite")
    with pytest.MonkeyPatch.context() as monkeypatch:
        bench = Workbench(database, tmp_path_factory.mktemp("archive"), monkeypatch)
        first = bench.finish(**FEW)
        archive_as_shipped(RunRecord(bench.config.runs_dir, first["run_id"]))
        second = bench.finish(**FEW, apply=True, approved_plan=first["run_id"], reason="the yearly backfill")
        archive_as_shipped(RunRecord(bench.config.runs_dir, second["run_id"]))
        bench.finish(**FEW, from_year=2019, to_year=2019)
    yield bench
    reference_databases.drop(database)


@pytest.fixture
def runs_dir(made_archive: Workbench, tmp_path: Path) -> Path:
    """A copy of the archive, for a test to do with as it likes."""
    copy = tmp_path / "runs"
    shutil.copytree(made_archive.folder / "runs", copy)
    return copy
