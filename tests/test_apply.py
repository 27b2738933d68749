"""Applying: only the planned rows and the cache tags change, or nothing does."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.apply import ApplyResult
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.database import php_serialize
from kpibackfill.errors import KpiBackfillError, Refused
from kpibackfill.reporting.run_summary import run_summary
from tests.databases import add_cachetags, both_layouts, change, dump, on
from tests.workbench import Steps, Workbench

FACTS = "ms_fact_kpi_snapshot"
COLUMNS = ("snapshot_id", "kpi_id", "metric_value", "period_year", "period_month", "meta")
facts = sa.table(FACTS, *map(sa.column, ("id", *COLUMNS)))
Dump = dict[str, list[tuple[Any, ...]]]


def rows_by_key(dumped: Dump) -> dict[tuple[int, str], tuple[Any, ...]]:
    """Fact rows by key, without the surrogate id."""
    return {row[-6:-4]: row[-4:] for row in dumped[FACTS]}


def as_f4(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


# Few KPIs make small figures, and each run draws some for its record.
FEW = {"kpis": "education_nps,total_new_member_signups"}


def recorded(bench: Workbench, **parameters: Any) -> Steps:
    return bench.steps(record=True, **{"apply": True, **parameters})


@both_layouts
@pytest.mark.parametrize("tagged", [True, False], ids=["with cachetags", "without"])
def test_only_the_planned_rows_and_the_cache_tags_change(bench: Workbench, layout: str, tagged: bool) -> None:
    if tagged:
        add_cachetags(bench.database, {"makerspace_snapshot:kpi": 7, "node_list": 3})
    before = dump(bench.database)
    steps = recorded(bench, include_risky=True)
    assert dump(bench.database) == before
    receipt = kb.apply_plan(steps.run, steps.plan)
    assert isinstance(receipt, ApplyResult)
    after = dump(bench.database)

    planned = {(row.snapshot_id, row.kpi_id): row for row in steps.plan.rows}
    assert {row.action for row in steps.plan.rows} == {"insert", "update"}
    assert {table for table in after if after[table] != before[table]} == {FACTS, "cachetags"} & after.keys()
    old, new = rows_by_key(before), rows_by_key(after)
    assert {key for key in new if new[key] != old.get(key)} == planned.keys()
    assert old.keys() <= new.keys()
    for key, row in planned.items():
        value, period_year, period_month, meta = new[key]
        assert row.value is not None
        # SQLite's column is as wide as the value.
        assert value == (row.value if bench.database.name == "sqlite" else as_f4(row.value))
        assert (period_year, period_month) == (row.period_year, row.period_month)
        assert php_serialize.loads(meta) == {
            "source": "kpibackfill",
            "computed_for_year": row.year,
            "run_id": steps.run.run_id,
            "plan": steps.plan.fingerprint,
            "previous_value": None if row.before is None else row.before.metric_value,
        }
    if layout == "surrogate":
        ids = {row[1:3]: row[0] for row in before[FACTS]}
        assert all(row[0] == ids[row[1:3]] for row in after[FACTS] if row[1:3] in ids)
    if tagged:
        tags = {f"makerspace_snapshot:kpi:{kpi_id}" for _, kpi_id in planned}
        assert dict(after["cachetags"]) == {"makerspace_snapshot:kpi": 8, "node_list": 3, **dict.fromkeys(tags, 1)}
        assert receipt.cache_tags == "invalidated"
    else:
        assert "clear Drupal's caches" in receipt.cache_tags


@both_layouts
def test_a_second_apply_has_an_empty_plan_and_writes_nothing(bench: Workbench) -> None:
    add_cachetags(bench.database)
    assert bench.finish(apply=True, **FEW)["written"]["rows"]
    before = dump(bench.database)
    receipt = bench.finish(apply=True, **FEW)
    assert (receipt["state"], receipt["plan"]["rows"], receipt["written"]["rows"]) == ("applied", 0, [])
    assert dump(bench.database) == before


REJECT = {
    "sqlite": [
        "CREATE TRIGGER t BEFORE INSERT ON ms_fact_kpi_snapshot WHEN NEW.snapshot_id = 272"
        " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
    ],
    "mariadb": [
        "CREATE TRIGGER t BEFORE INSERT ON ms_fact_kpi_snapshot FOR EACH ROW IF NEW.snapshot_id = 272 THEN"
        " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF"
    ],
    "postgresql": [
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.snapshot_id = 272 THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER t BEFORE INSERT ON ms_fact_kpi_snapshot FOR EACH ROW EXECUTE FUNCTION f()",
    ],
}
ALTER = {
    "sqlite": [
        "CREATE TRIGGER t AFTER UPDATE ON ms_fact_kpi_snapshot WHEN NEW.period_month < 13"
        " BEGIN UPDATE ms_fact_kpi_snapshot SET period_month = 13 WHERE snapshot_id = NEW.snapshot_id"
        " AND kpi_id = NEW.kpi_id; END"
    ],
    "mariadb": [
        "CREATE TRIGGER t BEFORE UPDATE ON ms_fact_kpi_snapshot FOR EACH ROW SET NEW.period_month = 13",
    ],
    "postgresql": [
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.period_month := 13; RETURN NEW; END $$",
        "CREATE TRIGGER t BEFORE UPDATE ON ms_fact_kpi_snapshot FOR EACH ROW EXECUTE FUNCTION f()",
    ],
}


@both_layouts
@pytest.mark.parametrize(
    ("triggers", "code", "words"),
    [(REJECT, "database", "not this one"), (ALTER, "read_back", "did not keep")],
    ids=["a row is rejected", "a row is altered"],
)
def test_a_failure_in_the_middle_leaves_nothing(
    bench: Workbench, triggers: dict[str, list[str]], code: str, words: str
) -> None:
    add_cachetags(bench.database)
    steps = recorded(bench, **FEW)
    inserted = {row.snapshot_id for row in steps.plan.rows if row.action == "insert"}
    assert 272 in inserted
    assert len(inserted) > 1
    change(bench.database, *(sa.DDL(text.replace("%", "%%")) for text in triggers[bench.database.name]))
    before = dump(bench.database)
    with pytest.raises(KpiBackfillError, match=words) as raised:
        kb.apply_plan(steps.run, steps.plan)
    assert raised.value.code == code
    assert "nothing was written" in raised.value.message
    assert dump(bench.database) == before
    assert steps.run.record is not None
    receipt = steps.run.record.receipt.as_json()
    assert (receipt["state"], receipt["error"]["code"]) == ("failed", code)
    assert "written" not in receipt


def _update(**values: Any) -> Callable[[Any], sa.Executable]:
    return lambda row: sa.update(facts).where(_key(row)).values(**values)


def _key(row: Any) -> sa.ColumnElement[bool]:
    return sa.and_(facts.c.snapshot_id == row.snapshot_id, facts.c.kpi_id == row.kpi_id)


@both_layouts
@pytest.mark.parametrize(
    ("action", "by_another"),
    [
        ("update", _update(metric_value=-1.5)),
        ("update", _update(period_month=3)),
        ("update", _update(meta=b"a:0:{}")),
        ("update", lambda row: sa.delete(facts).where(_key(row))),
        ("insert", lambda row: sa.insert(facts).values(snapshot_id=row.snapshot_id, kpi_id=row.kpi_id, metric_value=1)),
        ("insert", lambda row: sa.text(f"DELETE FROM ms_snapshot WHERE id = {row.snapshot_id:d}")),  # noqa: S608
    ],
    ids=["value", "period", "meta", "deleted", "inserted", "snapshot gone"],
)
def test_a_row_that_moved_since_it_was_read_stops_everything(
    bench: Workbench, action: str, by_another: Callable[[Any], sa.Executable]
) -> None:
    steps = recorded(bench, **FEW)
    row = next(row for row in steps.plan.rows if row.action == action)
    change(bench.database, by_another(row))
    before = dump(bench.database)
    with pytest.raises(Refused, match="changed since they were read") as raised:
        kb.apply_plan(steps.run, steps.plan)
    assert str(row.snapshot_id) in raised.value.message
    assert dump(bench.database) == before
    assert steps.run.record is not None
    assert steps.run.record.receipt.as_json()["state"] == "refused"


def test_a_row_in_another_case_is_not_overwritten(bench: Workbench) -> None:
    steps = recorded(bench, **FEW)
    row = next(row for row in steps.plan.rows if row.action == "insert")
    change(
        bench.database,
        sa.insert(facts).values(snapshot_id=row.snapshot_id, kpi_id=row.kpi_id.title(), metric_value=1),
    )
    before = dump(bench.database)
    with pytest.raises(Refused, match="another spelling"):
        kb.apply_plan(steps.run, steps.plan)
    assert dump(bench.database) == before


@on("mariadb")
def test_a_storage_engine_that_cannot_roll_back_is_refused(bench: Workbench) -> None:
    steps = recorded(bench, **FEW)
    change(bench.database, sa.text(f"ALTER TABLE {FACTS} ENGINE=MyISAM"))
    before = dump(bench.database)
    with pytest.raises(Refused, match="can't roll back"):
        kb.apply_plan(steps.run, steps.plan)
    assert dump(bench.database) == before


@on("mariadb")
def test_a_view_that_may_hide_a_table_that_cannot_roll_back_is_refused(bench: Workbench) -> None:
    change(bench.database, sa.text(f"RENAME TABLE {FACTS} TO behind"))
    change(bench.database, sa.text("ALTER TABLE behind ENGINE=MyISAM"))
    change(bench.database, sa.text("CREATE VIEW ms_fact_kpi_snapshot AS SELECT * FROM behind"))
    steps = recorded(bench, **FEW)
    with pytest.raises(Refused, match=f"{FACTS} is a view"):
        kb.apply_plan(steps.run, steps.plan)


@on("mariadb", "postgresql")
def test_rows_that_no_snapshot_module_stores_are_refused(bench: Workbench) -> None:
    name = bench.database.name
    kind = {"mariadb": "MODIFY metric_value FLOAT NULL", "postgresql": "ALTER metric_value DROP NOT NULL"}[name]
    change(bench.database, sa.text(f"ALTER TABLE {FACTS} {kind}"))
    change(bench.database, sa.update(facts).values(metric_value=None))
    with pytest.raises(Refused, match=r"row for snapshot \d+ and '\w+' has no value \(NULL\); nothing was written"):
        bench.steps(kpis=FEW["kpis"])
    change(bench.database, sa.update(facts).values(metric_value=1.0))
    kind = {"mariadb": "MODIFY meta LONGTEXT", "postgresql": "ALTER meta TYPE text USING 'a'"}[name]
    change(bench.database, sa.text(f"ALTER TABLE {FACTS} {kind}"))
    with pytest.raises(Refused, match="holds meta as text instead of bytes; nothing was written"):
        bench.steps(kpis=FEW["kpis"])


@pytest.mark.parametrize("engine", ["tagged"])
@on("mariadb")
def test_cache_tags_that_cannot_roll_back_are_refused(bench: Workbench, engine: str) -> None:
    add_cachetags(bench.database)
    change(bench.database, sa.text("ALTER TABLE cachetags ENGINE=MyISAM"))
    steps = recorded(bench, **FEW)
    with pytest.raises(Refused, match="cachetags is a view, or uses a storage engine"):
        kb.apply_plan(steps.run, steps.plan)


@on("sqlite")
def test_a_plan_of_another_run_or_altered_since_is_refused(bench: Workbench) -> None:
    one, other = recorded(bench, from_year=2024), recorded(bench, from_year=2024)
    before = dump(bench.database)
    with pytest.raises(Refused, match="belongs to another run"):
        kb.apply_plan(one.run, other.plan)
    row = other.plan.rows[0].changed(value=0.123)
    altered = dataclasses.replace(other.plan, rows=(row, *other.plan.rows[1:]))
    with pytest.raises(Refused, match="changed by hand"):
        kb.apply_plan(other.run, altered)
    assert dump(bench.database) == before


def test_what_was_written_is_in_the_receipt(bench: Workbench) -> None:
    add_cachetags(bench.database)
    receipt = bench.finish(apply=True, reason="the runbook, step 4", operator="ada")
    assert (receipt["state"], receipt["reason"], receipt["operator"]) == ("applied", "the runbook, step 4", "ada")
    written = receipt["written"]
    assert written["insert"] + written["update"] == len(written["rows"]) == receipt["plan"]["rows"] > 0
    stored = rows_by_key(dump(bench.database))
    for row in written["rows"]:
        assert as_f4(stored[row["snapshot_id"], row["kpi_id"]][0]) == row["after"]
    assert receipt["cache_tags"]["outcome"] == "invalidated"


@on("sqlite")
@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (["true"], "exit status 0"),
        (["sh", "-c", "sleep 30 &"], "exit status 0"),
        (["false"], "exit status 1"),
        (["/no/such"], "could not be started"),
        (["echo", "\0"], "could not be started"),
    ],
)
def test_the_command_after_an_apply_never_changes_what_was_written(
    bench: Workbench, command: list[str], outcome: str
) -> None:
    bench.configure(after_apply=command)
    receipt = bench.finish(apply=True, **FEW)
    assert receipt["state"] == "applied"
    assert receipt["after_apply"]["seconds"] < 20
    assert outcome in receipt["after_apply"]["outcome"]
    # Not after a dry run, nor after an empty plan.
    assert "after_apply" not in bench.finish(apply=False, **FEW)
    assert "after_apply" not in bench.finish(apply=True, **FEW)


@on("sqlite")
def test_several_commands_run_in_their_order_whatever_becomes_of_each(bench: Workbench) -> None:
    log = bench.folder / "log"
    commands = [["sh", "-c", f"echo {word} >> {log}; exit {status}"] for word, status in (("one", 3), ("two", 0))]
    bench.configure(after_apply=commands)
    receipt = bench.finish(apply=True, **FEW)
    assert log.read_text().split() == ["one", "two"]
    assert [ran["outcome"] for ran in receipt["after_apply"]] == ["exit status 3", "exit status 0"]
    assert "exit status 3" in bench.command("show", receipt["run_id"]).stdout
    record = RunRecord(bench.config.runs_dir, receipt["run_id"])
    lines = run_summary(record.receipt, record.folder).splitlines()
    assert [line for line in lines if line.startswith("after_apply")] == ["after_apply, sh: exit status 3."]
    assert "exit status 0" in (bench.runs[-1] / "report.html").read_text(encoding="utf-8")


@on("sqlite")
def test_a_session_shows_how_to_continue_after_its_dry_run(bench: Workbench) -> None:
    def shown() -> str:
        steps = bench.steps(from_year=2016)
        html: str = kb.apply_plan(steps.run, steps.plan)._repr_html_()
        return html

    assert "set <code>apply = True</code> in the parameters cell" in shown()
    bench.configure(require_approval=True)
    assert "set <code>apply = True</code> and a reason in the parameters cell" in shown()
