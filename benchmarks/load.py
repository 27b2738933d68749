"""Load a generated makerspace into an empty database, in the way that is fastest on each engine."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    import pandas as pd

PARQUET = "KPIBACKFILL_BENCH_PARQUET"
"""The environment variable with the folder of Sail's files."""
SCHEMAS = Path(__file__).parent.parent / "tests" / "data"
_TSV: dict[str, Any] = {"sep": "\t", "index": False, "header": False, "quoting": csv.QUOTE_NONE}
_BEFORE = {
    "sqlite": ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF"),
    "mariadb": ("SET unique_checks = 0",),
    "postgresql": (),
}


def load(url: sa.URL, engine: str, participants: int) -> None:
    """Create the tables and fill them; `engine` is one of those of `python -m benchmarks`."""
    from benchmarks.generate import makerspace  # imports numpy and pandas, which the measuring process doesn't need

    if engine in ("duckdb", "sail"):
        _load_columns(url, makerspace(participants))
        return
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        driver = connection.connection.driver_connection
        cursor = driver.cursor()
        schema = (SCHEMAS / f"schema-{engine}.sql").read_text(encoding="utf-8")
        for statement in (*_BEFORE[engine], *schema.split(";\n")):
            if statement.strip():
                cursor.execute(statement)
        for table, frame in makerspace(participants):
            _LOADERS[engine](cursor, table, frame)
        driver.commit()
        if engine == "mariadb":
            cursor.execute("SHOW TABLES")
            cursor.execute("ANALYZE TABLE " + ", ".join(name for (name,) in cursor.fetchall()))
        elif engine == "postgresql":
            driver.autocommit = True
            cursor.execute("VACUUM ANALYZE")


def _load_columns(url: sa.URL, tables: Iterator[tuple[str, pd.DataFrame]]) -> None:
    """Load into a DuckDB file; for Sail, export that file to Parquet files and register them as tables."""
    import duckdb

    parquet = Path(os.environ[PARQUET]) if url.get_backend_name() == "spark" else None
    with duckdb.connect(str(parquet / "all.duckdb") if parquet else str(url.database)) as database:
        for table, frame in tables:
            database.register("frame", frame)
            times = "REPLACE (start_date::TIMESTAMP AS start_date)" if "start_date" in frame else ""
            there = database.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [table]).fetchone()
            into = f"INSERT INTO {table} BY NAME" if there and there[0] else f"CREATE TABLE {table} AS"
            database.execute(f"{into} SELECT * {times} FROM frame")  # noqa: S608 - our own names
        if parquet is None:
            return
        for (table,) in database.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            database.execute(f"COPY {table} TO '{parquet / table}.parquet'")
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        for path in parquet.glob("*.parquet"):
            connection.exec_driver_sql(f"CREATE TABLE {path.stem} USING parquet LOCATION '{path}'")


def _sqlite(cursor: Any, table: str, frame: pd.DataFrame) -> None:
    places = ", ".join("?" * len(frame.columns))
    insert = f"INSERT INTO {table} ({', '.join(frame)}) VALUES ({places})"  # noqa: S608 - our own names
    cursor.executemany(insert, zip(*(frame[name].tolist() for name in frame), strict=True))


def _mariadb(cursor: Any, table: str, frame: pd.DataFrame) -> None:
    with tempfile.NamedTemporaryFile(suffix=".tsv") as file:
        frame.to_csv(file.name, **_TSV)
        cursor.execute(
            f"LOAD DATA LOCAL INFILE '{Path(file.name)}' INTO TABLE {table} CHARACTER SET utf8mb4"
            f" FIELDS ESCAPED BY '' ({', '.join(frame)})"
        )


def _postgresql(cursor: Any, table: str, frame: pd.DataFrame) -> None:
    with cursor.copy(f"COPY {table} ({', '.join(frame)}) FROM STDIN") as copy:
        copy.write(frame.to_csv(**_TSV))


_LOADERS = {"sqlite": _sqlite, "mariadb": _mariadb, "postgresql": _postgresql}
