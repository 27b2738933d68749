"""Real documents are what their published schemas say, and the schemas refuse what is not."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.errors import Refused
from tests.archives import FEW, archive_as_shipped
from tests.databases import on
from tests.workbench import Workbench

NAMES = ("ledger", "plan", "receipt", "settlement")


@cache
def schema(name: str) -> Any:
    document = json.loads(files("kpibackfill").joinpath("schemas", f"{name}.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def hold(name: str, document: Any) -> None:
    problems = [f"{error.json_path}: {error.message[:300]}" for error in schema(name).iter_errors(document)]
    assert not problems, problems


def hold_archive(bench: Workbench) -> None:
    runs_dir = bench.config.runs_dir
    for line in (runs_dir / "ledger.jsonl").read_bytes().splitlines():
        entry = json.loads(line)
        hold("ledger", entry)
    for folder in runs_dir.glob("2*"):
        for name in ("receipt", "plan", "settlement"):
            if (folder / f"{name}.json").is_file():
                hold(name, json.loads((folder / f"{name}.json").read_bytes()))


def test_every_schema_is_there() -> None:
    assert sorted(path.name for path in files("kpibackfill").joinpath("schemas").iterdir()) == [
        f"{name}.schema.json" for name in NAMES
    ]


def test_runs_on_each_database_leave_what_the_schemas_say(bench: Workbench) -> None:
    asked: dict[str, Any] = {"kpis": "education_nps,total_new_member_signups,workshop_participants_bipoc"}
    dry = bench.finish(**asked)
    applied = bench.finish(**asked, apply=True, approved_plan=dry["run_id"], reason="as reviewed")
    archive_as_shipped(RunRecord(bench.config.runs_dir, applied["run_id"]))
    assert applied["written"]["rows"]
    hold_archive(bench)


@on("sqlite")
def test_a_refused_a_failed_an_approved_and_a_settled_run_leave_what_the_schemas_say(bench: Workbench) -> None:
    bench.configure(after_apply=["true"], require_approval=True)
    dry = bench.finish(**FEW)
    steps = bench.steps(record=True, **FEW, apply=True, reason="why", approved_plan=dry["run_id"])
    with pytest.raises(Refused, match="approve"):
        kb.apply_plan(steps.run, steps.plan)
    assert bench.command("approve", dry["run_id"], "--note", "looked at").exit_code == 0
    applied = bench.finish(**FEW, apply=True, reason="why", approved_plan=dry["run_id"])
    assert applied["after_apply"]["outcome"] == "exit status 0"
    broken = bench.begin(record=True)
    with sa.create_engine(bench.database.url).begin() as connection:
        connection.execute(sa.text("ALTER TABLE ms_snapshot RENAME TO ms_elsewhere"))
    with pytest.raises(kb.KpiBackfillError):
        kb.compute_kpis(broken)
    with sa.create_engine(bench.database.url).begin() as connection:
        connection.execute(sa.text("ALTER TABLE ms_elsewhere RENAME TO ms_snapshot"))
    cut_off = bench.steps(record=True, kpis="workshop_attendees", apply=True, reason="why").run.record
    assert cut_off is not None
    cut_off.update(state="applying")
    assert bench.command("settle", cut_off.run_id).exit_code == 0
    events = [json.loads(line)["event"] for line in (bench.config.runs_dir / "ledger.jsonl").read_bytes().splitlines()]
    assert set(events) == {"begun", "closed", "approved", "settled"}
    states = [json.loads((run / "receipt.json").read_bytes())["state"] for run in bench.runs]
    assert sorted(states) == ["applied", "applying", "dry_run", "failed", "refused"]
    hold_archive(bench)


def test_a_schema_refuses_what_is_not_so(made_archive: Workbench) -> None:
    run = next(made_archive.config.runs_dir.glob("*apply*"))
    receipt = json.loads((run / "receipt.json").read_bytes())
    changes: list[dict[str, Any]] = [{"schema": 2}, {"state": "done"}, {"surprise": 1}, {"rows": [{}]}, {"error": ""}]
    for change in changes:
        with pytest.raises(AssertionError):
            hold("receipt", receipt | change)
    plan = json.loads((run / "plan.json").read_bytes())
    with pytest.raises(AssertionError):
        hold("plan", plan | {"fingerprint": "short"})
    line = json.loads((made_archive.config.runs_dir / "ledger.jsonl").read_bytes().splitlines()[0])
    del line["digest"]
    with pytest.raises(AssertionError):
        hold("ledger", line)
