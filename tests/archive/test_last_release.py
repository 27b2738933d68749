"""An archive that the last release wrote is read, verified and reverted.

``archive-0.1.0.tar.xz`` holds its ``runs`` folder, with runs of every end, and the fact table as it was after them.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import kpibackfill as kb
from tests.databases import DATA, connect, on
from tests.workbench import Workbench

pytestmark = on("sqlite")

HEAD = "30dd203751bd9faa2c8f89390bd042c585e78783f30155a49b6805654d71725b"
facts = sa.table(
    "ms_fact_kpi_snapshot",
    *map(sa.column, ("snapshot_id", "kpi_id", "metric_value", "period_year", "period_month", "meta")),
)


@pytest.fixture
def old(bench: Workbench) -> Workbench:
    """The archive and the database as the last release left them."""
    with tarfile.open(DATA / "archive-0.1.0.tar.xz") as archive:
        archive.extractall(bench.folder, filter="data")
    rows: list[dict[str, Any]] = json.loads((bench.folder / "fact.json").read_bytes())
    with connect(bench.database.url) as connection:
        connection.execute(sa.delete(facts))
        for row in rows:
            meta = None if row["meta"] is None else bytes.fromhex(row["meta"])
            connection.execute(sa.insert(facts).values({**row, "meta": meta}))
    return bench


def run_id(bench: Workbench, **wanted: Any) -> str:
    return str(kb.runs(**wanted)["run_id"].iloc[-1])


def test_it_is_verified_with_its_rows_and_its_head_is_what_it_was(old: Workbench) -> None:
    verdict = kb.verify(target="test")
    assert not verdict.findings, list(map(str, verdict.findings))
    assert not verdict.notes
    assert (verdict.head, verdict.runs, verdict.recorded) == (HEAD, 8, 9)


def test_every_run_is_listed_shown_compared_and_in_the_history(old: Workbench) -> None:
    runs = kb.runs()
    assert set(runs["state"]) == {"dry_run", "applied", "refused", "not_in_effect"}
    assert runs["settled"].sum() == 2
    assert [len(approvals) for approvals in runs["approvals"]].count(1) == 1
    for name in runs["run_id"]:
        document = json.loads(old.command("show", name, "--json").stdout)
        folder = Path(document["folder"])
        assert document["receipt"] == json.loads((folder / "receipt.json").read_bytes())
        assert old.command("show", name).exit_code == 0
    assert kb.diff(runs["run_id"][0], runs["run_id"][2]) is not None
    history = kb.history()
    assert len(history) == 11
    assert set(history["reviewer"]) == {"", "Ann"}
    assert kb.history_table(history)._repr_html_()


def test_a_run_of_it_is_reverted_byte_for_byte(old: Workbench) -> None:
    applied = run_id(old, state="applied", year=2022)
    receipt = json.loads((old.folder / "runs" / applied / "receipt.json").read_bytes())
    done = old.finish(from_year=2022, to_year=2023, kpis=receipt["parameters"]["kpis"], revert_of=applied, apply=True)
    assert done["plan"]["rows"] == len(receipt["written"]["rows"]) == 4
    plan = json.loads((old.folder / "runs" / applied / "plan.json").read_bytes())
    with connect(old.database.url) as connection:
        stored = {(row.snapshot_id, row.kpi_id): row for row in connection.execute(sa.select(facts))}
    for row in plan["rows"]:
        found = stored.get((row["snapshot_id"], row["kpi_id"]))
        assert (found is None) == (row["before"] is None)
        assert found is None or found.metric_value == row["before"]["metric_value"]
    assert not kb.verify(target="test").findings
