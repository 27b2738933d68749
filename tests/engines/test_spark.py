"""The KPIs on Apache Spark itself: a standalone cluster of a master and two workers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.databases import ReferenceDatabases
from tests.engines.cluster import Cluster, spark_cluster
from tests.engines.columnar import differences, into_spark, write_parquet
from tests.kpis.makerspace import Makerspace, ask
from tests.kpis.oracle import ORACLE
from tests.kpis.test_against_oracle import WINDOWS, random_makerspace

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with spark_cluster(tmp_path_factory.mktemp("spark")) as started:
        yield started


def test_the_reference_and_odd_data_yield_the_same_numbers_even_after_a_worker_was_killed(
    cluster: Cluster, reference_parquet: list[Path], reference_databases: ReferenceDatabases, tmp_path: Path
) -> None:
    url = into_spark(reference_parquet, cluster.server, "makerspace")
    assert differences(url, "UTC") == {}

    tables = random_makerspace(random.Random(2000), nul=True)
    makerspace = Makerspace(reference_databases.copy("sqlite", "composite"))
    makerspace.fill(tables)
    odd = into_spark(write_parquet(makerspace.database.url, tmp_path / "parquet"), cluster.server, "odd")
    zone, as_of = ZoneInfo("America/New_York"), datetime(2026, 7, 1, 2, tzinfo=UTC)
    for kpi_id, expected in ORACLE.items():
        values, _ = ask(odd, kpi_id, WINDOWS, zone=str(zone), as_of=as_of)
        found = [(value.value, value.basis, value.population) for value in values]
        assert found == [expected(tables, window, zone, as_of) for window in WINDOWS], kpi_id

    cluster.kill_a_worker()
    assert differences(url, "America/New_York") == {}
    assert [worker.poll() is None for worker in cluster.workers] == [False, True]
