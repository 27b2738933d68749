"""Reverting: what a run wrote is undone byte for byte, and what someone has changed since is left alone."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.errors import Refused
from kpibackfill.reporting.run_summary import run_summary
from tests.databases import both_layouts, change, connect, dump, on
from tests.workbench import Workbench

FACTS = "ms_fact_kpi_snapshot"
facts = sa.table(FACTS, *map(sa.column, ("id", "snapshot_id", "kpi_id", "metric_value", "period_month", "meta")))
snapshots = sa.table("ms_snapshot", sa.column("id"))
KPIS: dict[str, Any] = {"kpis": "workshop_attendees,education_nps,total_new_member_signups"}


def where(snapshot_id: int, kpi_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(facts.c.snapshot_id == snapshot_id, facts.c.kpi_id == kpi_id)


def removing(bench: Workbench, name: str = "remove.csv") -> Path:
    """Decisions that accept every planned row and remove every unsupported one."""
    plan = bench.steps(**KPIS).plan
    review = kb.review(plan, bench.folder / name)
    for row in review.frame.to_dict("records"):
        word = "remove" if row["status"] == "unsupported" else "accept"
        key = int(row["snapshot_id"])
        kb.decide(review.path, row["kpi_id"], word, snapshot_id=key, reason="false", reviewer="Ann")
    path: Path = review.path
    return path


@both_layouts
def test_inserts_updates_and_removals_are_undone_byte_for_byte_and_again_by_reverting_the_revert(
    bench: Workbench, layout: str
) -> None:
    before = dump(bench.database)
    applied = bench.finish(**KPIS, apply=True, decisions=str(removing(bench)))
    assert all(applied["written"][action] for action in ("insert", "update", "delete"))
    after = dump(bench.database)
    assert after != before
    dry = bench.finish(revert_of=applied["run_id"])
    assert dump(bench.database) == after
    assert dry["plan"]["rows"] == applied["plan"]["rows"]
    reverted = bench.finish(revert_of=applied["run_id"], apply=True, approved_plan=dry["run_id"])
    assert dump(bench.database) == before
    history = bench.command("history", "--kpi", "education_nps").stdout
    assert "removed by hand" in history
    assert f"restored to the value before {applied['run_id']}" in history
    assert f"It reverts <code>{applied['run_id']}</code>." in (bench.runs[-1] / "report.html").read_text()
    shown = bench.command("show", reverted["run_id"]).stdout
    assert f"Its plan was reviewed in {dry['run_id']}; no approval is on record." in shown
    bench.finish(revert_of=reverted["run_id"], apply=True)
    assert dump(bench.database) == after


@on("sqlite")
def test_the_summary_of_a_revert_lists_the_rows_that_it_would_restore(bench: Workbench) -> None:
    applied = bench.finish(**KPIS, apply=True)
    dry = bench.finish(revert_of=applied["run_id"])
    lines = run_summary(
        RunRecord(bench.config.runs_dir, dry["run_id"]).receipt, bench.config.runs_dir / dry["run_id"]
    ).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("period  snapshot  KPI"))
    listed = [tuple(line.split()[1:4]) for line in lines[at + 1 : at + 1 + dry["plan"]["rows"]]]
    back = {"insert": "delete", "update": "update"}
    assert listed == [
        (str(row["snapshot_id"]), row["kpi_id"], back[row["action"]]) for row in applied["written"]["rows"]
    ]
    assert "unchanged" not in "\n".join(lines)
    assert f"Dry run: nothing was written. The plan has {len(listed)} rows." in lines


@both_layouts
def test_a_row_that_somebody_changed_since_is_left_alone_and_reported_unless_a_decision_names_it(
    bench: Workbench, layout: str
) -> None:
    before = dump(bench.database)
    applied = bench.finish(**KPIS, apply=True)
    touched = where(277, "workshop_attendees")
    change(bench.database, sa.update(facts).where(touched).values(metric_value=31))
    changed = dump(bench.database)
    steps = bench.steps(record=True, revert_of=applied["run_id"], apply=True)
    assert [p.key for p in steps.plan.candidates if not p.planned] == [(277, "workshop_attendees")]
    assert any("left alone: (277, workshop_attendees)" in note for note in steps.plan.notes)
    kb.apply_plan(steps.run, steps.plan)
    now = dump(bench.database)
    differing = set(now[FACTS]) ^ set(before[FACTS])
    assert {row[-6:-4] for row in differing} == {(277, "workshop_attendees")}
    assert differing & set(changed[FACTS])
    assert steps.run.record is not None
    assert "left alone: (277, workshop_attendees)" in " ".join(steps.run.record.receipt.as_json()["notes"])

    review = kb.review(bench.steps(revert_of=applied["run_id"]).plan, bench.folder / "again.csv")
    assert review.frame["status"].tolist() == ["changed since"]
    kb.decide(review.path, "workshop_attendees", "accept", snapshot_id=277, reviewer="Ann")
    bench.finish(revert_of=applied["run_id"], apply=True, decisions=str(review.path))
    assert dump(bench.database) == before


@on("sqlite")
def test_a_text_that_is_not_utf_8_is_read_and_restored_as_it_was(bench: Workbench) -> None:
    blob = b'a:1:{s:1:"k";s:2:"\xe9\xff";}'
    change(bench.database, sa.update(facts).values(meta=sa.cast(sa.literal(blob, sa.LargeBinary), sa.Text)))
    with connect(bench.database.url) as connection:
        count = sa.func.sum(sa.case((sa.func.typeof(facts.c.meta) == "text", 1)))
        as_blob = sa.cast(facts.c.meta, sa.LargeBinary)
        before = connection.execute(sa.select(facts.c.snapshot_id, facts.c.kpi_id, facts.c.metric_value, as_blob)).all()
        texts = connection.scalar(sa.select(count))
    applied = bench.finish(**KPIS, apply=True)
    assert applied["plan"]["rows"] > 0
    bench.finish(revert_of=applied["run_id"], apply=True)
    with connect(bench.database.url) as connection:
        after = connection.execute(sa.select(facts.c.snapshot_id, facts.c.kpi_id, facts.c.metric_value, as_blob)).all()
        assert sorted(after) == sorted(before)
        assert connection.scalar(sa.select(count)) == texts == len(before)


@on("sqlite", "postgresql")
def test_a_row_whose_snapshot_is_gone_or_that_vanished_is_reported_and_the_rest_restored(bench: Workbench) -> None:
    applied = bench.finish(**KPIS, apply=True)
    updated = where(272, "workshop_attendees")
    change(bench.database, sa.delete(facts).where(updated), sa.delete(snapshots).where(snapshots.c.id == 269))
    plan = bench.steps(revert_of=applied["run_id"]).plan
    notes = " ".join(plan.notes)
    assert re.search(r"snapshot is gone: [^.]*\(269, education_nps\)", notes)
    assert 269 not in {row.snapshot_id for row in plan.rows}


@on("sqlite")
def test_a_second_revert_has_nothing_left_to_do(bench: Workbench) -> None:
    applied = bench.finish(**KPIS, apply=True)
    bench.finish(revert_of=applied["run_id"], apply=True)
    plan = bench.steps(revert_of=applied["run_id"]).plan
    assert not plan.rows
    assert "Already as before that run: " in " ".join(plan.notes)
    assert not [proposal for proposal in plan.candidates if not proposal.planned]


@on("sqlite")
def test_what_was_put_into_a_record_later_is_not_put_into_the_database(bench: Workbench) -> None:
    applied = bench.finish(**KPIS, apply=True)
    path = bench.config.runs_dir / applied["run_id"] / "plan.json"
    plan = json.loads(path.read_bytes())
    image = next(row["before"] for row in plan["rows"] if row["before"] and row["before"]["meta"])
    image["meta"]["base64"] = base64.b64encode(b"forged").decode()
    path.write_text(json.dumps(plan))
    before = dump(bench.database)
    with pytest.raises(Refused, match=r"plan\.json was altered since it was archived; nothing was written"):
        bench.begin(revert_of=applied["run_id"], apply=True)
    assert dump(bench.database) == before


@on("sqlite")
def test_a_revert_is_only_of_a_run_that_wrote_and_takes_its_years_and_kpis(bench: Workbench) -> None:
    dry = bench.finish(**KPIS)
    applied = bench.finish(**KPIS, apply=True)
    nothing = bench.finish(**KPIS, apply=True)
    before = dump(bench.database)

    def refused(match: str, **parameters: Any) -> None:
        with pytest.raises(Refused, match=match):
            bench.begin(**{"apply": True, **parameters})

    refused("wrote nothing", revert_of=dry["run_id"])
    refused("wrote nothing", revert_of=nothing["run_id"])
    refused("is not a full run id", revert_of="latest")
    refused("There is no run", revert_of="20200101T000000Z-test-2020-apply-abcdef")
    with (bench.folder / "kpibackfill.toml").open("a") as file:
        file.write(f'[targets.other]\nstore = "{bench.database.url}"\n')
    refused("wrote to test, not to other", revert_of=applied["run_id"], target="other")
    refused("uses that run's from_year, 2015, not 2016", revert_of=applied["run_id"], from_year=2016)
    run = kb.begin(target="test", revert_of=applied["run_id"])
    assert (run.parameters.from_year, run.parameters.to_year) == (2015, 2025)
    assert run.parameters.kpis == tuple(KPIS["kpis"].split(","))
    assert dump(bench.database) == before


@on("sqlite")
def test_a_revert_needs_its_own_approval_where_the_target_requires_one(bench: Workbench) -> None:
    applied = bench.finish(**KPIS, apply=True)
    bench.configure(require_approval=True)
    after = dump(bench.database)
    asked = {"revert_of": applied["run_id"], "apply": True, "reason": "wrong definition"}
    steps = bench.steps(record=True, **asked)
    with pytest.raises(Refused, match="only an approved plan"):
        kb.apply_plan(steps.run, steps.plan)
    dry = bench.finish(revert_of=applied["run_id"])
    steps = bench.steps(record=True, **asked, approved_plan=dry["run_id"])
    with pytest.raises(Refused, match="only a plan that was approved"):
        kb.apply_plan(steps.run, steps.plan)
    assert dump(bench.database) == after
    assert bench.command("approve", dry["run_id"], "--note", "agreed").exit_code == 0
    reverted = bench.finish(**asked, approved_plan=dry["run_id"])
    assert reverted["approval"]["word"] == "approved"
    assert dump(bench.database) != after
    shown = bench.command("show", reverted["run_id"]).stdout
    assert f"Its plan was approved by {reverted['approval']['by']} at " in shown
    assert f"in {dry['run_id']}" in shown


@on("sqlite")
@pytest.mark.parametrize("word", ["set", "remove"])
def test_a_decision_on_a_revert_can_only_leave_rows_out_or_restore_them(bench: Workbench, word: str) -> None:
    applied = bench.finish(**KPIS, apply=True)
    review = kb.review(bench.steps(revert_of=applied["run_id"]).plan, bench.folder / "d.csv")
    assert set(review.frame["status"]) == {"put back"}
    value = 5 if word == "set" else None
    kb.decide(review.path, "education_nps", word, snapshot_id=278, value=value, reason="why", reviewer="Ann")
    with pytest.raises(Refused, match="a revert only restores rows"):
        bench.steps(revert_of=applied["run_id"], decisions=str(review.path))
    kb.decide(review.path, "education_nps", "accept", snapshot_id=278)
    plan = bench.steps(revert_of=applied["run_id"], decisions=str(review.path)).plan
    assert [(row.snapshot_id, row.kpi_id) for row in plan.rows] == [(278, "education_nps")]


@on("sqlite")
def test_the_rows_of_one_revert_are_not_approved_by_the_dry_run_of_another(bench: Workbench) -> None:
    applied = bench.finish(**KPIS, apply=True)
    dry = bench.finish(revert_of=applied["run_id"])
    steps = bench.steps(record=True, **KPIS, apply=True, approved_plan=dry["run_id"])
    with pytest.raises(Refused, match="not about the same revert"):
        kb.apply_plan(steps.run, steps.plan)
