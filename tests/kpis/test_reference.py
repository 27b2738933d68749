"""The reference makerspace: what each KPI must be, to the last digit, on every engine."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.databases import Database, connect, reference_expected
from tests.kpis.makerspace import KPIS, Makerspace, year

YEARS = [year(number) for number in range(2015, 2026)]


def annual_snapshots(database: Database) -> dict[int, int]:
    """The year of each annual snapshot."""
    query = sa.text(
        "SELECT id, snapshot_date FROM ms_snapshot WHERE definition = 'membership_totals'"
        " AND snapshot_type IN ('annual', 'annually') AND snapshot_date BETWEEN '2015-01-01' AND '2025-12-31'"
    )
    with connect(database.url) as connection:
        return {row.id: int(row.snapshot_date[:4]) for row in connection.execute(query)}


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_every_expected_number_is_met_exactly(makerspace: Makerspace, zone: str) -> None:
    expected = {(row["snapshot_id"], row["kpi_id"]): row["metric_value"] for row in reference_expected(zone)}
    computed = {}
    scores = {}
    for kpi_id in KPIS:
        for value in makerspace.compute(kpi_id, *YEARS, zone=zone):
            for snapshot_id, snapshot_year in annual_snapshots(makerspace.database).items():
                if snapshot_year == value.window_id:
                    computed[snapshot_id, kpi_id] = value.value
                    scores[snapshot_id, kpi_id] = value.basis
    differing = {key: value for key, value in computed.items() if value != expected.get(key)}
    # An NPS of 0 without any score is no data here.
    assert all(kpi_id == "education_nps" and value is None for (_, kpi_id), value in differing.items())
    assert all(expected[key] == 0 and scores[key] == 0 for key in differing)
    assert len(differing) == 3
    assert expected.keys() <= computed.keys()


def test_each_kpi_is_one_statement_however_many_windows(makerspace: Makerspace) -> None:
    for kpi_id in KPIS:
        _, one = makerspace.ask(kpi_id, YEARS[0])
        _, eleven = makerspace.ask(kpi_id, *YEARS)
        assert (len(one), len(eleven)) == (1, 1)


def test_the_years_of_a_run_do_not_change_the_value_of_a_year(makerspace: Makerspace) -> None:
    for kpi_id in KPIS:
        together = makerspace.compute(kpi_id, *YEARS)
        assert together[::-1] == makerspace.compute(kpi_id, *YEARS[::-1])
        assert together[4:5] == makerspace.compute(kpi_id, YEARS[4])
        assert together[1::3] == makerspace.compute(kpi_id, *YEARS[1::3])


def test_no_windows_are_no_values_and_no_statement(makerspace: Makerspace) -> None:
    for kpi_id in KPIS:
        assert makerspace.ask(kpi_id) == ([], [])
