"""What `check` asks to set for `dated`, followed to the letter, on stores that are dated in different ways."""

from __future__ import annotations

import calendar
import re
import tomllib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from kpibackfill.checks import check_target
from tests.databases import connect, on
from tests.kpis.makerspace import ask, year
from tests.workbench import Workbench

ATTENDEES, SIGNUPS = "workshop_attendees", "total_new_member_signups"
Snapshot = tuple[str, str, datetime | None, int]
"""Type, date, when it was made, and its joins."""
Store = tuple[list[Snapshot], str]
"""The snapshots, and the setting that check must ask for where nothing is set; the empty text for none."""
BY_CRON = '{annual = "period", monthly = "first_of_next_month"}'


def joins_of(number: int, month: int) -> int:
    return (number - 2000) * 12 + month


def monthly(first: int, last: int, *, later: bool, known: bool = True) -> Iterator[Snapshot]:
    """A snapshot for each month of these years: of its last day, or taken and dated on the first day after it."""
    for number in range(first, last + 1):
        for month in range(1, 13):
            over = datetime(number, month, calendar.monthrange(number, month)[1], tzinfo=UTC) + timedelta(days=1)
            dated = over if later else over.replace(year=number, month=month, day=1)
            yield "monthly", f"{dated:%Y-%m-%d}", over + timedelta(hours=6) if known else None, joins_of(number, month)


def quarterly(number: int) -> Iterator[Snapshot]:
    for month in (4, 7, 10):
        dated = datetime(number, month, 1, 6, tzinfo=UTC)
        yield "quarterly", f"{dated:%Y-%m-%d}", dated, 0


def annual(*dates: str, known: bool = True) -> Iterator[Snapshot]:
    """Annual snapshots, each taken on its date."""
    for dated in dates:
        yield "annually", dated, datetime.fromisoformat(f"{dated}T06:00+00:00") if known else None, 0


STORES: dict[str, Store] = {
    "period": ([*monthly(2022, 2024, later=False), *annual("2022-12-31", "2023-12-31", "2024-12-31")], ""),
    "cron, December": (
        [*monthly(2014, 2024, later=True), *annual("2022-12-01", "2023-12-01", "2024-12-01")],
        BY_CRON,
    ),
    "cron, January": (
        [*monthly(2014, 2024, later=True), *annual("2023-01-01", "2024-01-01", "2025-01-01")],
        BY_CRON,
    ),
    "December": ([*annual("2022-12-31", "2023-12-31", "2024-12-31")], ""),
    "January and December": (
        [*monthly(2022, 2024, later=True), *annual("2022-12-31", "2023-12-31", "2024-01-01", "2025-01-01")],
        BY_CRON,
    ),
    "two a year": ([*annual("2023-01-01", "2023-12-31", "2024-01-01", "2024-12-31", "2025-01-01")], ""),
    "quarters by cron": (
        [*monthly(2022, 2024, later=False), *quarterly(2023), *quarterly(2024), *annual("2023-12-31")],
        '{annual = "period", quarterly = "first_of_next_month", monthly = "period"}',
    ),
    "all by cron": (
        [*monthly(2022, 2024, later=True), *quarterly(2023), *quarterly(2024), *annual("2024-01-01")],
        '{annual = "period", quarterly = "first_of_next_month", monthly = "first_of_next_month"}',
    ),
    "unknown": (
        [*monthly(2022, 2024, later=True, known=False), *annual("2023-12-01", "2025-01-01", known=False)],
        "",
    ),
}


def fill(bench: Workbench, snapshots: Iterable[Snapshot]) -> None:
    """Replace the snapshots by these, in whichever layout."""
    tables = sa.MetaData()
    with connect(bench.database.url) as connection:
        tables.reflect(connection, only=["ms_snapshot", "ms_fact_org_snapshot", "ms_fact_kpi_snapshot"])
        for table in tables.tables.values():
            connection.execute(sa.delete(table))
        table, facts = tables.tables["ms_snapshot"], tables.tables["ms_fact_org_snapshot"]
        rows: list[dict[str, Any]] = []
        for number, (kind, dated, made, _) in enumerate(snapshots, 1):
            row: dict[str, Any] = {"id": number, "definition": "membership_totals", "snapshot_type": kind}
            row |= {"snapshot_date": dated, "source": kind, "created_at": made and int(made.timestamp())}
            row |= {"created": row["created_at"] or 0}
            rows.append({name: value for name, value in row.items() if name in table.c})
        connection.execute(sa.insert(table), rows)
        joins = [{"snapshot_id": number, "joins": one[3]} for number, one in enumerate(snapshots, 1)]
        connection.execute(sa.insert(facts), joins)


def settings(bench: Workbench) -> list[str]:
    """What is written like the setting anywhere in what check says; somebody may paste it."""
    config = bench.config
    said = [finding.text for finding in check_target(config, config.target("test"))]
    return re.findall(r'dated = (\{.*?\}|"\w+")', " ".join(said))


def follow(bench: Workbench) -> list[str]:
    """Set what check asks for; what it asks for."""
    found = settings(bench)
    for text in found:
        bench.configure(site={"dated": tomllib.loads(f"dated = {text}")["dated"]})
    return found


def stored(bench: Workbench, kpi_id: str) -> list[tuple[str, float]]:
    """The date of each row's snapshot, and the row's value."""
    statement = sa.text(
        "SELECT snapshot_date, metric_value FROM ms_fact_kpi_snapshot JOIN ms_snapshot ON ms_snapshot.id = snapshot_id "
        "WHERE kpi_id = :kpi ORDER BY snapshot_date"
    )
    with connect(bench.database.url) as connection:
        return [(str(dated), float(value)) for dated, value in connection.execute(statement, {"kpi": kpi_id})]


def apply_and_compare(bench: Workbench, snapshots: list[Snapshot]) -> None:
    """Each year's value stands in the rows of snapshots dated in that year, and nowhere else."""
    receipt = bench.finish(kpis=[ATTENDEES, SIGNUPS], apply=True)
    assert receipt["state"] == "applied"
    found = stored(bench, ATTENDEES)
    assert [dated for dated, _ in found] == sorted(one[1] for one in snapshots if one[0] == "annually")
    values, _ = ask(bench.database.url, ATTENDEES, [year(number) for number in range(2022, 2026)])
    by_year = {value.window_id: value.value for value in values}
    assert len({*by_year.values()}) == 4
    assert [value for _, value in found] == [by_year[int(dated[:4])] for dated, _ in found]


@on("sqlite", "mariadb")
@pytest.mark.parametrize("layout", ["composite", "dashboard"], indirect=True)
@pytest.mark.parametrize("name", STORES)
def test_each_year_keeps_its_own_value(bench: Workbench, name: str, layout: str) -> None:
    snapshots, asked = STORES[name]
    fill(bench, snapshots)
    assert follow(bench) == ([asked] if asked else [])
    assert settings(bench) == []
    apply_and_compare(bench, snapshots)
    if name not in ("unknown", "two a year", "December"):
        for dated, joins in stored(bench, SIGNUPS):
            number = int(dated[:4])
            if number <= 2024:
                assert joins == sum(joins_of(number, month) for month in range(1, 13))


@on("sqlite")
@pytest.mark.parametrize("before", ["first_of_next_month", {"annual": "first_of_next_month"}, {"monthly": "period"}])
@pytest.mark.parametrize("name", STORES)
def test_whatever_was_set_before_the_advice_is_the_same(bench: Workbench, name: str, before: Any) -> None:
    snapshots, asked = STORES[name]
    fill(bench, snapshots)
    bench.configure(site={"dated": before})
    advice = follow(bench)
    assert len(advice) <= 1
    assert settings(bench) == []
    if name == "unknown":
        assert bench.config.site.dated.later("monthly") == (before == "first_of_next_month")
    elif asked:
        for cadence, convention in tomllib.loads(f"dated = {asked}")["dated"].items():
            assert getattr(bench.config.site.dated, cadence) == convention
    apply_and_compare(bench, snapshots)
