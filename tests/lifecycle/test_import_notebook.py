"""`kpibackfill archive`: a plain papermill execution's notebook is imported into its record, and no other is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import papermill
import pytest

from kpibackfill.archive.provenance import notebook_path
from kpibackfill.archive.run_record import NOTEBOOK, open_record
from kpibackfill.archive.verify import verify
from tests.archives import listed_runs
from tests.databases import ReferenceDatabases
from tests.workbench import Workbench, refusal


@pytest.fixture(scope="module")
def executed(reference_databases: ReferenceDatabases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """A folder with ``out.ipynb``, the output of a plain papermill execution of one year."""
    database = reference_databases.copy("sqlite", "composite")
    with pytest.MonkeyPatch.context() as monkeypatch:
        bench = Workbench(database, tmp_path_factory.mktemp("plain"), monkeypatch)
        monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
        papermill.execute_notebook(
            notebook_path(),
            bench.folder / "out.ipynb",
            parameters={"target": "test", "from_year": 2024, "kpis": "education_nps", "reason": "by hand"},
            progress_bar=False,
            cwd=bench.folder,
        )
        yield bench
    reference_databases.drop(database)


@pytest.fixture
def bench(executed: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A copy of that folder."""
    shutil.copytree(executed.folder / "runs", tmp_path / "runs")
    shutil.copyfile(executed.folder / "out.ipynb", tmp_path / "out.ipynb")
    return Workbench(executed.database, tmp_path, monkeypatch)


def rewrite(path: Path, **changes: Any) -> None:
    """Change parameters or times in the notebook's own account of its execution."""
    notebook = json.loads(path.read_bytes())
    notebook["metadata"]["papermill"].update(changes)
    path.write_text(json.dumps(notebook))


def test_until_its_notebook_is_imported_a_run_shows_as_not_archived(bench: Workbench) -> None:
    (run,) = listed_runs(bench.config.runs_dir)
    assert (run["state"], run["notebook"]) == ("dry_run", "not archived")
    assert "notebook not archived" in bench.command("runs").stdout
    assert not verify(bench.config.runs_dir).findings


def test_the_notebook_is_imported_into_its_run_and_sealed(bench: Workbench) -> None:
    before = (bench.folder / "out.ipynb").read_bytes()
    result = bench.command("archive", "out.ipynb")
    assert result.exit_code == 0, result.output
    (run,) = listed_runs(bench.config.runs_dir)
    assert run["notebook"] == "as shipped"
    kept = bench.config.runs_dir / run["run_id"] / NOTEBOOK
    assert kept.read_bytes() == before == (bench.folder / "out.ipynb").read_bytes()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert open_record(bench.config.runs_dir, run["run_id"]).receipt.as_json()["started_by"] == "papermill"
    verdict = verify(bench.config.runs_dir)
    assert not verdict.findings
    assert verdict.files == 6


def test_a_notebook_with_another_cell_counts_as_edited(bench: Workbench) -> None:
    notebook = json.loads((bench.folder / "out.ipynb").read_bytes())
    cell: dict[str, Any] = {
        "cell_type": "code",
        "source": "1 + 1",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    notebook["cells"].append(cell)
    (bench.folder / "out.ipynb").write_text(json.dumps(notebook))
    assert bench.command("archive", "out.ipynb").exit_code == 0
    assert listed_runs(bench.config.runs_dir)[0]["notebook"] == "edited"


def test_a_link_in_the_runs_folder_is_neither_followed_nor_sealed(bench: Workbench) -> None:
    (run,) = listed_runs(bench.config.runs_dir)
    kept = bench.config.runs_dir / run["run_id"] / NOTEBOOK
    for target in (bench.folder / "nowhere.ipynb", bench.folder / "out.ipynb"):
        kept.symlink_to(target)
        assert "another notebook in its folder" in refusal(bench.command("archive", "out.ipynb"))
        assert not (bench.folder / "nowhere.ipynb").exists()
        kept.unlink()


def test_a_notebook_left_by_an_interrupted_import_is_imported_from_where_it_is(bench: Workbench) -> None:
    (run,) = listed_runs(bench.config.runs_dir)
    kept = bench.config.runs_dir / run["run_id"] / NOTEBOOK
    (bench.folder / "out.ipynb").rename(kept)
    assert [note.problem for note in verify(bench.config.runs_dir).notes] == [
        "is not archived yet, so nothing vouches for it"
    ]
    assert bench.command("archive", str(kept)).exit_code == 0
    assert not verify(bench.config.runs_dir).notes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"parameters": {"target": "test", "apply": True, "reason": "by hand"}}, "has apply = True"),
        ({"parameters": {"target": "test"}}, "has reason = ''"),
        ({"start_time": "2020-01-01T00:00:00", "end_time": "2020-01-01T00:01:00"}, "executed at another time"),
        ({"start_time": None}, "was not executed by papermill"),
        ({"start_time": "yesterday"}, "was not executed by papermill"),
        ({"start_time": 5}, "was not executed by papermill"),
    ],
)
def test_another_executions_notebook_is_refused(bench: Workbench, changes: dict[str, Any], problem: str) -> None:
    rewrite(bench.folder / "out.ipynb", **changes)
    assert problem in refusal(bench.command("archive", "out.ipynb"))
    assert listed_runs(bench.config.runs_dir)[0]["notebook"] == "not archived"


@pytest.mark.parametrize(
    "document",
    [
        {"cells": [1]},
        {"cells": {}},
        {"cells": [{"cell_type": "code"}]},
        {"cells": [{"cell_type": "markdown", "outputs": [1]}]},
        {"cells": [{"cell_type": "markdown", "outputs": [{"metadata": {"kpibackfill": 1}}]}]},
        {"cells": [], "metadata": []},
        {"cells": [], "metadata": {"papermill": {"parameters": [1]}}},
    ],
)
def test_a_notebook_in_name_only_is_refused_in_one_line(bench: Workbench, document: dict[str, Any]) -> None:
    (bench.folder / "odd.ipynb").write_text(json.dumps(document))
    message = refusal(bench.command("archive", "odd.ipynb"))
    assert "is not a notebook" in message or "names no run" in message
    assert listed_runs(bench.config.runs_dir)[0]["notebook"] == "not archived"


def test_a_notebook_nested_without_end_is_refused_in_one_line(bench: Workbench) -> None:
    (bench.folder / "odd.ipynb").write_text("[" * 100_000)
    assert "is not a notebook" in refusal(bench.command("archive", "odd.ipynb"))


def test_a_notebook_is_imported_only_once(bench: Workbench) -> None:
    assert bench.command("archive", "out.ipynb").exit_code == 0
    assert "already has its notebook" in refusal(bench.command("archive", "out.ipynb"))


def test_what_is_not_a_notebook_of_a_run_here_is_refused(bench: Workbench) -> None:
    (bench.folder / "text.ipynb").write_text("no json")
    (bench.folder / "list.ipynb").write_text("[1]")
    assert "is not a notebook" in refusal(bench.command("archive", "text.ipynb"))
    assert "is not a notebook" in refusal(bench.command("archive", "list.ipynb"))
    assert "can't be read" in refusal(bench.command("archive", "missing.ipynb"))
    assert "names no run" in refusal(bench.command("archive", str(notebook_path())))
    shutil.rmtree(bench.config.runs_dir)
    assert "There is no run" in refusal(bench.command("archive", "out.ipynb"))
