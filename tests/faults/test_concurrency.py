"""Several at once: applies on the same rows and on different ones, another writer, dry runs next to an apply."""

from __future__ import annotations

import time
from typing import Any

import pytest
import sqlalchemy as sa

from kpibackfill.archive.run_record import RunRecord
from kpibackfill.archive.verify import verify
from kpibackfill.database import php_serialize
from tests.databases import connect, dump
from tests.faults import tally
from tests.faults.harness import FACTS, SNAPSHOTS, TAGS, Child, Site

LONG = pytest.mark.faults
facts = sa.table(
    FACTS, *map(sa.column, ("snapshot_id", "kpi_id", "metric_value", "period_year", "period_month", "meta"))
)


def at_once(site: Site, each: list[dict[str, Any]]) -> list[tuple[Child, dict[str, Any]]]:
    """Runs that have all made their plans before the first applies; each with its receipt."""
    waiting = [site.at_gate(parameters) for parameters in each]
    for _, gate in waiting:
        gate.write_text("go")
    ended = []
    for child, _ in waiting:
        status = child.wait()
        receipt = RunRecord(site.config.runs_dir, child.run_id).receipt.as_json()
        assert receipt["ended_at"], child.errors
        assert status == (0 if receipt["state"] in ("applied", "dry_run") else 2), child.errors
        ended.append((child, receipt))
    verdict = verify(site.config.runs_dir)
    assert not verdict.findings, list(map(str, verdict.findings))
    assert verdict.runs == len(each)
    site.check_private()
    return ended


@pytest.mark.parametrize("number", [2, pytest.param(8, marks=LONG)])
def test_of_applies_on_the_same_rows_one_writes(site: Site, number: int) -> None:
    ended = at_once(site, [{} for _ in range(number)])
    states = [receipt["state"] for _, receipt in ended]
    assert sorted(states) == ["applied"] + ["refused"] * (number - 1)
    winner = next(child for child, receipt in ended if receipt["state"] == "applied")
    assert site.found(winner.run_id) == "after"
    assert {receipt["error"]["code"] for _, receipt in ended if receipt["error"]} <= {"stale", "locked"}
    tally.add("applies at once", site.name, "", number)


@LONG
@pytest.mark.parametrize("number", [2, 8])
def test_applies_on_different_rows_all_write(site: Site, number: int) -> None:
    each = [{"from_year": year, "to_year": year} for year in range(2025, 2025 - number, -1)]
    ended = at_once(site, each)
    assert {receipt["state"] for _, receipt in ended} == {"applied"}, [receipt["error"] for _, receipt in ended]
    now = {row[-6:-4]: row for row in dump(site.database)[FACTS]}
    wrote = 0
    for child, _ in ended:
        for key in site.plan(child.run_id):
            assert (php_serialize.loads(now[key][-1]) or {})["run_id"] == child.run_id
            wrote += 1
    assert wrote
    bumps = dict(dump(site.database)[TAGS])["makerspace_snapshot:kpi"] - 7
    assert bumps == sum(bool(site.plan(child.run_id)) for child, _ in ended)
    tally.add("applies at once", site.name, "", number)


@LONG
def test_two_dry_runs_next_to_an_apply(site: Site) -> None:
    ended = at_once(site, [{}, {"apply": False}, {"apply": False}])
    assert sorted(receipt["state"] for _, receipt in ended) == ["applied", "dry_run", "dry_run"]
    assert site.found(next(child.run_id for child, r in ended if r["state"] == "applied")) == "after"
    tally.add("applies at once", site.name, "", 3)


def test_the_snapshot_module_that_rewrites_a_snapshot_first_is_not_overwritten(site: Site) -> None:
    child, gate = site.at_gate()
    key = next(iter(site.plan(child.run_id)))
    _rewrite(site, key[0], key[1])
    theirs = dump(site.database)
    gate.write_text("go")
    assert child.wait() == 2, child.errors
    assert f"({key[0]}, {key[1]})" in child.errors
    assert dump(site.database) == theirs
    assert RunRecord(site.config.runs_dir, child.run_id).receipt.as_json()["state"] == "refused"
    tally.add("another writer", site.name, "")


@LONG
def test_the_snapshot_module_that_writes_at_the_same_time_comes_before_or_after(site: Site) -> None:
    """Its transaction is open when the run begins to write: the run waits for it, finds its rows changed, and stops."""
    child, gate = site.at_gate()
    key = next(iter(site.plan(child.run_id)))
    engine = sa.create_engine(site.database.url, poolclass=sa.NullPool)
    with engine.connect() as other:
        if site.name == "sqlite":
            other.exec_driver_sql("BEGIN IMMEDIATE")
        other.execute(sa.delete(facts).where(facts.c.snapshot_id == key[0]))
        other.execute(_theirs(*key))
        gate.write_text("go")
        child.wait_for("run")
        time.sleep(1)
        other.commit()
    theirs = dump(site.database)[FACTS]
    assert child.wait() == 2, child.errors
    assert dump(site.database)[FACTS] == theirs
    assert RunRecord(site.config.runs_dir, child.run_id).receipt.as_json()["error"]["code"] in ("stale", "database")
    tally.add("another writer", site.name, "")


@LONG
def test_the_snapshot_module_that_writes_later_is_seen_by_settle_and_by_the_next_run(site: Site) -> None:
    child = site.run()
    assert child.wait() == 0, child.errors
    key = next(iter(site.plan(child.run_id)))
    _rewrite(site, *key)
    again = site.run()
    assert again.wait() == 0, again.errors
    assert key in site.plan(again.run_id)
    assert site.plan(again.run_id)[key]["before"]["metric_value"] == 4.5
    tally.add("another writer", site.name, "")


@LONG
def test_a_snapshot_that_is_deleted_after_the_plan_stops_the_apply(site: Site) -> None:
    child, gate = site.at_gate()
    snapshot_id, _ = next(iter(site.plan(child.run_id)))
    with connect(site.database.url) as connection:
        connection.execute(sa.delete(sa.table(SNAPSHOTS, sa.column("id"))).where(sa.column("id") == snapshot_id))
    theirs = dump(site.database)
    gate.write_text("go")
    assert child.wait() == 2, child.errors
    assert f"snapshot {snapshot_id} is gone" in child.errors
    assert dump(site.database) == theirs
    tally.add("another writer", site.name, "")


def _theirs(snapshot_id: int, kpi_id: str) -> sa.Insert:
    return sa.insert(facts).values(
        snapshot_id=snapshot_id, kpi_id=kpi_id, metric_value=4.5, period_year=2024, period_month=12, meta=b"a:0:{}"
    )


def _rewrite(site: Site, snapshot_id: int, kpi_id: str) -> None:
    """What the module does: delete all rows of a snapshot and insert its own."""
    with connect(site.database.url) as connection:
        connection.execute(sa.delete(facts).where(facts.c.snapshot_id == snapshot_id))
        connection.execute(_theirs(snapshot_id, kpi_id))
