"""The server is killed, full, read-only, locked or deadlocked: nothing is written, and a line or two say why."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from kpibackfill.archive.run_record import RunRecord
from tests.databases import connect
from tests.faults import tally
from tests.faults.harness import FACTS, Child, Site
from tests.faults.proxy import Proxy, commits
from tests.servers import PASSWORD

LONG = pytest.mark.faults
on_servers = pytest.mark.parametrize("site", ["mariadb", "postgresql"], indirect=True)
TOUCH = sa.update(sa.table(FACTS, sa.column("period_month"))).values(period_month=12)
on_mariadb = pytest.mark.parametrize("site", ["mariadb"], indirect=True)


def refused(site: Site, child: Child, words: str, state: str = "failed") -> None:
    """The run ended as an expected failure with these words in one or two lines, and wrote nothing."""
    assert child.wait() == 2, child.errors
    lines = child.errors.strip().splitlines()
    assert len(lines) <= 2, child.errors
    assert re.search(words, child.errors), child.errors
    assert "othing was written" in child.errors or "nothing is written" in child.errors
    receipt = RunRecord(site.config.runs_dir, child.run_id).receipt.as_json()
    assert (receipt["state"], site.judge(child.run_id)) == (state, "before")
    tally.add("refused by server or disk", site.name, "before")


@on_servers
def test_a_server_killed_in_the_middle_of_the_transaction_rolls_it_back(site: Site) -> None:
    server = site.server
    assert server is not None
    with Proxy(server.port, lambda _, message: b"cachetags SET" in message, "freeze", armed=False) as proxy:
        site.configure(proxy.port)
        child, gate = site.at_gate()
        proxy.armed = True
        gate.write_text("go")
        assert proxy.struck.wait(60)
        server.kill()
        child.wait()
        server.start()
        site.configure()
    refused(site, child, "could not be written")


@LONG
@on_servers
@pytest.mark.parametrize("blow", ["before", "after"])
def test_a_server_killed_at_commit_is_asked_when_it_is_back(site: Site, blow: str) -> None:
    server = site.server
    assert server is not None
    with Proxy(server.port, commits, "freeze", armed=False) as proxy:
        site.configure(proxy.port)
        child, gate = site.at_gate()
        proxy.armed = True
        gate.write_text("go")
        assert proxy.struck.wait(60)
        if blow == "after":
            proxy.thaw()
            _until(lambda: _committed(site))
        server.kill()
        server.start()
        child.wait()
        site.configure()
    image = site.judge(child.run_id)
    assert image == blow
    assert child.wait() == (0 if image == "after" else 2), child.errors
    assert RunRecord(site.config.runs_dir, child.run_id).receipt.as_json()["state"] in ("applied", "failed")
    tally.add("server killed at commit", site.name, image)


@LONG
def test_a_store_that_became_read_only_is_reported(site: Site) -> None:
    if site.name == "mariadb":  # it does not bind an account that may lift it
        host, password = "plain@'127.0.0.1'", PASSWORD.replace("%", "%%")
        _admin(site, f"CREATE OR REPLACE USER {host} IDENTIFIED BY '{password}'", f"GRANT ALL ON faults.* TO {host}")
        site.configure(user="plain")
    child, gate = site.at_gate()
    if site.name == "sqlite":
        if os.geteuid() == 0:
            gate.write_text("go")
            pytest.skip("no file is read-only for root")
        Path(str(sa.make_url(site.database.url).database)).chmod(0o400)
    elif site.name == "mariadb":
        _admin(site, "SET GLOBAL read_only = 1")
    else:
        _admin(site, "ALTER DATABASE faults SET default_transaction_read_only = on")
    try:
        gate.write_text("go")
        refused(site, child, "read.only")
    finally:
        if site.name == "mariadb":
            _admin(site, "SET GLOBAL read_only = 0")


@LONG
def test_another_transaction_that_holds_the_rows_is_not_waited_for_forever(site: Site) -> None:
    child, gate = site.at_gate()
    engine = sa.create_engine(site.database.url, poolclass=sa.NullPool)
    with engine.connect() as other:
        if site.name == "sqlite":
            other.exec_driver_sql("BEGIN IMMEDIATE")
        other.execute(TOUCH)
        began = time.monotonic()
        gate.write_text("go")
        child.wait()
        assert 8 < time.monotonic() - began < 40
        other.rollback()
    state = RunRecord(site.config.runs_dir, child.run_id).receipt.as_json()["state"]
    refused(site, child, "Another run or program is writing|Lock wait timeout", state)


@on_servers
def test_a_deadlock_is_reported_and_nothing_is_written(site: Site) -> None:
    """The run holds its rows and waits for the tag; the other holds the tag and waits for them, with more work done."""
    assert site.server is not None
    child, gate = site.at_gate()
    engine = sa.create_engine(site.database.url, poolclass=sa.NullPool)
    with engine.connect() as other:
        if site.name == "postgresql":  # a session that waits longer than this looks once for a deadlock, and gives up
            _admin(site, "ALTER DATABASE faults SET deadlock_timeout = '5s'")
            other.exec_driver_sql("SET deadlock_timeout = '60s'")
        else:  # the lighter transaction gives up
            other.exec_driver_sql("UPDATE civicrm_participant SET is_test = is_test + 2")
        other.exec_driver_sql("UPDATE cachetags SET invalidations = invalidations + 100")
        gate.write_text("go")
        _until(lambda: _waits(site))
        thread = threading.Thread(target=other.execute, args=(TOUCH,))
        thread.start()
        child.wait()
        thread.join(90)
        other.rollback()
    refused(site, child, "[Dd]eadlock")


@LONG
@on_mariadb
@pytest.mark.parametrize("size", [1024, 2048, 4096])
def test_a_packet_that_the_server_does_not_take(site: Site, size: int) -> None:
    child, gate = site.at_gate({"from_year": 2015, "kpis": ""})
    _admin(site, "SET GLOBAL net_buffer_length = 1024", f"SET GLOBAL max_allowed_packet = {size}")
    try:
        gate.write_text("go")
        refused(site, child, "max_allowed_packet|Lost connection|packet")
    finally:
        _admin(site, "SET GLOBAL max_allowed_packet = 16777216", "SET GLOBAL net_buffer_length = 16384")


@on_mariadb
@pytest.mark.parametrize("engine", [pytest.param("MyISAM", marks=LONG), "Aria"])
def test_a_table_that_cannot_roll_back_is_refused(site: Site, engine: str) -> None:
    _admin(site, f"ALTER TABLE faults.{FACTS} ENGINE={engine}")
    refused(site, site.run(), "can't roll back", "refused")


def _admin(site: Site, *statements: str) -> None:
    assert site.server is not None
    with connect(site.server.url()) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def _until(condition: object, seconds: float = 30) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)  # polled more than ten times a second, InnoDB keeps returning its first answer


def _committed(site: Site) -> bool:
    with connect(site.database.url) as connection:
        count = connection.exec_driver_sql("SELECT MAX(invalidations) FROM cachetags").scalar_one()
        return bool(count == 8)


def _waits(site: Site) -> bool:
    question = {
        "mariadb": "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
        "postgresql": "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
    }[site.name]
    with connect(site.database.url) as connection:
        return bool(connection.exec_driver_sql(question).scalar_one())
