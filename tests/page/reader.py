"""The dashboard's reading code, row by row, written from its rules alone: an oracle for what people see."""

from __future__ import annotations

from datetime import date
from typing import Any

import sqlalchemy as sa

from kpibackfill.numbers import float4
from tests.databases import Database, connect

COLUMNS = range(2023, 2031)
LIVE = {"kpi_total_new_member_signups": 36}


def cells(database: Database, kpi_ids: list[str], today: date, *, lower_wins: bool = True) -> dict[Any, float]:
    """What the annual tables show by stored id and year; "live" cells hold a number that no row changes.

    Rows of the same date come in no order that anyone asked for: the lower or the higher id may win.
    """
    found: dict[Any, float] = {}
    with connect(database.url) as connection:
        snapshots = sa.Table("ms_snapshot", sa.MetaData(), autoload_with=connection)
        facts = sa.Table("ms_fact_kpi_snapshot", sa.MetaData(), autoload_with=connection)
        value = facts.c.metric_value
        exact = value if database.name == "sqlite" else sa.cast(value, sa.Double)
        rows = [
            row._asdict()
            for row in connection.execute(
                sa.select(*snapshots.c, *(c for c in facts.c if c.name not in ("id", "metric_value")), exact.label("v"))
                .join_from(facts, snapshots, snapshots.c.id == facts.c.snapshot_id)
                .where(facts.c.kpi_id.in_(kpi_ids))
            )
        ]
    rows.sort(key=lambda row: (row["snapshot_date"], -row["id"] if lower_wins else row["id"]))
    for row in rows:
        if row.get("is_test") == 1 or row["kpi_id"] not in kpi_ids:
            continue
        annual = "annual" in row["snapshot_type"].lower() or (row["period_year"] and not row["period_month"])
        year = int(row["snapshot_date"][:4])
        if annual and year in COLUMNS:
            found[row["kpi_id"], year] = float4(row["v"])
    for kpi_id, months in LIVE.items():
        for back in range(months):
            number = today.year * 12 + today.month - 2 - back
            if kpi_id in kpi_ids and number // 12 in COLUMNS:
                found[kpi_id, number // 12] = 1e6
    return found
