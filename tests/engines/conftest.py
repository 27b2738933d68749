from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.databases import ReferenceDatabases
from tests.engines.columnar import into_duckdb, into_spark, write_parquet


@pytest.fixture(scope="session")
def sail() -> Iterator[str]:
    """The address of a Sail server in this process."""
    from pysail.spark import SparkConnectServer

    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start(background=True)
    host, port = server.listening_address
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def reference_parquet(reference_databases: ReferenceDatabases, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The reference makerspace as Parquet files."""
    return write_parquet(reference_databases.copy("sqlite", "composite").url, tmp_path_factory.mktemp("parquet"))


@pytest.fixture(params=["duckdb", "sail"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[Path]], str]:
    """Have an engine read Parquet tables; the result is their URL there."""
    if request.param == "duckdb":
        return lambda tables: into_duckdb(tables, tmp_path / "sources.duckdb")
    server = request.getfixturevalue("sail")
    return lambda tables: into_spark(tables, server)


@pytest.fixture
def sources(load: Callable[[list[Path]], str], reference_parquet: list[Path]) -> str:
    """The reference makerspace on each columnar engine."""
    return load(reference_parquet)
