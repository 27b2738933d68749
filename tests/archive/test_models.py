"""The documents of an archive: held to the published schemas, refused if wrong, read if they have more."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import kpibackfill as kb
from kpibackfill.archive.models import (
    Change,
    Closed,
    Failure,
    PlanDocument,
    Receipt,
    read,
    read_event,
)
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.errors import Refused
from tests.archives import FEW, archive_as_shipped
from tests.databases import on
from tests.workbench import Workbench


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


def test_the_schemas_are_those_of_the_models(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "kpibackfill.archive.models", str(tmp_path)], check=True)
    found = {path.name: path.read_text("utf-8") for path in files("kpibackfill").joinpath("schemas").iterdir()}
    written = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert found == written, "python -m kpibackfill.archive.models"


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


def test_a_schema_refuses_a_wrong_document(made_archive: Workbench) -> None:
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


@pytest.mark.parametrize(
    "members",
    [{"basis": "375"}, {"basis": True}, {"before": "12"}, {"action": "upsert"}, {"year": 2024.0}, {"surprise": 1}],
    ids=str,
)
def test_a_writer_cannot_build_anything_of_the_wrong_type(members: dict[str, Any]) -> None:
    right: dict[str, Any] = {"snapshot_id": 1, "kpi_id": "a", "year": 2024, "action": "update", "before": None}
    assert Change(**right, after=1.5).after == 1.5
    with pytest.raises(ValueError, match=next(iter(members))):
        Change(**{**right, "after": 1.5, **members})


def test_a_reader_ignores_members_that_it_does_not_know(made_archive: Workbench) -> None:
    run = next(made_archive.config.runs_dir.glob("*apply*"))
    for name, model in (("receipt", Receipt), ("plan", PlanDocument)):
        document = json.loads((run / f"{name}.json").read_bytes())
        rows = [{**row, "later": True} for row in document["rows"]]
        assert read(model, json.dumps({**document, "later": 1, "rows": rows})).as_json() == document
    for line in (made_archive.config.runs_dir / "ledger.jsonl").read_bytes().splitlines():
        entry = json.loads(line)
        assert json.loads(json.dumps(read_event(json.dumps({**entry, "later": 1}).encode()).as_json())) == entry


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"code": 1, "message": ""}', b"\xff\xfe{}", b'{"code": "a"}', b"NaN"],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_not_a_document_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        read(Failure, content)


def test_a_text_that_is_not_utf_8_does_not_make_its_document_unreadable() -> None:
    kept = json.dumps(Failure(code="a", message="caf\udce9.sqlite").as_json())
    assert read(Failure, kept).message == "caf?.sqlite"


numbers = st.none() | st.floats()


@given(numbers, numbers, st.none() | st.integers(0, 10**9))
def test_every_number_survives_its_line(before: float | None, after: float | None, basis: int | None) -> None:
    change = Change(snapshot_id=1, kpi_id="a", year=2024, action="update", before=before, after=after, basis=basis)
    run_id = "20260101T000000Z-test-2024-apply-00000a"
    event = Closed(run_id=run_id, state="applied", kpis=(), decisions=(), changes=(change,))
    entry = event.as_json()
    del entry["digest"], entry["previous"]
    kept = read_event(json.dumps(entry, allow_nan=False).encode())
    assert isinstance(kept, Closed)
    assert repr(kept.changes) == repr(event.changes)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["nan", "1e999"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_a_document_with_anything_in_any_place_is_read_or_refused(made_archive: Workbench, data: st.DataObject) -> None:
    run = next(made_archive.config.runs_dir.glob("*apply*"))
    line = data.draw(st.sampled_from((made_archive.config.runs_dir / "ledger.jsonl").read_text("utf-8").splitlines()))
    readers: dict[str, Callable[[bytes], Any]] = {
        line: read_event,
        (run / "receipt.json").read_text("utf-8"): lambda text: read(Receipt, text),
        (run / "plan.json").read_text("utf-8"): lambda text: read(PlanDocument, text),
    }
    text = data.draw(st.sampled_from(list(readers)))
    document = json.loads(text)
    place = document
    while isinstance(place, dict | list) and place:
        name = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[name], dict | list) and place[name]) or data.draw(st.booleans()):
            place[name] = data.draw(anything)
            break
        place = place[name]
    with contextlib.suppress(ValueError):
        readers[text](json.dumps(document).encode())
