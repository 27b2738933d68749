"""`verify --target`: anyone who changes a row, or the record of it, must change both."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from kpibackfill.archive.reconcile import reconcile
from kpibackfill.archive.verify import verify
from kpibackfill.database import php_serialize
from tests.archives import FEW
from tests.databases import both_layouts, connect, on
from tests.workbench import Workbench

facts = sa.table(
    "ms_fact_kpi_snapshot",
    *map(sa.column, ("snapshot_id", "kpi_id", "metric_value", "period_year", "period_month", "meta")),
)


def found(bench: Workbench) -> list[str]:
    about_rows = reconcile(bench.config, "test").findings[len(verify(bench.config.runs_dir).findings) :]
    return [str(finding) for finding in about_rows]


def change(bench: Workbench, row: dict[str, Any], **values: Any) -> None:
    with connect(bench.database.url) as connection:
        connection.execute(sa.update(facts).where(_is(row)).values(values))


def _is(row: dict[str, Any]) -> sa.ColumnElement[bool]:
    return sa.and_(facts.c.snapshot_id == row["snapshot_id"], facts.c.kpi_id == row["kpi_id"])


def named(row: dict[str, Any]) -> str:
    return f"snapshot {row['snapshot_id']}, {row['kpi_id']}"


@both_layouts
def test_an_applied_run_and_its_rows_vouch_for_each_other(bench: Workbench) -> None:
    assert bench.finish(**FEW, apply=True)["written"]["rows"]
    assert found(bench) == []


@on("sqlite")
def test_rows_written_under_another_name_of_the_same_database_are_known(bench: Workbench) -> None:
    path = bench.folder / "kpibackfill.toml"
    path.write_text(path.read_text() + f'[targets.again]\nstore = "{bench.database.url}"\n')
    row = bench.finish(**FEW, target="again", apply=True)["written"]["rows"][0]
    assert found(bench) == []
    drift = bench.steps(kpis=FEW["kpis"]).drift
    assert drift["recorded"].notna().any()
    assert set(drift["moved"]) == {""}
    change(bench, row, metric_value=77.0)
    assert any(named(row) in text for text in found(bench))


@on("sqlite")
def test_rows_that_are_not_as_recorded_are_named(bench: Workbench) -> None:
    receipt = bench.finish(**FEW, apply=True)
    run_id, rows = receipt["run_id"], receipt["written"]["rows"]
    meta = {"source": "kpibackfill", "run_id": run_id, "plan": receipt["plan"]["fingerprint"]}
    with connect(bench.database.url) as connection:
        connection.execute(sa.delete(facts).where(_is(rows[0])))
        connection.execute(
            sa.insert(facts).values(
                snapshot_id=rows[0]["snapshot_id"],
                kpi_id="smuggled",
                metric_value=1.0,
                period_year=2024,
                period_month=12,
                meta=php_serialize.dumps(meta),
            )
        )
    change(bench, rows[1], metric_value=4321.0)
    change(bench, rows[2], meta=None)
    change(bench, rows[3], meta=php_serialize.dumps(meta | {"run_id": f"2001{run_id[4:]}"}))
    change(bench, rows[4], meta=php_serialize.dumps(meta | {"plan": "0" * 64}))
    change(bench, rows[5], metric_value=4321.0, meta=b"Array")
    assert set(found(bench)) == {
        f"{named(rows[0])}: was written by {run_id} and is gone",
        f"snapshot {rows[0]['snapshot_id']}, smuggled: names the run {run_id}, which wrote no such row",
        f"{named(rows[1])}: names {run_id}, which wrote a different value",
        f"{named(rows[2])}: no longer names {run_id}, which wrote it last",
        f"{named(rows[3])}: names the run 2001{run_id[4:]}, which is not in this archive",
        f"{named(rows[3])}: no longer names {run_id}, which wrote it last",
        f"{named(rows[4])}: names a plan other than that of {run_id}",
        f"{named(rows[5])}: differs from the value that {run_id} wrote last",
    }
    result = bench.command("verify", "--target", "test")
    assert result.exit_code == 2
    assert f"FINDING  {named(rows[0])}: was written by {run_id} and is gone" in result.stdout


@on("sqlite")
def test_a_reverted_run_leaves_no_finding(bench: Workbench) -> None:
    applied = bench.finish(**FEW, apply=True)
    reverted = bench.finish(revert_of=applied["run_id"], apply=True)
    assert len(reverted["written"]["rows"]) == len(applied["written"]["rows"])
    assert found(bench) == []
    insert = next(row for row in applied["written"]["rows"] if row["action"] == "insert")
    with connect(bench.database.url) as connection:
        connection.execute(
            sa.insert(facts).values(
                snapshot_id=insert["snapshot_id"],
                kpi_id=insert["kpi_id"],
                metric_value=insert["after"],
                period_year=2024,
                period_month=12,
            )
        )
    assert found(bench) == [f"{named(insert)}: was deleted by {reverted['run_id']} and exists again"]


@both_layouts
def test_every_column_of_a_row_written_last_is_compared_with_what_the_run_left(bench: Workbench) -> None:
    receipt = bench.finish(**FEW, apply=True)
    run_id, rows = receipt["run_id"], receipt["written"]["rows"]
    with connect(bench.database.url) as connection:
        meta = bytes(connection.execute(sa.select(facts.c.meta).where(_is(rows[2]))).scalar_one())
    change(bench, rows[0], period_month=3)
    change(bench, rows[1], period_year=1999)
    change(bench, rows[2], meta=meta.replace(b'"computed_for_year";i:20', b'"computed_for_year";i:19'))
    assert found(bench) == [
        f"{named(rows[0])}: differs from what {run_id} left: period_month",
        f"{named(rows[1])}: differs from what {run_id} left: period_year",
        f"{named(rows[2])}: differs from what {run_id} left: meta",
    ]


@on("sqlite")
def test_a_row_that_a_revert_restored_is_also_compared_to_the_byte(bench: Workbench) -> None:
    applied = bench.finish(**FEW, apply=True)
    reverted = bench.finish(revert_of=applied["run_id"], apply=True)
    row = next(row for row in reverted["written"]["rows"] if row["action"] == "update")
    change(bench, row, meta=b"Array", period_month=1)
    assert found(bench) == [f"{named(row)}: differs from what {reverted['run_id']} left: period_month, meta"]


@on("sqlite")
def test_what_was_compared_is_reported_even_if_all_is_well(bench: Workbench) -> None:
    recorded = len(bench.finish(**FEW, apply=True)["written"]["rows"])
    with connect(bench.database.url) as connection:
        rows = connection.scalar(sa.select(sa.func.count()).select_from(facts))
    document = json.loads(bench.command("verify", "--target", "test", "--json").stdout)
    assert (document["ok"], document["target"]) == (True, "test")
    assert (document["rows"], document["recorded"]) == (rows, recorded)
    printed = bench.command("verify", "--target", "test").stdout
    assert f"Checked test: {recorded} rows on record compared with the {rows} rows of its table." in printed
    assert json.loads(bench.command("verify", "--json").stdout)["rows"] is None


@on("sqlite")
def test_a_forged_record_is_seen_in_the_database(bench: Workbench) -> None:
    """Rewriting the ledger, digests and all, does not change the rows."""
    from kpibackfill.archive import ledger
    from kpibackfill.archive.verify import verify

    receipt = bench.finish(**FEW, apply=True)
    runs_dir = bench.config.runs_dir
    path = runs_dir / ledger.FILE_NAME
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[-1].pop("digest")
    lines[-1]["changes"][0]["after"] = 1.0
    forged = [path.read_bytes().splitlines()[0], ledger.with_digest(json.dumps(lines[-1]).encode())]
    path.write_bytes(b"".join(line + b"\n" for line in forged))
    (finding,) = verify(runs_dir).findings
    assert finding.problem == "disagrees with the ledger: changes"
    assert found(bench) == [
        f"{named(receipt['written']['rows'][0])}: names {receipt['run_id']}, which wrote a different value"
    ]


@pytest.mark.parametrize("arguments", [["--target", "nothing"], ["--head", "abc"]])
@on("sqlite")
def test_a_wrong_option_is_refused(bench: Workbench, arguments: list[str]) -> None:
    assert bench.command("verify", *arguments).exit_code == 2
