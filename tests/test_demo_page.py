"""The demo's dashboard: its payload shows what the stored rows and the members who joined would show."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kpibackfill.database.php_serialize import loads
from kpibackfill.demo import build_demo

NOW = dt.datetime(2026, 3, 15, 12)
SIGNUPS = "kpi_total_new_member_signups"
SECTIONS = {
    "outreach": [SIGNUPS, "kpi_total_first_time_workshop_participants"],
    "education": [
        "kpi_workshop_attendees",
        "kpi_education_nps",
        "kpi_workshop_participants_bipoc",
        "kpi_active_instructors_bipoc",
    ],
    "dei": ["kpi_workshop_participants_bipoc", "kpi_active_instructors_bipoc"],
    "retention": ["kpi_total_active_members"],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_demo(tmp_path_factory.mktemp("demo") / "demo.sqlite", until_year=2025, now=NOW).path


@pytest.fixture(scope="module")
def sections(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT name, value FROM key_value WHERE collection = 'makerspace_dashboard_kpi'"
        return {name: loads(value) for name, value in connection.execute(query)}


@pytest.fixture(scope="module")
def kpis(sections: dict[str, Any]) -> dict[str, Any]:
    return {kpi_id: kpi for section in sections.values() for kpi_id, kpi in section["data"].items()}


@pytest.fixture(scope="module")
def stored(path: Path) -> dict[str, dict[int, float]]:
    """By KPI and year the annual row of the latest date, as a FLOAT column prints it."""
    rows: dict[str, dict[int, float]] = {}
    query = """SELECT f.kpi_id, CAST(substr(s.snapshot_date, 1, 4) AS INT), CAST(printf('%.6g', f.metric_value) AS REAL)
               FROM ms_fact_kpi_snapshot f JOIN ms_snapshot s ON s.id = f.snapshot_id
               WHERE s.snapshot_type LIKE '%annual%' ORDER BY s.snapshot_date"""
    with closing(sqlite3.connect(path)) as connection:
        for kpi_id, year, value in connection.execute(query):
            rows.setdefault(kpi_id, {})[year] = value
    return rows


def actual(kpi: dict[str, Any]) -> dict[int, float]:
    return {
        year: kpi["annual_values"][year] for year, source in kpi["annual_value_sources"].items() if source != "target"
    }


def test_the_sections_were_computed_two_hours_ago_and_hold_for_six(sections):
    assert {name.removeprefix("section:v2:"): list(section["data"]) for name, section in sections.items()} == SECTIONS
    for section in sections.values():
        assert section["computed_at"] == NOW.timestamp() - 7200
        assert section["expires_at"] == section["computed_at"] + 6 * 3600


def test_a_year_shows_its_last_stored_row_else_a_target_of_the_plan(kpis, stored):
    assert stored["kpi_workshop_attendees"][2023] == 1237  # not the manual import's 1,240
    for kpi_id, kpi in kpis.items():
        assert set(kpi["annual_values"]) == set(kpi["annual_value_sources"])
        assert kpi_id == SIGNUPS or actual(kpi) == stored[kpi_id]
        assert {2027, 2028, 2029, 2030} <= kpi["annual_values"].keys() - actual(kpi).keys()
        assert {type(value) for value in kpi["annual_values"].values()} == {float}
        assert kpi["last_updated"] == "2025-12-01"


def test_members_who_joined_in_the_last_36_months_replace_the_stored_signups(kpis, stored):
    live, rows = actual(kpis[SIGNUPS]), stored[SIGNUPS]
    assert {year: live[year] for year in rows if year < 2023} == {year: rows[year] for year in rows if year < 2023}
    assert 0.7 * rows[2023] < live[2023] < 0.85 * rows[2023]  # from March on
    assert 0.9 * rows[2024] < live[2024] < rows[2024]
    assert live[2025] > 0
    assert 2025 not in rows
    assert kpis[SIGNUPS]["annual_value_sources"][2026] == "actual_ytd"
    assert 0 < live[2026] < 0.4 * live[2025]


def test_another_collection_has_a_row_too(path):
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM key_value WHERE collection = 'state'").fetchone() == (1,)
