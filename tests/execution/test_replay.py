"""Replaying: the same numbers to the last digit, or which differ, and whether data, definition or code changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kpibackfill.archive.models import Receipt, read
from kpibackfill.config import Config
from kpibackfill.errors import Refused
from kpibackfill.execution.replay import Replay, compare, replay, text
from tests.databases import connect, on
from tests.workbench import Workbench, refusal

FEW: dict[str, Any] = {"kpis": "education_nps,total_new_member_signups"}
org = sa.table("ms_fact_org_snapshot", sa.column("joins"), sa.column("snapshot_id"))
facts = sa.table("ms_fact_kpi_snapshot", sa.column("metric_value"), sa.column("kpi_id"))

pytestmark = on("sqlite")

KPI = """
import sqlalchemy as sa
import kpibackfill as kb

@kb.kpi("own", label="Own", unit="count", family="own", description="Joins.", sources=[], reads_store=True)
def own(connection, site, windows):
    joins = sa.table("ms_fact_org_snapshot", sa.column("joins"))
    (row,) = connection.execute(sa.select(sa.func.sum(joins.c.joins).label("total")).where({where}))
    return [kb.Value(window.window_id, {value}) for window in windows]
"""


def change(bench: Workbench, statement: sa.Executable) -> None:
    with connect(bench.database.url) as connection:
        connection.execute(statement)


def replayed(before: dict[str, Any], after: dict[str, Any]) -> Replay:
    """Two receipts, as JSON has them, compared."""
    return compare(*(read(Receipt, json.dumps(receipt)) for receipt in (before, after)))


def again(bench: Workbench, before: dict[str, Any]) -> Replay:
    """The same run once more in this process, compared as a replay does."""
    return replayed(before, bench.finish(**FEW))


def test_the_same_data_and_code_give_the_same_numbers_even_if_the_stored_rows_changed(bench: Workbench) -> None:
    before = bench.finish(**FEW, apply=True)
    found = again(bench, before)
    assert found.same
    assert repr(found) == f"Same numbers as {before['run_id']}: 24 rows compared."
    assert found.frame().empty


def test_changed_source_data_are_recognized_by_the_fingerprints_of_the_grouped_rows(bench: Workbench) -> None:
    before = bench.finish(**FEW)
    change(bench, sa.update(org).values(joins=org.c.joins + 1))
    found = again(bench, before)
    frame = found.frame()
    assert set(frame["kpi_id"]) == {"total_new_member_signups"}
    assert set(frame["why"]) == {"source data"}
    assert (frame["now"] > frame["then"]).all()
    assert found.difference.kpis["education_nps"].result == "same"


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [("True", "row.total + 1", {"definition"}), ("joins.c.joins > 0", "row.total", set())],
    ids=["other formula", "other query, same numbers"],
)
def test_a_changed_definition_is_reported_as_such(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, where: str, value: str, why: set[str]
) -> None:
    from kpibackfill.kpis import registry

    monkeypatch.syspath_prepend(str(bench.folder))
    monkeypatch.setattr(registry, "_registry", dict(registry.load()))
    bench.configure(site={"kpi_modules": ["own_kpi"]})

    def run(source: str) -> dict[str, Any]:
        import importlib
        import linecache
        import sys

        (bench.folder / "own_kpi.py").write_text(source)
        sys.modules.pop("own_kpi", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        return bench.finish(kpis="own", from_year=2019, to_year=2019)

    before = run(KPI.format(where="sa.true()", value="row.total"))
    found = replayed(before, run(KPI.format(where=where if where != "True" else "sa.true()", value=value)))
    assert {row.why for row in found.rows} == why
    assert found.difference.kpis["own"].definition == "other"
    assert found.difference.kpis["own"].result == ("same" if where == "True" else "unknown")


def test_a_snapshot_that_is_gone_counts_as_changed_data(bench: Workbench) -> None:
    before = bench.finish(**FEW)
    snapshots = sa.table("ms_snapshot", sa.column("id"))
    change(bench, sa.delete(snapshots).where(snapshots.c.id == 273))
    found = again(bench, before)
    assert {(row.snapshot_id, row.why, row.computed[1]) for row in found.rows} >= {(273, "source data", None)}


def test_changed_settings_are_named_and_not_taken_for_changed_data(bench: Workbench) -> None:
    bench.configure(timezone="America/New_York")
    before = bench.finish(**FEW)
    bench.configure(timezone="UTC")
    found = again(bench, before)
    assert {row.why for row in found.rows} == {"parameters or settings"}
    assert found.difference.settings == {"target.timezone": ("America/New_York", "UTC")}
    assert "Settings that differ: target.timezone, America/New_York then and UTC now." in text(found)
    bench.configure(timezone="America/New_York", site={"definition": "other_totals"})
    found = again(bench, before)
    assert {row.why for row in found.rows} == {"parameters or settings"}
    assert all(row.computed[1] is None for row in found.rows)


def test_a_snapshot_that_one_run_did_not_find_is_changed_data_only_if_nothing_else_differs(bench: Workbench) -> None:
    before = bench.finish(**FEW)
    after = {**before, "rows": [row for row in before["rows"] if row["snapshot_id"] != 273]}

    def why(**changes: Any) -> set[str]:
        return {str(row.why) for row in replayed(before, after | changes).rows}

    assert why() == {"source data"}
    assert why(code=before["code"] | {"sources_sha256": "0" * 64}) == {"cannot tell"}
    assert why(site=before["site"] | {"attendance_label": "Program"}) == {"cannot tell"}
    assert why(site=before["site"] | {"dated": "first_of_next_month"}) == {"parameters or settings"}


def test_a_run_that_computed_nothing_or_was_altered_is_not_replayed(bench: Workbench) -> None:
    config: Config = bench.config
    run = bench.begin(record=True, **FEW)
    assert run.run_id is not None
    with pytest.raises(Refused, match="before it computed anything"):
        replay(config, run.run_id)
    before = bench.finish(**FEW)
    path: Path = config.runs_dir / before["run_id"] / "receipt.json"
    path.write_bytes(path.read_bytes().replace(b"2015", b"2016", 1))
    assert "receipt.json was altered" in refusal(bench.command("replay", before["run_id"]))
    assert "is not a full run id" in refusal(bench.command("replay", "latest"))


@pytest.mark.slow
def test_a_replay_executes_the_notebook_as_of_the_archived_instant_and_exits_with_2_where_it_differs(
    bench: Workbench,
) -> None:
    before = bench.finish(**FEW, apply=True, reason="the yearly backfill")
    same = bench.command("replay", before["run_id"])
    assert (same.exit_code, same.stdout.splitlines()[0]) == (
        0,
        f"Same numbers as {before['run_id']}: 24 rows compared.",
    )
    record = json.loads((bench.runs[-1] / "receipt.json").read_bytes())
    assert record["state"] == "dry_run"
    assert record["parameters"]["as_of"] == before["parameters"]["as_of"]
    assert record["reason"] == f"Replay of {before['run_id']}"
    change(bench, sa.update(org).values(joins=org.c.joins + 1))
    differs = bench.command("replay", before["run_id"], "--json")
    assert differs.exit_code == 2
    document = json.loads(differs.stdout)
    assert not document["same"]
    assert document["settings"] == {}
    assert {row["why"] for row in document["rows"]} == {"source data"}
