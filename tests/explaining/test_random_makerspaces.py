"""Random makerspaces with times and dates in odd spellings: every explanation adds up to the KPI's own value."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from kpibackfill.config import Site
from kpibackfill.database.engine import reading
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.explaining.parts import explanation_of
from kpibackfill.kpis.registry import SiteAt
from tests.databases import Database
from tests.kpis.makerspace import KPIS, Makerspace, Tables, year
from tests.kpis.test_against_oracle import random_makerspace

# On servers a time is a time; SQLite holds whatever text it is given.
SPELLINGS: list[Callable[[str], str]] = [
    str,
    lambda text: text.replace(" ", "T"),
    lambda text: f"{text}.000",
    lambda text: f"{text}.999",
    lambda text: text[:10],
    lambda text: text[:16],
    lambda text: text[:16].replace(" ", "T"),
]
ODD: list[Callable[[str], str]] = [
    lambda text: text.replace("-0", "-"),
    lambda text: text[:7],
    lambda text: text[:4],
    lambda text: f"{text}Z",
]
DATES = ["2024-1-5", "2024-0x", "2024-12", "2024-12-3", "2023-1-31", "2024-5-5", "2024", "2023-12-31 ", "2024-01-0"]


def oddly_spelled(tables: Tables, chance: random.Random, *, texts: bool) -> Tables:
    spellings = [*SPELLINGS, *ODD] if texts else SPELLINGS[:3]
    events = [
        {**row, "start_date": row["start_date"] and chance.choice(spellings)(row["start_date"])}
        for row in tables["civicrm_event"]
    ]
    snapshots = [
        {**row, "snapshot_date": chance.choice(DATES)[:10] if chance.random() < 0.2 else row["snapshot_date"]}
        for row in tables["ms_snapshot"]
    ]
    return {**tables, "civicrm_event": events, "ms_snapshot": snapshots}


@pytest.mark.parametrize("seed", range(2))
def test_the_explanations_of_a_random_makerspace_add_up(store: Database, seed: int) -> None:
    chance = random.Random(seed)
    makerspace = Makerspace(store)
    for _ in range(3):
        tables = random_makerspace(chance, nul=store.name != "postgresql")
        makerspace.fill(oddly_spelled(tables, chance, texts=store.name == "sqlite"))
        zone = ZoneInfo(chance.choice(["UTC", "America/New_York", "Pacific/Auckland"]))
        settings = Site(dated=chance.choice(["period", "first_of_next_month"]))
        at = SiteAt(settings, zone, datetime(2026, 6, 30, 23, tzinfo=UTC))
        with reading(sa.make_url(store.url), settings) as connection:
            for kpi_id, entry in KPIS.items():
                explain = explanation_of(kpi_id)
                assert explain is not None
                for window in (year(2023), year(2024), year(2026)):
                    (value,) = entry.compute(RecordedConnection(connection), at, [window])
                    explained = explain(RecordedConnection(connection), at, window)
                    assert explained.problems(value) == [], (kpi_id, window, value)
