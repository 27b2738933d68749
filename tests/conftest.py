from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.archives import made_archive, runs_dir  # noqa: F401  fixtures
from tests.databases import ENGINES, Database, ReferenceDatabases, Unreachable
from tests.workbench import Workbench

# That a machine is busy is no finding.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def reference_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceDatabases]:
    databases = ReferenceDatabases(tmp_path_factory.mktemp("databases"))
    yield databases
    databases.close()


@pytest.fixture
def layout(request: pytest.FixtureRequest) -> str:
    """The layout of the store; `both_layouts` and `all_layouts` ask for more than one."""
    return str(getattr(request, "param", "composite"))


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, reference_databases: ReferenceDatabases, layout: str) -> Iterator[Database]:
    """The reference makerspace in a database of this test's own, on each engine."""
    try:
        database = reference_databases.copy(request.param, layout)
    except Unreachable as unreachable:
        if os.environ.get("CI") == "true":
            pytest.fail(str(unreachable))
        pytest.skip(str(unreachable))  # a contributor's machine need not have every server
    yield database
    reference_databases.drop(database)


@pytest.fixture
def bench(store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """The steps of a run on `store`, with a configuration and a folder of runs of their own."""
    return Workbench(store, tmp_path, monkeypatch)
