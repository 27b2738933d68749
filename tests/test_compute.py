"""Computing: the reference's numbers through the steps of a run, all read as of one moment."""

from __future__ import annotations

import math
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import kpibackfill as kb
from kpibackfill.errors import Refused
from kpibackfill.kpi_values import held_to_contract
from kpibackfill.kpis import registry
from tests.databases import all_layouts, connect, on, reference_expected
from tests.workbench import Workbench

# A site's own KPI, without its last line.
RAISING = """import kpibackfill as kb
@kb.kpi("raising", label="", unit="count", family="", description="", sources=[])
def raising(connection, site, windows):
    print("noise")
    """
SIX = {"include_risky": True}
ANY_VALUE: Any = kb.Value
"""`kb.Value` as untyped code calls it."""


@all_layouts
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
    # An NPS without any score is no data here; the reference has 0.
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


@on("sqlite")
@pytest.mark.parametrize(
    "lines", ["raise ValueError('an answer')", "raise SystemExit('an answer')", "yield int('an answer')"]
)
def test_what_a_sites_own_kpi_raises_or_prints_is_its_own(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: str
) -> None:
    monkeypatch.syspath_prepend(bench.folder)
    monkeypatch.delitem(sys.modules, "raising", raising=False)
    monkeypatch.setattr(registry, "_registry", registry.load())
    (bench.folder / "raising.py").write_text(RAISING + lines)
    bench.configure(site={"kpi_modules": ["raising"]})
    run = bench.begin(kpis="raising", from_year=2024, to_year=2024)
    with pytest.raises(Refused, match=r"'raising' raised \w+ \(raising, line 5\); nothing was written") as raised:
        kb.compute_kpis(run)
    assert "an answer" not in raised.value.message
    assert "an answer" in str(raised.value.__cause__)
    assert capsys.readouterr() == ("", "noise\n")


@on("sqlite")
def test_what_a_built_in_kpi_raises_stays_a_bug(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kpibackfill.kpis.evaluations.score", None)
    run = bench.begin(kpis="education_nps", from_year=2024, to_year=2024)
    with pytest.raises(TypeError):
        kb.compute_kpis(run)


def _site_kpi(bench: Workbench, monkeypatch: pytest.MonkeyPatch, given: object) -> None:
    """Compute with a site's own KPI that returns this."""
    own = registry.Kpi("own", "Own", "count", "own", "Own.", (), lambda connection, site, windows: given)  # type: ignore[arg-type, return-value]
    monkeypatch.setitem(registry._registry, "own", own)
    kb.compute_kpis(bench.begin(kpis="own", from_year=2024, to_year=2024))


@pytest.mark.parametrize(
    "given",
    [
        None,
        5,
        [(0, 1)],
        [ANY_VALUE([], 1)],
        [ANY_VALUE("a", 1)],
        [ANY_VALUE(99999, 1)],
        *(
            [ANY_VALUE(0, value)]
            for value in ("7", "an answer", True, 3j, [1], np.array([1, 2]), 10**400, Decimal("1e39"), math.nan)
        ),
        *([ANY_VALUE(0, 1, basis)] for basis in (-1, 2.5, "a", math.nan, 10**30, True)),
        *([ANY_VALUE(0, 1, 1, 1, texts)] for texts in ("a sentence", [1], None, ["a\nb"], ["x" * 10**6], ["\udcff"])),
    ],
    ids=lambda given: repr(given)[:50].encode("ascii", "replace").decode(),
)
@on("sqlite")
def test_a_kpi_that_returns_nonsense_is_named(bench: Workbench, monkeypatch: pytest.MonkeyPatch, given: object) -> None:
    with pytest.raises(Refused, match=r"The KPI 'own' returned .*nothing was written. Fix its module") as refused:
        _site_kpi(bench, monkeypatch, given)
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 200
    assert "answer" not in refused.value.message
    assert "sentence" not in refused.value.message


@on("sqlite")
def test_a_refused_step_closes_the_record_even_if_its_arguments_have_names(bench: Workbench) -> None:
    run = bench.begin(record=True, kpis="education_nps")
    with connect(bench.database.url) as connection:
        connection.exec_driver_sql("DROP TABLE ms_fact_kpi_snapshot")
    with pytest.raises(Refused):
        kb.compute_kpis(run=run)
    assert run.record is not None
    assert run.record.receipt.as_json()["state"] == "refused"


@on("sqlite")
def test_numbers_of_drivers_and_numpy_become_plain(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (
        ANY_VALUE(np.int64(0), np.float32(3.5), np.int64(3), Decimal(4), ["One month is missing."]),
        ANY_VALUE(0, Decimal("3.5"), 3, 4.0, ("One month is missing.",)),
    ):
        held = held_to_contract(registry.load()["education_nps"], given)
        assert held == ANY_VALUE(0, 3.5, 3, 4, ("One month is missing.",))
        assert [type(x) for x in (held.window_id, held.value, held.basis, held.population)] == [int, float, int, int]
