"""The explaining notebook, run by papermill, and the command that copies the notebooks to a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner, Result

from kpibackfill.archive.provenance import notebook_path
from kpibackfill.cli import main


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_the_notebooks_are_copied_with_a_configuration_to_start_from(tmp_path: Path) -> None:
    result = command("notebooks", str(tmp_path / "new" / "kpis"))
    assert result.exit_code == 0
    assert "Next: cd " in result.stdout
    copied = {path.name for path in (tmp_path / "new" / "kpis").iterdir()}
    assert copied == {path.name for path in notebook_path().parent.glob("*.ipynb")} | {"kpibackfill.toml"}
    listed = subprocess.run(
        [sys.executable, "-m", "kpibackfill", "kpis", "--json"],
        cwd=tmp_path / "new" / "kpis", capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(listed.stdout)


def test_existing_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kpi_explain.ipynb").write_text("mine", "utf-8")
    (tmp_path / "kpibackfill.toml").write_text("also mine", "utf-8")
    document = json.loads(command("notebooks", str(tmp_path), "--json").stdout)
    assert document["kept"] == ["kpi_explain.ipynb", "kpibackfill.toml"]
    assert "kpi_backfill.ipynb" in document["written"]
    assert (tmp_path / "kpi_explain.ipynb").read_text("utf-8") == "mine"
    assert (tmp_path / "kpibackfill.toml").read_text("utf-8") == "also mine"
    assert "Kept " in command("notebooks", str(tmp_path)).stdout


def test_a_folder_that_cannot_be_made_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    result = command("notebooks", str(tmp_path / "file" / "below"))
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) <= 2


@pytest.mark.slow
def test_the_notebook_explains_under_papermill_and_leaves_no_record(tmp_path: Path) -> None:
    command("notebooks", str(tmp_path))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KPIBACKFILL", "JPY"))}
    papermill = [sys.executable, "-m", "papermill", "kpi_explain.ipynb", "out.ipynb"]
    parameters = ["-p", "kpi", "education_nps", "-p", "year", "2021"]
    subprocess.run([*papermill, *parameters], cwd=tmp_path, env=environment, check=True, capture_output=True)
    cells = [cell for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells if cell.cell_type == "code"]
    kinds = [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in cells]
    assert sum("image/png" in found for found in kinds) == 3
    assert sum("text/html" in found for found in kinds) == 2
    assert not (tmp_path / "runs").exists()
    assert len(nbformat.read(tmp_path / "kpi_explain.ipynb", 4).cells) <= 10
