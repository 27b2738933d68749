"""Load a generated makerspace into an empty database, by each engine's fastest way in."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from benchmarks.generate import makerspace
from tests.databases import DATA

_TSV: dict[str, Any] = {"sep": "\t", "index": False, "header": False, "quoting": csv.QUOTE_NONE}


def load(url: sa.URL, engine: str, participants: int) -> None:
    """Create the tables and fill them; `engine` names the schema: sqlite, mariadb or postgresql."""
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        driver = connection.connection.driver_connection
        cursor = driver.cursor()
        for statement in (DATA / f"schema-{engine}.sql").read_text(encoding="utf-8").split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        if engine == "sqlite":
            for pragma in ("journal_mode = OFF", "synchronous = OFF"):
                cursor.execute(f"PRAGMA {pragma}")
        if engine == "mariadb":
            cursor.execute("SET unique_checks = 0")
        for table, frame in makerspace(participants):
            _LOADERS[engine](cursor, table, frame)
        driver.commit()
        tables = sa.inspect(connection).get_table_names()
        connection.commit()
        for table in tables:
            statement = {"sqlite": None, "mariadb": f"ANALYZE TABLE {table}", "postgresql": f"ANALYZE {table}"}[engine]
            if statement:
                cursor.execute(statement)
                if engine == "mariadb":
                    cursor.fetchall()
        if engine == "postgresql":
            driver.commit()
            driver.autocommit = True
            cursor.execute("VACUUM")
        driver.commit()


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
