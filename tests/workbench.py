"""A run's steps in this process, on a test's own database: with a record as the command line opens one, or without."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

import kpibackfill as kb
from kpibackfill.cli import main
from kpibackfill.compute import Readings
from kpibackfill.config import Config, load_config
from kpibackfill.planning.plan import Plan
from kpibackfill.run import RUN_VARIABLE, Run, prepare, recorded
from tests.databases import Database, write_config

YEARS: dict[str, Any] = {"from_year": 2015, "to_year": 2025, "as_of": "2026-11-22T12:00:00"}


@dataclass(frozen=True)
class Steps:
    run: Run
    readings: Readings
    drift: pd.DataFrame
    plan: Plan


class Workbench:
    """A configuration whose target ``test`` is the database, in a folder of its own."""

    def __init__(self, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database, self.folder, self._monkeypatch = database, folder, monkeypatch
        monkeypatch.delenv(RUN_VARIABLE, raising=False)
        monkeypatch.chdir(folder)
        self.configure()

    def configure(self, **settings: Any) -> Config:
        """Rewrite the configuration: keys of the target, and `site`."""
        path = write_config(self.folder, self.database, **settings)
        self._monkeypatch.setenv("KPIBACKFILL_CONFIG", str(path))
        return self.config

    @property
    def config(self) -> Config:
        return load_config(self.folder / "kpibackfill.toml")

    @property
    def runs(self) -> list[Path]:
        """The folders of the runs on record, oldest first."""
        found = self.config.runs_dir.glob("2*") if self.config.runs_dir.is_dir() else []
        return sorted(found, key=lambda path: (path / "receipt.json").stat().st_mtime_ns)

    def begin(self, *, record: bool = False, **parameters: Any) -> Run:
        values = {"target": "test", **YEARS, **parameters}
        run: Run
        if not record:
            run = kb.begin(**values)
            return run
        begun = recorded(prepare(values), "kpibackfill run")
        assert begun.run_id is not None
        self._monkeypatch.setenv(RUN_VARIABLE, begun.run_id)
        try:
            run = kb.begin(**begun.parameters.as_notebook())
        finally:
            self._monkeypatch.delenv(RUN_VARIABLE)
        return run

    def steps(self, *, record: bool = False, **parameters: Any) -> Steps:
        """Everything up to the plan."""
        run = self.begin(record=record, **parameters)
        readings = kb.compute_kpis(run)
        drift = kb.compare(readings)
        return Steps(run, readings, drift, kb.make_plan(run, drift))

    def finish(self, **parameters: Any) -> dict[str, Any]:
        """A whole run with a record; returns its closed receipt."""
        steps = self.steps(record=True, **parameters)
        kb.apply_plan(steps.run, steps.plan)
        assert steps.run.record is not None
        return steps.run.record.receipt.as_json()

    def command(self, *arguments: str) -> Result:
        """The command line, in this process."""
        config = ("--config", str(self.folder / "kpibackfill.toml"))
        return CliRunner().invoke(main, [*config, *arguments], catch_exceptions=False)


def refusal(result: Result) -> str:
    """The lines of a refusal, after checking what is true of every refusal."""
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2, result.output
    assert 1 <= len(lines) <= 2, result.stderr
    assert "Traceback" not in result.output
    return result.stderr


def error_of(result: Result) -> dict[str, Any]:
    """The error of the JSON document that a failed command prints."""
    document = json.loads(result.stdout)
    assert document.keys() == {"run_id", "state", "error"}
    assert document["error"].keys() == {"code", "message"}
    error: dict[str, Any] = document["error"]
    return error
