"""Snapshots of a year, a quarter or a month, dated inside their period or on the first day after it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.database import php_serialize
from kpibackfill.errors import Refused
from kpibackfill.kpis.dating import window
from kpibackfill.kpis.registry import Cadence, Window
from kpibackfill.plots.layout import arrange
from tests.databases import Database, connect, dump, on
from tests.kpis.oracle import ORACLE
from tests.workbench import Workbench

ALL = "annually,annual,quarterly,monthly"
NEXT = {"site": {"dated": "first_of_next_month"}}
AS_OF = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("dated", "cadence", "inside", "before"),
    [
        ("2024-01-01", "annual", ("2024-01-01", "2024-12-31"), ("2023-01-01", "2023-12-31")),
        ("2024-12-31", "annual", ("2024-01-01", "2024-12-31"), ("2023-01-01", "2023-12-31")),
        ("2024-01-01", "quarterly", ("2024-01-01", "2024-03-31"), ("2023-10-01", "2023-12-31")),
        ("2024-07-01", "quarterly", ("2024-07-01", "2024-09-30"), ("2024-04-01", "2024-06-30")),
        ("2024-01-01", "monthly", ("2024-01-01", "2024-01-31"), ("2023-12-01", "2023-12-31")),
        ("2024-03-01", "monthly", ("2024-03-01", "2024-03-31"), ("2024-02-01", "2024-02-29")),
        ("2023-03-31", "monthly", ("2023-03-01", "2023-03-31"), ("2023-02-01", "2023-02-28")),
    ],
)
def test_a_date_represents_its_period_or_for_the_one_before(
    dated: str, cadence: Cadence, inside: tuple[str, str], before: tuple[str, str]
) -> None:
    for later, (first, last) in ((False, inside), (True, before)):
        start, end = window(date.fromisoformat(dated), cadence, later=later)
        assert (str(start), str(end)) == (f"{first} 00:00:00", f"{last} 23:59:59")


def tables_of(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All rows as the oracle expects them: times as texts."""
    with connect(database.url) as connection:
        metadata = sa.MetaData()
        metadata.reflect(connection)
        return {
            name: [
                {key: str(value) if isinstance(value, date) else value for key, value in row._mapping.items()}
                for row in connection.execute(sa.select(table))
            ]
            for name, table in metadata.tables.items()
        }


def shifted(tables: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The same tables, with each monthly snapshot dated in the month that it represents."""
    rows = []
    for row in tables["ms_snapshot"]:
        if row["snapshot_type"] == "monthly":
            start, _ = window(date.fromisoformat(row["snapshot_date"]), "monthly", later=True)
            row = {**row, "snapshot_date": str(start.date())}
        rows.append(row)
    return {**tables, "ms_snapshot": rows}


@pytest.mark.parametrize("dated", ["period", "first_of_next_month"])
def test_every_kpi_of_every_cadence_is_what_counting_row_by_row_yields(bench: Workbench, dated: str) -> None:
    bench.configure(site={"dated": dated})
    run = bench.begin(snapshot_types=ALL, include_risky=True, from_year=2023, to_year=2024, as_of=str(AS_OF))
    computed = kb.compute_kpis(run).computed
    tables = tables_of(bench.database)
    tables = tables if dated == "period" else shifted(tables)
    kinds: dict[str, Cadence] = {"monthly": "monthly", "quarterly": "quarterly"}
    assert {"monthly", "annually"} <= set(computed["snapshot_type"])
    for row in computed.to_dict("records"):
        cadence = kinds.get(row["snapshot_type"], "annual")
        start, end = window(date.fromisoformat(row["snapshot_date"]), cadence, later=dated != "period")
        value, basis, population = ORACLE[row["kpi_id"]](tables, Window(0, start, end, cadence), ZoneInfo("UTC"), AS_OF)
        found = [None if pd.isna(row[name]) else row[name] for name in ("computed", "basis", "population")]
        assert found == [value, basis, population], (row["kpi_id"], row["period"])
        assert row["year"] == start.year in (2023, 2024)


@on("sqlite", "postgresql")
def test_a_year_begins_with_the_snapshot_of_its_first_month(bench: Workbench) -> None:
    def periods(**settings: Any) -> dict[str, str]:
        bench.configure(**settings)
        run = bench.begin(snapshot_types="monthly", from_year=2023, to_year=2023)
        frame = kb.compute_kpis(run).snapshots
        assert set(frame["year"]) == {2023}
        return dict(zip(frame["snapshot_date"], frame["period"], strict=True))

    inside, after = periods(), periods(**NEXT)
    assert (min(inside), max(inside)) == ("2023-01-01", "2023-12-01")
    assert (min(after), max(after)) == ("2023-02-01", "2024-01-01")
    assert (inside["2023-02-01"], after["2023-02-01"]) == ("2023-02", "2023-01")
    assert after["2024-01-01"] == "2023-12"


def test_a_written_row_keeps_the_period_of_its_date_and_the_year_of_its_window(bench: Workbench) -> None:
    with connect(bench.database.url) as connection:
        connection.exec_driver_sql(
            "INSERT INTO ms_snapshot (definition, snapshot_type, snapshot_date, source) "
            "VALUES ('membership_totals', 'annual', '2024-01-01', 'next')"
        )
    bench.configure(**NEXT)
    before = dump(bench.database)["ms_fact_kpi_snapshot"]
    receipt = bench.finish(snapshot_types=ALL, from_year=2023, to_year=2023, kpis="workshop_attendees", apply=True)
    rows = {row["period"]: row for row in receipt["rows"] if row["snapshot_date"] == "2024-01-01"}
    assert rows.keys() == {"2023", "2023-12"}
    assert {(row["year"], row["period_year"], row["period_month"]) for row in rows.values()} == {(2023, 2024, 1)}
    assert rows["2023"]["computed"] > rows["2023-12"]["computed"] > 0
    written = set(dump(bench.database)["ms_fact_kpi_snapshot"]) - set(before)
    ids = {rows[period]["snapshot_id"] for period in rows}
    metas = [php_serialize.loads(row[5]) for row in written if row[0] in ids]
    assert {(meta or {})["computed_for_year"] for meta in metas} == {2023}
    assert {row[3:5] for row in written if row[0] in ids} == {(2024, 1)}
    assert (
        bench.finish(snapshot_types=ALL, from_year=2023, to_year=2023, kpis="workshop_attendees", apply=True)["plan"][
            "rows"
        ]
        == 0
    )


@on("sqlite")
@pytest.mark.parametrize("text", ["20241231", "2024-13-01", "2024-W52-2"])
def test_a_date_that_the_snapshot_module_does_not_write_is_refused(bench: Workbench, text: str) -> None:
    with connect(bench.database.url) as connection:
        one = "(SELECT MAX(id) FROM ms_snapshot WHERE snapshot_date LIKE '2024-%' AND snapshot_type LIKE 'annual%')"
        dated = sa.text(f"UPDATE ms_snapshot SET snapshot_date = :text WHERE id = {one}")  # noqa: S608 - our own text
        assert connection.execute(dated, {"text": text}).rowcount
    with pytest.raises(Refused, match=f"has the date '{text}', which is not a calendar date; nothing was written"):
        kb.compute_kpis(bench.begin(from_year=2023, to_year=2025))


@on("sqlite")
def test_a_default_run_takes_annual_snapshots_only(bench: Workbench) -> None:
    assert set(bench.steps().readings.snapshots["snapshot_type"]) <= {"annual", "annually"}


@on("sqlite")
def test_snapshots_that_begin_no_period_are_reported(bench: Workbench) -> None:
    bench.configure(**NEXT)
    notes = kb.compute_kpis(bench.begin(from_year=2023, to_year=2023)).notes
    assert any("not dated on the first day of a period" in note for note in notes)
    assert not any("first day" in n for n in kb.compute_kpis(bench.begin(snapshot_types="monthly")).notes)


@on("sqlite")
def test_a_kpi_without_a_monthly_window_is_refused_by_name(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kpibackfill.kpis import registry

    (tmp_path / "yearly_only.py").write_text(
        "import kpibackfill as kb\n"
        "@kb.kpi('yearly', label='Yearly', unit='count', family='own', description='One a year.', sources=[])\n"
        "def yearly(connection, site, windows):\n"
        "    return [kb.Value(window.window_id, 1) for window in windows]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_registry", dict(registry.load()))
    bench.configure(site={"kpi_modules": ["yearly_only"]})
    with pytest.raises(Refused, match=r"yearly has no monthly window.*nothing was read or written"):
        bench.begin(snapshot_types="annual,monthly")
    assert bench.begin(snapshot_types="monthly", kpis="education_nps").kpis
    assert len(bench.steps(kpis="yearly").drift) > 0


@on("sqlite")
def test_figures_and_tables_keep_the_periods_apart(bench: Workbench) -> None:
    steps = bench.steps(snapshot_types="annual,annually,monthly", from_year=2024, to_year=2024)
    periods = ["2024", *(f"2024-{month:02}" for month in range(1, 13))]
    html = steps.readings._repr_html_()
    assert [html.count(f">{period}<") > 0 for period in periods] == [True] * 13
    arranged = arrange(steps.drift)
    assert list(arranged.slots) == periods[1:]
    (attendees,) = [entry for entry in arranged.entries if entry.kpi_id == "workshop_attendees"]
    computed = arranged.of(attendees.kpi_id).drop_duplicates(["slot", "computed"])
    assert len(computed) == 13  # the year's own along with January's
