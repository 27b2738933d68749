from __future__ import annotations

import os
import random
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import ENGINES, Database, add_cachetags, load_reference
from tests.faults import tally
from tests.faults.harness import Forge, Site
from tests.servers import PASSWORD, Missing, Server, Servers


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Servers that keep what they confirmed, however they end."""
    servers = Servers(careless=False)
    yield servers
    servers.close()


@pytest.fixture(params=ENGINES)
def site(
    request: pytest.FixtureRequest,
    servers: Servers,
    forge: Forge,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    """The reference makerspace with cache tags, on each engine: on a server that this test may kill."""
    monkeypatch.setenv("FAULTS_PASSWORD", PASSWORD)
    monkeypatch.delenv("KPIBACKFILL_CONFIG", raising=False)
    name = request.param
    server = None if name == "sqlite" else _server(name, servers)
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    if server is not None:
        server.recreate()
        url = server.url().render_as_string(hide_password=False)
    database = Database(name, url.partition("+")[0].partition(":")[0], url, "composite")
    load_reference(url, name, "composite")
    add_cachetags(database, {"makerspace_snapshot:kpi": 7, "node_list": 3})
    return Site(database, tmp_path, forge, server)


@pytest.fixture
def chance() -> random.Random:
    """Repeatable chance: set KPIBACKFILL_SEED to the seed that a failed test printed."""
    long = "KPIBACKFILL_FAULTS" in os.environ
    seed = int(os.environ.get("KPIBACKFILL_SEED") or (secrets.randbelow(2**31) if long else 1))
    sys.stdout.write(f"KPIBACKFILL_SEED={seed}\n")
    return random.Random(seed)


def _server(name: str, servers: Servers) -> Server:
    try:
        return servers.get(name)
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if tally.counts:
        terminalreporter.section("faults that were tried")
        terminalreporter.write_line(tally.text())
