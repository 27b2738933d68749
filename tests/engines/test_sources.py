"""Sources on their own engine: whole runs, what the record says about them, and refusals in one or two lines."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa
from pandas.testing import assert_frame_equal

import kpibackfill as kb
from kpibackfill.config import Site
from kpibackfill.database.engine import reading
from kpibackfill.errors import KpiBackfillError
from kpibackfill.kpis import registry
from tests.databases import dump, on, prefix_tables, reference_expected
from tests.engines.columnar import BOOLEANS, recast, write_parquet
from tests.workbench import Workbench, refusal

YEARS = ["--from-year", "2015", "--to-year", "2025", "--as-of", "2026-11-22T12:00:00"]
ZONE = "America/New_York"


@on("sqlite")
def test_drupals_tables_may_have_a_prefix_there_too(
    bench: Workbench, load: Callable[[list[Path]], str], tmp_path: Path
) -> None:
    expected = bench.steps(include_risky=True)
    prefix_tables(bench.database, "dru_")
    sources = load(write_parquet(bench.database.url, tmp_path / "prefixed"))
    bench.configure(sources=sources, site={"table_prefix": "dru_"})
    assert_frame_equal(bench.steps(include_risky=True).readings.computed, expected.readings.computed)
    assert "wrong" not in set(kb.check("test")["level"])


@on("sqlite")
@pytest.mark.slow
def test_a_run_reads_the_sources_there_and_writes_to_the_store(
    bench: Workbench, sources: str, load: Callable[[list[Path]], str]
) -> None:
    bench.configure(sources=sources, timezone=ZONE)
    before = dump(bench.database)
    done = bench.command("run", "--target", "test", *YEARS, "--include-risky", "--apply", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["state"] == "applied"

    expected = {(row["snapshot_id"], row["kpi_id"]): row["metric_value"] for row in reference_expected(ZONE)}
    computed = {(row["snapshot_id"], row["kpi_id"]): row["computed"] for row in found["rows"]}
    odd = {key for key in expected if computed[key] != expected[key]}
    assert {(kpi_id, expected[snapshot_id, kpi_id], computed[snapshot_id, kpi_id]) for snapshot_id, kpi_id in odd} <= {
        ("education_nps", 0, None)
    }
    after = dump(bench.database)
    assert {name for name in after if after[name] != before[name]} == {"ms_fact_kpi_snapshot"}

    (folder,) = bench.runs
    receipt = json.loads((folder / "receipt.json").read_text(encoding="utf-8"))
    written = json.dumps(receipt)
    assert "each was read as of its own moment" in written
    assert ("each KPI was read as of its own moment" in written) == sources.startswith("spark")
    assert "FutureWarning" not in "".join(path.read_text(errors="replace") for path in folder.iterdir())
    if "session_id=" in sources:
        session = sources.partition("session_id=")[2].partition("&")[0]
        assert not [path for path in folder.iterdir() if session.encode() in path.read_bytes()]


@on("sqlite")
@pytest.mark.parametrize("booleans", [False, True])
def test_explanations_add_up(
    bench: Workbench,
    load: Callable[[list[Path]], str],
    reference_parquet: list[Path],
    tmp_path: Path,
    booleans: bool,
) -> None:
    tables = recast(reference_parquet, tmp_path / "copy", BOOLEANS) if booleans else reference_parquet
    bench.configure(sources=load(tables))
    for kpi_id in registry.load():
        for year in (2019, 2023):
            found = kb.explain(kpi_id, year=year, target="test")
            assert found.problems == (), (kpi_id, year)
            assert found.explained is not None
    assert set(kb.detect(target="test", kpis=list(registry.load())).sentences) == set(registry.load())


@on("sqlite")
def test_check_looks_at_them(bench: Workbench, sources: str) -> None:
    bench.configure(sources=sources)
    found = bench.command("check", "--target", "test")
    assert found.exit_code == 0, found.output
    assert f"Connected to the sources, {'duckdb 1.' if sources.startswith('duckdb') else 'spark 0.'}" in found.output
    assert "Ethnicity is read from civicrm_value_demographics_15" in found.output
    assert "session_id" not in found.output


@on("sqlite")
def test_check_says_which_table_is_missing(
    bench: Workbench, load: Callable[[list[Path]], str], reference_parquet: list[Path]
) -> None:
    some = [table for table in reference_parquet if table.name not in ("civicrm_participant", "webform_submission")]
    bench.configure(sources=load(some))
    found = bench.command("check", "--target", "test")
    assert found.exit_code == 2
    assert "civicrm_participant can't be used: it doesn't exist" in found.output
    assert "webform_submission can't be used: it doesn't exist" in found.output
    with pytest.raises(KpiBackfillError, match="civicrm_participant"):
        bench.steps(kpis="workshop_attendees")


@on("sqlite")
def test_a_duckdb_file_that_is_missing_is_not_made(bench: Workbench, tmp_path: Path) -> None:
    bench.configure(sources="duckdb:///sources.duckdb")
    before = dump(bench.database)
    assert "There is no database file" in refusal(bench.command("run", "--target", "test", *YEARS))
    assert not list(tmp_path.rglob("sources.duckdb*"))
    assert dump(bench.database) == before


def test_a_duckdb_file_is_open_for_reading_only(tmp_path: Path) -> None:
    path = tmp_path / "some.duckdb"
    duckdb.connect(str(path)).close()
    before = path.read_bytes()
    with (
        pytest.raises(KpiBackfillError, match="read-only mode"),
        reading(sa.make_url(f"duckdb:///{path}"), Site()) as connection,
    ):
        connection.exec_driver_sql("CREATE TABLE nothing (id INTEGER)")
    assert path.read_bytes() == before


def test_a_duckdb_file_that_another_program_writes_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "busy.duckdb"
    program = f"import duckdb; c = duckdb.connect({str(path)!r}); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with (
            pytest.raises(KpiBackfillError, match="lock") as refused,
            reading(sa.make_url(f"duckdb:///{path}"), Site()),
        ):
            pass
        writer.communicate(b"\n")
    assert len(refused.value.message.splitlines()) == 1


@contextmanager
def refused(url: str, words: str, *, seconds: float) -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(KpiBackfillError, match=words) as found:
        yield
    assert time.monotonic() - began < seconds
    assert len(found.value.message.splitlines()) == 1
    assert "secret" not in found.value.message
    assert "Nothing was written" in found.value.message


def test_a_server_that_is_not_there_is_reported_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    url = f"spark://someone:secret@127.0.0.1:{port}/lake/kpi?token=secret"
    with refused(url, "no answer from", seconds=60), reading(sa.make_url(url), Site()):
        pass


def test_something_else_that_listens_is_reported_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"spark://127.0.0.1:{silent.getsockname()[1]}"
        with refused(url, "not a Spark Connect server", seconds=60), reading(sa.make_url(url), Site()):
            pass


@pytest.mark.parametrize(("path", "words"), [("nowhere", "nowhere"), ("nowhere/default", "nowhere")])
def test_a_schema_or_catalog_that_is_missing_is_named(sail: str, path: str, words: str) -> None:
    url = f"spark://{sail}/{path}"
    with refused(url, f"could not be read: .*{words}", seconds=60), reading(sa.make_url(url), Site()):
        pass


def test_a_server_that_goes_away_is_reported_within_seconds() -> None:
    program = (
        "from pysail.spark import SparkConnectServer; s = SparkConnectServer(ip='127.0.0.1', port=0);"
        "s.start(background=True); print(s.listening_address[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout is not None
        url = f"spark://127.0.0.1:{int(server.stdout.readline())}"
        with refused(url, "could not be read", seconds=60), reading(sa.make_url(url), Site()) as connection:
            assert connection.scalar(sa.select(sa.literal(1))) == 1
            server.kill()
            server.wait()
            connection.scalar(sa.select(sa.literal(1)))


def test_a_program_passed_as_text_can_read_too(sail: str) -> None:
    program = (
        "import sqlalchemy as sa; from kpibackfill.config import Site\n"
        "from kpibackfill.database.engine import reading\n"
        f"with reading(sa.make_url('spark://{sail}'), Site()) as found: print(found.scalar(sa.select(sa.literal(7))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")
