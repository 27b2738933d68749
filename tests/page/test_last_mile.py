"""After the apply: what the page shows, and what is left to do until people see the rows."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.database.php_serialize import dumps
from kpibackfill.reporting.run_summary import run_summary
from tests.databases import add_payload, connect, on, put_payload
from tests.workbench import Workbench

AUTO = {"site": {"kpi_id_prefix": "auto"}}
ASKED: dict[str, Any] = {"from_year": 2023, "to_year": 2024, "kpis": "education_nps"}


@pytest.fixture
def served(bench: Workbench) -> Workbench:
    """A site whose dashboard stores pages with other numbers than the rows to come."""
    shown = {"kpi_education_nps": {2023: 1.0, 2024: 1.0}, "kpi_workshop_attendees": {2023: 1.0, 2024: 1.0}}
    add_payload(bench.database, education=shown, outreach={"kpi_total_new_member_signups": {2024: 7.0}})
    bench.configure(**AUTO)
    return bench


def test_an_apply_says_what_the_page_still_shows_and_names_the_section_to_warm(served: Workbench) -> None:
    receipt = served.finish(**ASKED, apply=True)
    after = receipt["page_after"]
    shown = [cell for cell in receipt["page"]["cells"] if cell["changes"]]
    assert after["stale"] == len(shown) == 2
    assert [section["name"] for section in after["sections"]] == ["education"]
    text = served.command("show", receipt["run_id"]).stdout
    assert "the page still shows other numbers than the rows in 2 cells" in text
    record = RunRecord(served.config.runs_dir, receipt["run_id"])
    assert "\n  drush msd:kpi-warm education\n" in run_summary(record.receipt, record.folder)
    assert "drush msd:kpi-warm education" in (served.runs[-1] / "report.html").read_text(encoding="utf-8")


@on("sqlite")
def test_a_command_that_warms_the_page_leaves_nothing_to_do(served: Workbench) -> None:
    dry = served.finish(**ASKED)
    values: dict[str, Any] = {}
    for cell in dry["page"]["cells"]:
        entry = values.setdefault(f"kpi_{cell['kpi_id']}", {"annual_values": {}, "annual_value_sources": {}})
        entry["annual_values"][str(cell["year"])] = cell["after"][0]
        entry["annual_value_sources"][str(cell["year"])] = "actual"
    payload = dumps({"data": values, "computed_at": 1_800_000_000, "expires_at": 1_800_021_600})
    path = sa.make_url(served.database.url).database
    update = "UPDATE key_value SET value = ? WHERE name = 'section:v2:education'"
    program = f"import sqlite3; c = sqlite3.connect({path!r}); c.execute({update!r}, ({payload!r},)); c.commit()"
    served.configure(**AUTO, after_apply=[sys.executable, "-c", program])
    receipt = served.finish(**ASKED, apply=True, approved_plan=dry["run_id"])
    assert receipt["page_after"]["stale"] == 0
    record = RunRecord(served.config.runs_dir, receipt["run_id"])
    assert "msd:kpi-warm" not in run_summary(record.receipt, record.folder)


@on("sqlite")
def test_without_a_stored_page_the_next_view_computes_it(bench: Workbench) -> None:
    bench.configure(**AUTO)
    receipt = bench.finish(**ASKED, apply=True)
    assert receipt["page_after"] == {"stale": 0, "sections": [], "note": None}
    put_payload(bench.database, "education", b"Array")
    receipt = bench.finish(from_year=2022, to_year=2022, apply=True)
    assert "education is not known" in receipt["page_after"]["note"]


@on("sqlite", "mariadb")
def test_a_decision_on_one_of_several_rows_of_a_year_says_which_one_people_see(bench: Workbench) -> None:
    with connect(bench.database.url) as connection:
        snapshots = sa.Table("ms_snapshot", sa.MetaData(), autoload_with=connection)
        facts = sa.Table("ms_fact_kpi_snapshot", sa.MetaData(), autoload_with=connection)
        own = sa.select(snapshots.c.id).where(snapshots.c.snapshot_date == "2024-12-31", snapshots.c.source == "system")
        (number,) = connection.scalars(own.where(snapshots.c.snapshot_type == "annually")).all()
        row = {"definition": "membership_totals", "snapshot_type": "annual", "created_at": 0}
        for other, date in ((900, "2024-06-30"), (901, "2024-12-31")):
            connection.execute(sa.insert(snapshots).values(id=other, snapshot_date=date, source=f"s{other}", **row))
        values = {"metric_value": 5, "period_year": 2024, "period_month": 12}
        connection.execute(sa.insert(facts).values(snapshot_id=number, kpi_id="kpi_education_nps", **values))
    bench.configure(**AUTO)
    asked: dict[str, Any] = {"from_year": 2024, "to_year": 2024, "kpis": "education_nps"}
    path = kb.review(bench.steps(**asked).plan, bench.folder / "d.csv").path
    for snapshot_id in (900, 901):
        kb.decide(path, "education_nps", "accept", snapshot_id=snapshot_id, reviewer="Ann")
    receipt = bench.finish(**asked, decisions=str(path))
    said = " ".join(receipt["notes"])
    assert "The row of snapshot 900 for education_nps (2024) is behind a later one" in said
    assert f"people will see it, or that of snapshot {number}." in said
    shown = {row["snapshot_id"]: row["shown"] for row in receipt["rows"]}
    assert (shown[900], shown[901], shown[number]) == ("behind", "shown", "shown")
    (cell,) = receipt["page"]["cells"]
    assert len(cell["after"]) == 2
    assert " or " in bench.command("show", receipt["run_id"]).stdout


@on("sqlite", "postgresql")
def test_a_revert_has_the_ids_of_the_run_that_it_reverts(bench: Workbench) -> None:
    asked: dict[str, Any] = {"from_year": 2022, "to_year": 2024}
    written = bench.finish(**asked, apply=True)
    assert not [row for row in written["written"]["rows"] if row["kpi_id"].startswith("kpi_")]
    bench.configure(**AUTO)
    assert bench.finish(**asked)["kpi_id_prefix"] == "kpi_"
    reverted = bench.finish(**asked, revert_of=written["run_id"], apply=True)
    assert reverted["kpi_id_prefix"] == ""
    assert len(reverted["written"]["rows"]) == len(written["written"]["rows"]) > 5
    assert not kb.verify(target="test").findings
