"""Stores that differ from the snapshot module's go through every command: other columns, and a prefix."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pandas.testing import assert_frame_equal

import kpibackfill as kb
from kpibackfill.checks import check_target
from kpibackfill.errors import Refused
from tests.databases import add_cachetags, civicrm_moved, connect, dump, on, prefix_tables
from tests.figures import everything_said
from tests.workbench import Workbench

dashboard = pytest.mark.parametrize("layout", ["dashboard"], indirect=True)
FACTS = "ms_fact_kpi_snapshot"
SIGNUPS = "total_new_member_signups"


def wrong(bench: Workbench) -> list[str]:
    config = bench.config
    return [finding.text for finding in check_target(config, config.target("test")) if finding.level == "wrong"]


def whole_way(bench: Workbench, prefix: str = "") -> None:
    """Check, dry run, apply, second dry run, verify, revert; nothing but the planned rows and the tags changes."""
    assert wrong(bench) == []
    before = dump(bench.database)
    dry = bench.finish(include_risky=True)
    assert dry["plan"]["rows"]
    assert dump(bench.database) == before
    applied = bench.finish(include_risky=True, apply=True, approved_plan=dry["run_id"])
    assert applied["state"] == "applied"
    after = dump(bench.database)
    assert {table for table in after if after[table] != before[table]} == {prefix + FACTS, prefix + "cachetags"}
    assert bench.finish(include_risky=True)["plan"]["rows"] == 0
    verified = bench.command("verify", "--target", "test")
    assert verified.exit_code == 0, verified.output
    reverted = bench.finish(revert_of=applied["run_id"], apply=True)
    assert reverted["written"]["rows"]
    assert dump(bench.database)[prefix + FACTS] == before[prefix + FACTS]
    verified = bench.command("verify", "--target", "test")
    assert verified.exit_code == 0, verified.output


@dashboard
def test_the_dashboard_modules_store_goes_the_whole_way(bench: Workbench) -> None:
    add_cachetags(bench.database)
    whole_way(bench)


@dashboard
def test_a_snapshot_without_a_source_is_shown_without_one(bench: Workbench) -> None:
    steps = bench.steps(record=True)
    kb.apply_plan(steps.run, steps.plan)
    (folder,) = bench.runs
    review = kb.review(steps.plan, bench.folder / "review.csv")
    explained = kb.explain(SIGNUPS, year=2021, target="test")
    detected = kb.detect(target="test")
    texts = {
        "readings": steps.readings._repr_html_(),
        "drift": kb.drift_table(steps.drift)._repr_html_(),
        "figures": everything_said(kb.plot_drift(steps.drift)),
        "plan": steps.plan._repr_html_(),
        "csv": (folder / "drift.csv").read_text(encoding="utf-8"),
        "report": (folder / "report.html").read_text(encoding="utf-8"),
        "review": review.path.read_text(encoding="utf-8"),
        "explanation": repr(explained) + explained._repr_html_() + everything_said(explained.figure()),
        "detection": repr(detected) + detected._repr_html_() + everything_said(detected.figure()),
        "show": bench.command("show", folder.name).stdout,
    }
    for name, text in texts.items():
        shown = re.sub(r"<(script|style|pre)\b.*?</\1>|data:[^\"]*", "", text, flags=re.DOTALL)
        odd = re.findall(r".{20}\b(?:None|nan|NaN|null|unnamed|<NA>)\b|.{20}· ?<|.{20}\(\)|, \)", shown)
        assert not odd, (name, odd)
    assert "none" in repr(explained)


@dashboard
@on("sqlite")
def test_when_a_snapshot_was_taken_is_read_from_created(bench: Workbench) -> None:
    """Monthly snapshots taken on their dates stand for the month before; 0 means that nobody knows."""
    with connect(bench.database.url) as connection:
        connection.exec_driver_sql("UPDATE ms_snapshot SET created = unixepoch(snapshot_date)")
    taken = bench.command("check", "--target", "test").stdout
    computed = bench.steps(kpis=SIGNUPS, from_year=2021, to_year=2021).readings.computed
    assert "so this sums the joins of December 2020 to November 2021" in computed["warnings"][0][-1]
    with connect(bench.database.url) as connection:
        connection.exec_driver_sql(
            "UPDATE ms_snapshot SET created = 0, definition = NULL WHERE definition = 'plan_levels'"
        )
        connection.exec_driver_sql("UPDATE ms_snapshot SET created = 0")
    unknown = bench.command("check", "--target", "test").stdout
    assert "made before the end of the period" in taken
    assert "made before the end of the period" not in unknown


def test_a_store_with_the_columns_of_both_modules_goes_the_whole_way(bench: Workbench) -> None:
    add_cachetags(bench.database)
    with connect(bench.database.url) as connection:
        for column in ("is_test SMALLINT", "created INTEGER DEFAULT 0"):
            connection.exec_driver_sql(f"ALTER TABLE ms_snapshot ADD COLUMN {column}")
        connection.exec_driver_sql("UPDATE ms_snapshot SET is_test = 1 WHERE id = 283")
        connection.exec_driver_sql("UPDATE ms_snapshot SET is_test = 0 WHERE id <> 283")
    snapshots = bench.steps().readings.snapshots
    assert snapshots["is_test"].dtype == bool
    assert snapshots.loc[snapshots["is_test"], "snapshot_id"].tolist() == [283]
    assert "system" in set(snapshots["source"])
    whole_way(bench)


@pytest.mark.slow
@dashboard
@on("sqlite")
def test_the_notebooks_run_on_the_dashboard_modules_store(bench: Workbench) -> None:
    def command(*arguments: str) -> Any:
        done = bench.command(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    years = ("--from-year", "2015", "--to-year", "2025", "--as-of", "2026-11-22T12:00:00")
    run = command("run", "--target", "test", *years, "--apply")
    assert run["state"] == "applied"
    assert command("replay", run["run_id"])
    assert command("revert", run["run_id"], "--apply")["state"] == "applied"
    assert command("explain", SIGNUPS, "--year", "2021", "--target", "test")["computed"] is not None


@pytest.mark.parametrize(
    ("layout", "prefix"), [("composite", "dru_"), ("surrogate", "Dru$"), ("dashboard", "dru_")], indirect=["layout"]
)
def test_drupals_tables_may_have_a_prefix(bench: Workbench, prefix: str) -> None:
    add_cachetags(bench.database)
    expected = bench.steps(include_risky=True)
    prefix_tables(bench.database, prefix)
    bench.configure(site={"table_prefix": prefix})
    steps = bench.steps(include_risky=True)
    assert_frame_equal(steps.readings.computed, expected.readings.computed)
    assert len(steps.plan) == len(expected.plan)
    whole_way(bench, prefix)
    said = kb.check("test")["text"].str.cat(sep="\n")
    assert f"cache tags ({prefix}cachetags)" in said
    for kpi in ("active_instructors_bipoc", "education_nps", SIGNUPS):
        assert kb.explain(kpi, year=2021, target="test").problems == ()


@on("mariadb", "postgresql")
def test_civicrm_may_have_a_schema_of_its_own_where_drupals_tables_have_a_prefix(bench: Workbench) -> None:
    add_cachetags(bench.database)
    prefix_tables(bench.database, "dru_")
    with civicrm_moved(bench.database) as schema:
        bench.configure(site={"table_prefix": "dru_", "civicrm_schema": schema})
        whole_way(bench, "dru_")


@on("sqlite", "mariadb")
def test_messages_name_a_table_as_it_is_stored(bench: Workbench) -> None:
    prefix_tables(bench.database, "dru_")
    bench.configure(site={"table_prefix": "dru_"})
    with connect(bench.database.url) as connection:
        for name in ("user__roles", "ms_fact_org_snapshot", FACTS):
            connection.exec_driver_sql(f"DROP TABLE dru_{name}")
        connection.exec_driver_sql("UPDATE dru_ms_snapshot SET snapshot_date = '2024-13-01' WHERE id = 1")
    said = kb.check("test")["text"].str.cat(sep="\n")
    for text in ("dru_user__roles can't", "dru_ms_fact_org_snapshot can't", f"dru_{FACTS} can't", "in dru_ms_snapshot"):
        assert text in said
    assert "is table_prefix in [site] the prefix" in said
    with pytest.raises(Refused, match=f"lacks the table dru_{FACTS};"):
        bench.steps()
