"""What a plan says of the page is what the page's reading code shows before and after the apply."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from kpibackfill.numbers import float4
from tests.databases import Database, all_layouts, connect, on
from tests.page.reader import cells
from tests.workbench import Workbench

KPIS = [
    "total_new_member_signups",
    "workshop_attendees",
    "total_first_time_workshop_participants",
    "education_nps",
    "workshop_participants_bipoc",
    "active_instructors_bipoc",
]
STORED = [f"kpi_{kpi_id}" for kpi_id in KPIS]


def makerspace(database: Database, chance: Random) -> None:
    """Annual and other snapshots of these years at random dates, some of them tests, with rows under both spellings."""
    with connect(database.url) as connection:
        snapshots = sa.Table("ms_snapshot", sa.MetaData(), autoload_with=connection)
        facts = sa.Table("ms_fact_kpi_snapshot", sa.MetaData(), autoload_with=connection)
        connection.execute(sa.delete(facts))
        connection.execute(sa.delete(snapshots).where(sa.func.lower(snapshots.c.snapshot_type) != "monthly"))
        if "source" in snapshots.c and chance.random() < 0.5:
            connection.exec_driver_sql("ALTER TABLE ms_snapshot ADD COLUMN is_test INTEGER DEFAULT 0")
            snapshots = sa.Table("ms_snapshot", sa.MetaData(), autoload_with=connection)
        days = [date(year, 12, 1) + timedelta(chance.randrange(31)) for year in range(2020, 2027)]
        for number in range(1000, 1000 + chance.randrange(6, 20)):
            row: dict[str, Any] = {
                "id": number,
                "definition": chance.choice(["membership_totals", "membership_totals", "plan_levels"]),
                "snapshot_type": chance.choice(["annually", "annual", "Annually", "quarterly", "semi_annual"]),
                "snapshot_date": str(chance.choice(days) - timedelta(chance.choice([0, 0, 1, 40, 200]))),
                "source": f"source {number}",
                "is_test": int(chance.random() < 0.2),
            }
            connection.execute(sa.insert(snapshots).values({k: v for k, v in row.items() if k in snapshots.c}))
            for kpi_id in chance.sample(KPIS, chance.randrange(len(KPIS))):
                values: dict[str, Any] = {
                    "snapshot_id": number,
                    "kpi_id": chance.choice(["", "kpi_", "kpi_"]) + kpi_id,
                    "metric_value": chance.randrange(1000) / 7,
                    "period_year": int(row["snapshot_date"][:4]),
                    "period_month": chance.choice([0, 6, 12]),
                }
                connection.execute(sa.insert(facts).values(values))
        connection.execute(sa.insert(facts).values(snapshot_id=1, kpi_id="kpi_tours", metric_value=1, period_year=2014))


@all_layouts
@pytest.mark.parametrize("seed", range(4))
def test_every_cell_called_shown_changes_to_the_planned_value_and_no_other(
    bench: Workbench, layout: str, seed: int
) -> None:
    makerspace(bench.database, Random(seed))
    bench.configure(site={"kpi_id_prefix": "auto"})
    today = date(2026, 11, 22)
    asked: dict[str, Any] = {"from_year": 2020, "to_year": 2026, "include_risky": True}
    before = [cells(bench.database, STORED, today, lower_wins=wins) for wins in (True, False)]
    receipt = bench.finish(**asked, apply=True)
    after = [cells(bench.database, STORED, today, lower_wins=wins) for wins in (True, False)]
    assert receipt["kpi_id_prefix"] == "kpi_"
    shown = {(row["snapshot_id"], row["kpi_id"]): row["shown"] for row in receipt["rows"]}
    dates = {row["snapshot_id"]: row["snapshot_date"] for row in receipt["rows"]}
    planned: dict[Any, set[float]] = {}
    for row in receipt["written"]["rows"]:
        if shown[row["snapshot_id"], row["kpi_id"].removeprefix("kpi_")] == "shown":
            planned.setdefault((row["kpi_id"], int(dates[row["snapshot_id"]][:4])), set()).add(row["after"])
    ties = {(f"kpi_{cell['kpi_id']}", cell["year"]) for cell in receipt["page"]["cells"] if len(cell["snapshots"]) > 1}
    for then, now in zip(before, after, strict=True):
        for cell in planned.keys() - ties:
            assert now[cell] in planned[cell]
        changed = {cell for cell in then.keys() | now.keys() if then.get(cell) != now.get(cell)}
        assert changed <= planned.keys() | ties
        said = {(f"kpi_{cell['kpi_id']}", cell["year"]): cell for cell in receipt["page"]["cells"]}
        for key, value in now.items():
            if key in said and said[key]["now_from"] != "live" and not said[key].get("withheld"):
                assert float4(value) in map(float4, said[key]["after"])
    hidden = {word for word in shown.values() if word not in ("shown", None)}
    assert hidden
    assert bench.finish(**asked)["plan"]["rows"] == 0


@pytest.mark.parametrize("stored_id", ["KPI_Education_NPS", "kpi_education_nps "])
def test_a_later_row_whose_id_the_database_finds_equal_is_in_front(bench: Workbench, stored_id: str) -> None:
    with connect(bench.database.url) as connection:
        facts = sa.Table("ms_fact_kpi_snapshot", sa.MetaData(), autoload_with=connection)
        other = {"id": 9000, "definition": "plan_levels", "snapshot_type": "annual", "snapshot_date": "2024-12-31"}
        snapshots = sa.Table("ms_snapshot", sa.MetaData(), autoload_with=connection)
        connection.execute(sa.update(snapshots).where(snapshots.c.id == 283).values(snapshot_date="2024-11-30"))
        connection.execute(sa.insert(snapshots).values(**other, source="system"))
        row = {"snapshot_id": 9000, "kpi_id": stored_id, "metric_value": 7, "period_year": 2024, "period_month": 12}
        connection.execute(sa.insert(facts).values(**row))
        found = connection.scalar(sa.select(sa.func.count()).where(facts.c.kpi_id == "kpi_education_nps"))
    bench.configure(site={"kpi_id_prefix": "kpi_"})
    drift = bench.steps(from_year=2024, to_year=2024, kpis="education_nps").drift
    assert drift["shown"].tolist() == ["behind" if found else "shown"]


@on("sqlite")
def test_a_row_that_stops_being_annual_and_is_restored_changes_its_year_as_told(bench: Workbench) -> None:
    with connect(bench.database.url) as connection:
        facts = sa.Table("ms_fact_kpi_snapshot", sa.MetaData(), autoload_with=connection)
        snapshots = sa.Table("ms_snapshot", sa.MetaData(), autoload_with=connection)
        june = connection.scalar(
            sa.select(snapshots.c.id).where(
                snapshots.c.snapshot_date == "2024-06-01", snapshots.c.definition == "membership_totals"
            )
        )
        whole = {"kpi_id": "kpi_workshop_attendees", "metric_value": 5, "period_year": 2024, "period_month": 0}
        connection.execute(sa.insert(facts).values(snapshot_id=june, **whole))
    bench.configure(site={"kpi_id_prefix": "kpi_"})
    asked = {"from_year": 2024, "to_year": 2024, "snapshot_types": "monthly", "kpis": "workshop_attendees"}
    applied = bench.finish(**asked, apply=True)
    (cell,) = applied["page"]["cells"]
    assert (cell["now"], cell["after"], cell["changes"]) == ([5.0], [], True)
    assert cells(bench.database, STORED, date(2026, 11, 22)).get(("kpi_workshop_attendees", 2024)) is None
    reverted = bench.finish(revert_of=applied["run_id"], apply=True, from_year=None, to_year=None)
    (cell,) = reverted["page"]["cells"]
    assert (cell["now"], cell["after"], cell["changes"]) == ([], [5.0], True)
    assert cells(bench.database, STORED, date(2026, 11, 22))["kpi_workshop_attendees", 2024] == 5


@on("sqlite")
@pytest.mark.parametrize(("is_test", "shown"), [("0", "shown"), ("1", "test"), ("NULL", "test")])
def test_a_page_reads_only_what_is_known_to_be_no_test(bench: Workbench, is_test: str, shown: str) -> None:
    with connect(bench.database.url) as connection:
        connection.exec_driver_sql(f"ALTER TABLE ms_snapshot ADD COLUMN is_test INTEGER DEFAULT {is_test}")
    bench.configure(site={"kpi_id_prefix": "kpi_"})
    assert set(bench.steps(from_year=2024, to_year=2024, kpis="education_nps").drift["shown"]) == {shown}
