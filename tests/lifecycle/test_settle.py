"""Settling: what became of a run that was cut off while it was writing is found out, never guessed."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.apply import _write
from kpibackfill.archive import ledger
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.archive.verify import verify
from kpibackfill.errors import Refused
from kpibackfill.lifecycle import settle
from tests.databases import both_layouts, connect, dump, on
from tests.workbench import Steps, Workbench, refusal

FEW: dict[str, Any] = {"kpis": "education_nps,total_new_member_signups"}
FACTS = "ms_fact_kpi_snapshot"
facts = sa.table(FACTS, *map(sa.column, ("snapshot_id", "kpi_id", "metric_value", "meta")))


def cut_off(bench: Workbench, *, committed: bool, **parameters: Any) -> Steps:
    """A run whose process ended right before its commit, or right after it."""
    from threading import Event

    steps = bench.steps(record=True, **{**FEW, "apply": True, **parameters})
    assert steps.run.record is not None
    steps.run.record.update(state="applying", approval=None)
    if committed:
        _write(steps.run, steps.plan, [], Event())
    return steps


def record_of(steps: Steps) -> RunRecord:
    assert steps.run.record is not None
    return steps.run.record


def settled(bench: Workbench, steps: Steps) -> dict[str, Any]:
    result = bench.command("settle", record_of(steps).run_id, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def change(bench: Workbench, statement: sa.Executable) -> None:
    with connect(bench.database.url) as connection:
        connection.execute(statement)


def where(snapshot_id: int, kpi_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(facts.c.snapshot_id == snapshot_id, facts.c.kpi_id == kpi_id)


@both_layouts
@pytest.mark.parametrize("committed", [True, False], ids=["after the commit", "before it"])
def test_a_run_that_was_cut_off_is_settled_by_what_is_stored(bench: Workbench, layout: str, committed: bool) -> None:
    steps = cut_off(bench, committed=committed)
    record = record_of(steps)
    stored, receipt = dump(bench.database), (record.folder / "receipt.json").read_bytes()
    document = settled(bench, steps)
    assert document["outcome"] == ("applied" if committed else "not_in_effect")
    assert {row["found"] for row in document["rows"]} == {"written" if committed else "as_before"}
    assert dump(bench.database) == stored
    assert (record.folder / "receipt.json").read_bytes() == receipt
    assert json.loads((record.folder / "settlement.json").read_bytes()) == document
    verified = bench.command("verify")
    assert verified.exit_code == 0, verified.output
    assert settled(bench, steps) == document  # a second call says the same, and writes nothing
    assert bench.command("verify").stdout == verified.stdout
    assert kb.runs(state=document["outcome"])["run_id"].tolist() == [record.run_id]
    assert len(kb.history()) == (len(steps.plan) if committed else 0)


@on("sqlite", "postgresql")
def test_a_run_settled_as_applied_can_be_reverted_and_one_not_in_effect_cannot(bench: Workbench) -> None:
    before = dump(bench.database)
    steps = cut_off(bench, committed=True)
    with pytest.raises(Refused, match=r"`kpibackfill settle .*` finds out"):
        bench.begin(revert_of=record_of(steps).run_id)
    settled(bench, steps)
    bench.finish(revert_of=record_of(steps).run_id, apply=True)
    assert dump(bench.database) == before
    steps = cut_off(bench, committed=False)
    settled(bench, steps)
    with pytest.raises(Refused, match="wrote nothing"):
        bench.begin(revert_of=record_of(steps).run_id)


@on("sqlite", "mariadb")
@pytest.mark.parametrize("committed", [True, False])
def test_rows_that_someone_changed_since_are_reported_one_by_one(bench: Workbench, committed: bool) -> None:
    steps = cut_off(bench, committed=committed)
    change(bench, sa.update(facts).where(where(278, "education_nps")).values(metric_value=1, meta=None))
    document = settled(bench, steps)
    assert document["outcome"] == ("applied" if committed else "not_in_effect")
    changed = [row["snapshot_id"] for row in document["rows"] if row["found"] == "changed_since"]
    assert changed == [278]
    text = bench.command("settle", record_of(steps).run_id).stdout
    assert "Changed by someone else since: (278, education_nps)." in text


@on("sqlite")
def test_missing_inserted_rows_next_to_changed_ones_say_nothing_about_the_commit(bench: Workbench) -> None:
    steps = cut_off(bench, committed=True)
    for row in steps.plan.rows:  # a snapshot rebuilt, and the rest overwritten
        key = where(row.snapshot_id, row.kpi_id)
        gone = row.action == "insert"
        change(bench, sa.delete(facts).where(key) if gone else sa.update(facts).where(key).values(meta=None))
    assert {row.action for row in steps.plan.rows} == {"insert", "update"}
    document = settled(bench, steps)
    assert document["outcome"] == "changed_since"
    assert {row["found"] for row in document["rows"]} == {"as_before", "changed_since"}


@on("sqlite")
def test_rows_of_a_committed_run_that_someone_restored_since_are_named(bench: Workbench) -> None:
    steps = cut_off(bench, committed=True)
    row = next(row for row in steps.plan.rows if row.action == "insert")
    change(bench, sa.delete(facts).where(where(row.snapshot_id, row.kpi_id)))
    assert settled(bench, steps)["outcome"] == "applied"
    text = bench.command("settle", record_of(steps).run_id).stdout
    assert f"Restored by someone else since: ({row.snapshot_id}, {row.kpi_id})." in text
    assert "Changed by" not in text


@on("sqlite")
def test_if_every_row_was_changed_since_the_outcome_stays_open(bench: Workbench) -> None:
    steps = cut_off(bench, committed=True, from_year=2021, to_year=2021, kpis="education_nps")
    keys = [(row.snapshot_id, row.kpi_id) for row in steps.plan.rows]
    for key in keys:
        change(bench, sa.update(facts).where(where(*key)).values(metric_value=1, meta=None))
    document = settled(bench, steps)
    assert document["outcome"] == "changed_since"
    assert {row["found"] for row in document["rows"]} == {"changed_since"}
    assert kb.history().empty
    with pytest.raises(Refused, match="Nobody can tell whether"):
        bench.begin(revert_of=record_of(steps).run_id)


@on("sqlite", "mariadb", "postgresql")
@pytest.mark.parametrize("committed", [True, False])
def test_a_revert_that_was_cut_off_is_settled_though_its_rows_carry_no_mark_of_it(
    bench: Workbench, committed: bool
) -> None:
    applied = bench.finish(**FEW, apply=True)
    steps = cut_off(bench, committed=committed, kpis="", revert_of=applied["run_id"])
    assert settled(bench, steps)["outcome"] == ("applied" if committed else "not_in_effect")


def test_a_run_that_still_holds_the_lock_is_still_running(bench: Workbench) -> None:
    from kpibackfill.database.engine import writing

    steps = cut_off(bench, committed=False)
    with writing(bench.config.target("test").store_url, bench.config.site):
        message = refusal(bench.command("settle", record_of(steps).run_id))
    assert "may still be running" in message
    assert not (record_of(steps).folder / "settlement.json").exists()
    assert settled(bench, steps)["outcome"] == "not_in_effect"


@on("sqlite")
def test_a_run_that_was_only_slow_writes_nothing_once_it_is_settled(bench: Workbench) -> None:
    steps = bench.steps(record=True, **FEW, apply=True)
    record = record_of(steps)
    before = dump(bench.database)
    record.update(state="applying")
    settled(bench, steps)
    with pytest.raises(Refused, match="was settled while it waited"):
        kb.apply_plan(steps.run, steps.plan)
    assert dump(bench.database) == before
    assert settle.state_of(record) == "not_in_effect"


@on("sqlite")
@pytest.mark.slow
def test_a_run_that_is_settled_while_its_own_command_runs_ends_once_and_stays_as_it_was_sealed(
    bench: Workbench,
) -> None:
    program = "import kpibackfill as kb; kb.settle(kb.runs()['run_id'].iloc[-1])"
    bench.configure(after_apply=[sys.executable, "-c", program])
    applied = bench.finish(**FEW, apply=True)
    record = RunRecord(bench.config.runs_dir, applied["run_id"])
    assert [event.event for event in record.events()] == ["begun", "settled"]
    assert record.settlement is not None
    assert record.settlement.outcome == "applied"
    assert verify(bench.config.runs_dir).findings == ()
    assert len(kb.history()) == applied["plan"]["rows"]
    assert bench.command("revert", record.run_id).exit_code == 0


@on("sqlite")
def test_there_is_nothing_to_settle_where_nothing_is_unknown(bench: Workbench) -> None:
    applied = bench.finish(**FEW, apply=True)
    planned = record_of(bench.steps(record=True, **FEW)).run_id
    for run, state in ((applied["run_id"], "is applied"), (planned, "is planned")):
        assert f"There is nothing to settle: {run} {state}" in refusal(bench.command("settle", run))
    assert "is not a full run id" in refusal(bench.command("settle", "latest"))


@on("sqlite")
def test_a_run_that_two_people_settle_at_once_ends_once(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second looked before the first ended it, and gets to the ledger afterwards."""
    steps = bench.steps(record=True, **FEW, apply=True)

    def cut(record: RunRecord, event: str, names: list[str], adding: dict[str, str], **facts: Any) -> None:
        for name, content in adding.items():
            record.add(name, content)

    with monkeypatch.context() as patched:
        patched.setattr(RunRecord, "seal", cut)  # as if killed before the ledger's line
        kb.apply_plan(steps.run, steps.plan)
    record = record_of(steps)
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(RunRecord, "sealed", False)
            settled(bench, steps)
    assert [event.event for event in record.events()] == ["begun", "closed"]
    assert len(kb.history()) == len(steps.plan)
    other = cut_off(bench, committed=True, kpis="workshop_attendees")
    with monkeypatch.context() as patched:
        patched.setattr(RunRecord, "sealed", False)
        first = settled(bench, other)
        assert settled(bench, other) == first
    assert [event.event for event in record_of(other).events()] == ["begun", "settled"]
    assert bench.command("verify").exit_code == 0


@on("sqlite")
def test_a_settled_line_that_contradicts_the_settlement_or_is_gone_is_found(bench: Workbench) -> None:
    record = record_of(cut_off(bench, committed=False))
    assert bench.command("settle", record.run_id).exit_code == 0
    path = bench.config.runs_dir / ledger.FILE_NAME
    *lines, last = path.read_bytes().splitlines()
    entry = json.loads(last) | {"outcome": "applied"}
    del entry["digest"]
    path.write_bytes(b"\n".join([*lines, ledger.with_digest(json.dumps(entry).encode()), b""]))
    (finding,) = verify(bench.config.runs_dir).findings
    assert str(finding) == f"{record.run_id}/settlement.json: disagrees with the ledger: outcome"
    path.write_bytes(b"\n".join([*lines, b""]))
    (finding,) = verify(bench.config.runs_dir).findings
    assert str(finding).startswith(f"{record.run_id}: has ended by the files in its folder, but no line says so")
    assert bench.command("settle", record.run_id).exit_code == 0
    assert not verify(bench.config.runs_dir).findings


@on("sqlite")
def test_a_database_that_cannot_be_reached_leaves_the_run_unsettled(bench: Workbench) -> None:
    steps = cut_off(bench, committed=True)
    url = sa.make_url(bench.database.url)
    assert url.database is not None
    bench.configure(timezone="UTC")
    path = bench.folder / "kpibackfill.toml"
    path.write_text(path.read_text().replace(url.database, url.database + ".gone"))
    assert "There is no database file" in refusal(bench.command("settle", record_of(steps).run_id))
    assert not (record_of(steps).folder / "settlement.json").exists()
