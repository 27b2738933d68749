"""The tables of a makerspace as Parquet files, and engines that read them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from kpibackfill.database.engine import create_engine
from tests.databases import connect, reference_expected
from tests.kpis.makerspace import KPIS, ask, year

YEARS = [year(number) for number in range(2015, 2026)]
BOOLEANS = dict.fromkeys(
    ["is_active", "is_test", "is_counted", "is_deleted", "deleted", "status", "in_draft"], pa.bool_()
)
"""Columns of 0 and 1, as some programs copy them."""
_ARROW = {sa.Integer: pa.int64(), sa.Float: pa.float64(), sa.LargeBinary: pa.binary()}


def write_parquet(url: str, folder: Path) -> list[Path]:
    """The tables of an SQLite database: for each a folder with a Parquet file."""
    tables = sa.MetaData()
    with connect(url) as connection:
        tables.reflect(connection)
        for name, table in tables.tables.items():
            rows = connection.exec_driver_sql(f"SELECT * FROM {name}").mappings().all()  # noqa: S608 - our own names
            columns = {column.name: _array(column, [row[column.name] for row in rows]) for column in table.c}
            (folder / name).mkdir(parents=True)
            pq.write_table(pa.table(columns), folder / name / "part-0.parquet")
    return sorted(folder.iterdir())


def recast(tables: Sequence[Path], folder: Path, kinds: Mapping[str, pa.DataType]) -> list[Path]:
    """Copies of the tables in which the columns of these names have another type."""
    copies = []
    for table in tables:
        rows = pq.read_table(table)
        for name in set(kinds) & set(rows.column_names):
            place = rows.column_names.index(name)
            rows = rows.set_column(place, name, rows.column(name).cast(kinds[name]))
        (folder / table.name).mkdir(parents=True)
        pq.write_table(rows, folder / table.name / "part-0.parquet")
        copies.append(folder / table.name)
    return copies


def _array(column: sa.Column[Any], values: list[Any]) -> pa.Array:
    if column.name == "start_date":  # a text on SQLite
        return pa.array([value and datetime.fromisoformat(value) for value in values], pa.timestamp("us"))
    return pa.array(values, next((arrow for sql, arrow in _ARROW.items() if isinstance(column.type, sql)), pa.string()))


def into_duckdb(tables: Sequence[Path], path: Path) -> str:
    """The URL of a new DuckDB file with these tables."""
    import duckdb

    with duckdb.connect(str(path)) as connection:
        for table in tables:
            connection.execute(f"CREATE TABLE {table.name} AS FROM '{table}/*.parquet'")
    return f"duckdb:///{path}"


def into_spark(tables: Sequence[Path], server: str, schema: str = "") -> str:
    """The URL of a Spark Connect server that knows these tables: in a schema, or in their own session."""
    url = f"spark://{server}/{schema}" if schema else f"spark://{server}?session_id={uuid.uuid4()}&user_id=tests"
    with create_engine(sa.make_url(f"spark://{server}" if schema else url)).connect() as connection:
        if schema:
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        for table in tables:
            name = f"{schema}.{table.name}" if schema else table.name
            connection.exec_driver_sql(f"CREATE TABLE {name} USING parquet LOCATION '{table}'")
    return url


def differences(url: str, zone: str) -> dict[tuple[int, str], tuple[float | None, float]]:
    """The reference's numbers that these sources don't yield: by year and KPI, what was computed and what is right.

    An NPS of 0 without any score is no data here, which is right.
    """
    expected = {(row["period_year"], row["kpi_id"]): row["metric_value"] for row in reference_expected(zone)}
    found = {
        (value.window_id, kpi_id): (value.value, value.basis)
        for kpi_id in KPIS
        for value in ask(url, kpi_id, YEARS, zone=zone)[0]
    }
    return {
        key: (found[key][0], right)
        for key, right in expected.items()
        if found[key][0] != right and (key[1], *found[key], right) != ("education_nps", None, 0, 0)
    }
