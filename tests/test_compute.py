"""Computing: the reference's numbers through the steps of a run, all read as of one moment."""

from __future__ import annotations

import pytest

import kpibackfill as kb
from tests.databases import both_layouts, reference_expected
from tests.workbench import Workbench

SIX = {"include_risky": True}


@both_layouts
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_the_reference_is_met_to_the_last_digit(bench: Workbench, zone: str) -> None:
    bench.configure(timezone=zone)
    drift = bench.steps(**SIX).drift
    computed = {
        (row["snapshot_id"], row["kpi_id"]): (row["computed"], row["period_year"], row["period_month"])
        for row in drift[drift["computed"].notna()].to_dict("records")
    }
    expected = {
        (row["snapshot_id"], row["kpi_id"]): (row["metric_value"], row["period_year"], row["period_month"])
        for row in reference_expected(zone)
    }
    # An NPS without a single score is no data here, where the reference has 0.
    without = {key for key, value in expected.items() if key not in computed}
    assert {(kpi_id, expected[snapshot_id, kpi_id][0]) for snapshot_id, kpi_id in without} == {("education_nps", 0)}
    assert computed == {key: value for key, value in expected.items() if key not in without}
    assert len(without) == 3


def test_the_plan_of_the_reference_writes_what_is_computed(bench: Workbench) -> None:
    steps = bench.steps(**SIX)
    wanted = steps.drift[steps.drift["status"].isin(["new", "changed"])]
    planned = {(row.snapshot_id, row.kpi_id): row.value for row in steps.plan.rows}
    assert planned == {(row["snapshot_id"], row["kpi_id"]): row["computed"] for row in wanted.to_dict("records")}
    assert planned


def test_exploring_leaves_no_record(bench: Workbench) -> None:
    steps = bench.steps()
    kb.apply_plan(steps.run, steps.plan)
    assert not bench.config.runs_dir.exists()
