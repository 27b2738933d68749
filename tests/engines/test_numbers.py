"""The same queries on columnar engines yield the same numbers, to the last digit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from tests.databases import ReferenceDatabases
from tests.engines.columnar import BOOLEANS, differences, recast, write_parquet
from tests.kpis.makerspace import Makerspace, ask
from tests.kpis.oracle import ORACLE
from tests.kpis.test_against_oracle import WINDOWS, random_makerspace


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_every_number_of_the_reference_is_met_exactly(sources: str, zone: str) -> None:
    assert differences(sources, zone) == {}


@pytest.mark.parametrize("seed", range(4))
def test_a_random_makerspace_yields_what_counting_row_by_row_yields(
    load: Callable[[list[Path]], str], reference_databases: ReferenceDatabases, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(1000 + seed)
    tables = random_makerspace(chance, nul=True)
    zone = chance.choice(["UTC", "America/New_York", "Pacific/Auckland"])
    as_of = datetime(2026, 6, 30, 23, tzinfo=UTC) + chance.choice([timedelta(0), timedelta(hours=3)])
    makerspace = Makerspace(reference_databases.copy("sqlite", "composite"))
    makerspace.fill(tables)
    url = load(write_parquet(makerspace.database.url, tmp_path / "parquet"))
    for kpi_id, expected in ORACLE.items():
        values, statements = ask(url, kpi_id, WINDOWS, zone=zone, as_of=as_of)
        found = [(value.value, value.basis, value.population) for value in values]
        assert found == [expected(tables, window, ZoneInfo(zone), as_of) for window in WINDOWS], kpi_id
        assert len(statements) == 1


@pytest.mark.parametrize("spelled", ["texts", "UTC"])
def test_copies_that_hold_times_and_numbers_differently_yield_the_same_numbers(
    load: Callable[[list[Path]], str],
    reference_parquet: list[Path],
    tmp_path: Path,
    spelled: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Times as texts or with the zone UTC, whole numbers as fractional ones, 0 and 1 as booleans along with times as
    texts, and a computer far east of UTC."""
    kinds = {"start_date": pa.string() if spelled == "texts" else pa.timestamp("us", "UTC")}
    kinds |= dict.fromkeys(["event_type_id", "contact_id"], pa.float64())
    kinds |= BOOLEANS if spelled == "texts" else {}
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    tables = recast(reference_parquet, tmp_path / "copy", kinds)
    assert differences(load(tables), "America/New_York") == {}
    monkeypatch.undo()
    time.tzset()
