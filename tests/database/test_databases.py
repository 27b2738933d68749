"""The databases that other tests rely on are what they claim to be."""

from __future__ import annotations

import sqlite3
import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.databases import (
    DATA,
    Database,
    ReferenceDatabases,
    Unreachable,
    add_cachetags,
    both_layouts,
    connect,
    dump,
    on,
    reference_expected,
    write_config,
)

FACTS = sa.table("ms_fact_kpi_snapshot", *map(sa.column, ("snapshot_id", "kpi_id", "metric_value", "meta")))


@pytest.fixture(scope="session")
def script() -> dict[str, list[tuple[Any, ...]]]:
    """The rows of makerspace.sql, read without any of the code under test."""
    connection = sqlite3.connect(":memory:")
    connection.executescript((DATA / "schema-sqlite.sql").read_text() + (DATA / "makerspace.sql").read_text())
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}  # noqa: S608 - our names


def as_stored(rows: list[tuple[Any, ...]], engine: str) -> list[tuple[Any, ...]]:
    """Fact rows of the script as an engine holds them: 4-byte floats except on SQLite, `meta` as bytes."""

    def value(number: float) -> float:
        return number if engine == "sqlite" else struct.unpack("f", struct.pack("f", number))[0]

    return [(*row[:2], value(row[2]), *row[3:5], row[5] and row[5].encode()) for row in rows]


@both_layouts
def test_each_engine_holds_the_reference_to_the_last_bit(
    store: Database, script: dict[str, list[tuple[Any, ...]]]
) -> None:
    held = dump(store)
    assert held.keys() == script.keys()
    assert sum(map(len, held.values())) == 5627
    facts = [row[-6:] for row in held[FACTS.name]]
    assert sorted(facts, key=repr) == sorted(as_stored(script[FACTS.name], store.name), key=repr)
    for table in held.keys() - {FACTS.name}:
        assert held[table] == sorted(script[table], key=repr), table


@both_layouts
def test_the_layout_decides_the_key_of_the_fact_table(store: Database, layout: str) -> None:
    assert store.layout == layout
    insert = sa.insert(FACTS).values(snapshot_id=268, kpi_id="education_nps")
    with connect(store.url) as connection:
        connection.execute(insert)
        key = sa.inspect(connection).get_pk_constraint(FACTS.name)["constrained_columns"]
        if layout == "composite":
            assert key == ["snapshot_id", "kpi_id"]
            with pytest.raises(sa.exc.IntegrityError):
                connection.execute(insert)
        else:
            assert key == ["id"]
            connection.execute(insert)


@both_layouts
def test_a_dump_shows_the_smallest_change(store: Database) -> None:
    before = dump(store)
    assert dump(store) == before
    with connect(store.url) as connection:
        connection.execute(sa.update(FACTS).where(FACTS.c.metric_value == 1).values(metric_value=1.00000012))
        nudged = dump(store)
        connection.execute(sa.update(FACTS).where(FACTS.c.snapshot_id == 999999).values(meta=b"\x00"))
    assert {table for table in before if before[table] != nudged[table]} == {FACTS.name}
    assert dump(store) != nudged


@pytest.mark.parametrize("time", ["first", "second"])
def test_each_test_has_a_database_of_its_own(store: Database, time: str) -> None:
    with connect(store.url) as connection:
        assert connection.execute(sa.delete(FACTS)).rowcount == 36
        connection.execute(sa.text("DROP TABLE civicrm_value_demographics_15"))


def test_cache_tags_are_in_the_dump(store: Database) -> None:
    add_cachetags(store, {"makerspace_snapshot:kpi": 3})
    assert dump(store)["cachetags"] == [("makerspace_snapshot:kpi", 3)]


def test_a_database_goes_away_under_an_open_transaction(
    reference_databases: ReferenceDatabases, store: Database
) -> None:
    database = reference_databases.copy(store.name, store.layout)
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    left_open = engine.connect()
    left_open.execute(sa.update(FACTS).values(metric_value=1))
    reference_databases.drop(database)
    left_open.invalidate()
    if store.name != "sqlite":
        with pytest.raises(sa.exc.OperationalError), connect(database.url):
            pass


@on("sqlite")
def test_a_configuration_names_the_database(store: Database, tmp_path: Path) -> None:
    path = write_config(
        tmp_path, store, require_approval=True, after_apply=["echo", 'a "b" é'], site={"kpi_modules": []}
    )
    assert tomllib.loads(path.read_text()) == {
        "runs": "runs",
        "targets": {
            "test": {
                "store": store.url,
                "timezone": "UTC",
                "require_approval": True,
                "after_apply": ["echo", 'a "b" é'],
            }
        },
        "site": {"kpi_id_prefix": "", "kpi_modules": []},
    }


@pytest.mark.parametrize("timezone", ["UTC", "America/New_York"])
def test_the_expected_rows_belong_to_the_reference(timezone: str, script: dict[str, list[tuple[Any, ...]]]) -> None:
    expected = reference_expected(timezone)
    assert len(expected) == 64
    assert {row["snapshot_id"] for row in expected} <= {row[0] for row in script["ms_snapshot"]}


def test_a_server_that_is_down_is_reported_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KPIBACKFILL_TEST_MARIADB", "mysql+pymysql://root@127.0.0.1:1/")
    with pytest.raises(Unreachable, match="no mariadb server to test on"):
        ReferenceDatabases(tmp_path).copy("mariadb", "composite")
