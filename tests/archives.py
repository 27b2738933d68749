from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpibackfill.archive.provenance import notebook_path
from kpibackfill.archive.run_record import NOTEBOOK, RunRecord
from kpibackfill.lifecycle import closing
from tests.databases import ReferenceDatabases
from tests.workbench import Workbench

# Few KPIs make small figures: the record of each run is drawn.
FEW = {"kpis": "education_nps,total_new_member_signups"}


def archive_as_shipped(record: RunRecord) -> None:
    """Seal the notebook as it is shipped: what a papermill execution adds to it makes no difference here."""
    shutil.copyfile(notebook_path(), record.folder / NOTEBOOK)
    closing.archive_notebook(record)


@pytest.fixture(scope="session")
def made_archive(
    reference_databases: ReferenceDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workbench]:
    """Three runs on SQLite, once for all tests: a dry run, its apply, and a run of one year that has nothing to do."""
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
