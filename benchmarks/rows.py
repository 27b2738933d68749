"""How long many rows of the fact table take: `python -m benchmarks.rows --help`."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import sqlalchemy as sa

import kpibackfill as kb
from benchmarks.load import SCHEMAS
from benchmarks.server import private_mariadb
from kpibackfill.config import load_config
from kpibackfill.execute import run_notebook
from kpibackfill.numbers import float4
from kpibackfill.tables import kpi_fact, snapshot

KPIS = 50
MODULE = """
import kpibackfill as kb

for number in range({kpis}):
    @kb.kpi(f"kpi{{number:02}}", label=f"KPI {{number}}", unit="count", family="bench", description="-", sources=[])
    def compute(connection, site, windows, number=number):
        return [kb.Value(window.window_id, window.start.year * 100.0 + number, 10, 20) for window in windows]
"""
CONFIG = """
runs = "runs"
[targets.bench]
store = "{url}"
[site]
kpi_modules = ["bench_kpis"]
"""
T = TypeVar("T")


@click.command(help="Time comparison, plan and apply of many rows: each KPI of each snapshot is stored or missing.")
@click.option("--compare", "compared", default=1_000_000, show_default=True, help="Rows to compare and plan (SQLite).")
@click.option("--apply", "applied", default=10_000, show_default=True, help="Rows to write (MariaDB).")
def main(compared: int, applied: int) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="kpibackfill-bench-") as name:
        _compare(Path(name) / "compare", compared)
    with tempfile.TemporaryDirectory(prefix="kpibackfill-bench-") as name, private_mariadb(Path(name)) as server:
        with sa.create_engine(server).connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE bench")
        _apply(Path(name) / "apply", server.set(database="bench"), applied)


def _compare(folder: Path, rows: int) -> None:
    """Nine rows in ten are stored as they are computed, one in twenty otherwise, and one in twenty is missing."""
    url = sa.URL.create("sqlite", database=str(folder / "store.sqlite"))
    asked = _site(folder, url, "sqlite", rows // KPIS, every=20)
    os.environ["KPIBACKFILL_CONFIG"] = str(folder / "kpibackfill.toml")
    run = _timed("begin", lambda: kb.begin(**asked))
    readings = _timed("read the stored rows", lambda: kb.compute_kpis(run))
    drift = _timed(f"compare {rows:,} rows", lambda: kb.compare(readings))
    plan = _timed("plan", lambda: kb.make_plan(run, drift))
    print(f"  the plan has {len(plan):,} rows; peak memory {_megabytes(resource.RUSAGE_SELF):,.0f} MB")


def _apply(folder: Path, url: sa.URL, rows: int) -> None:
    """Half of the rows are updated, half inserted."""
    asked = _site(folder, url, "mariadb", rows // KPIS, every=2)
    config = load_config(folder / "kpibackfill.toml")
    seconds: dict[str, float] = {}
    program = "import sys; from benchmarks import rows; rows.steps(sys.argv[1], eval(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", program, str(config.path), repr(asked)], check=True)
    began = time.perf_counter()
    receipt = run_notebook({**asked, "apply": True}, config).receipt
    seconds["run"] = time.perf_counter() - began
    assert receipt["state"] == "applied"
    print(f"  kpibackfill run --apply of {receipt['plan']['rows']:,} rows: {seconds['run']:.1f} s in all")


def _site(folder: Path, url: sa.URL, engine: str, snapshots: int, every: int) -> dict[str, Any]:
    """A store with so many annual snapshots, and a row in `every` that differs and one that is missing."""
    folder.mkdir()
    (folder / "bench_kpis.py").write_text(MODULE.format(kpis=KPIS), encoding="utf-8")
    text = url.render_as_string(hide_password=False)
    (folder / "kpibackfill.toml").write_text(CONFIG.format(url=text), encoding="utf-8")
    years = range(2015, 2026)
    of_year = {number: years[number % len(years)] for number in range(1, snapshots + 1)}
    names = {"definition": "membership_totals", "snapshot_type": "annual"}
    facts = [
        {
            "snapshot_id": number,
            "kpi_id": f"kpi{kpi:02}",
            "metric_value": float4(year * 100 + kpi + (kpi % every == 0)),
            "period_year": year,
            "period_month": 12,
        }
        for number, year in of_year.items()
        for kpi in range(KPIS)
        if kpi % every != 1
    ]
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        for statement in (SCHEMAS / f"schema-{engine}.sql").read_text(encoding="utf-8").split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        connection.execute(
            sa.insert(snapshot),
            [
                {"id": number, **names, "snapshot_date": f"{year}-12-31", "source": f"s{number}"}
                for number, year in of_year.items()
            ],
        )
        connection.execute(sa.insert(kpi_fact).inline(), facts)
        connection.commit()
    ids = ",".join(f"kpi{kpi:02}" for kpi in range(KPIS))
    return {"target": "bench", "from_year": years[0], "to_year": years[-1], "kpis": ids}


def _timed(what: str, run: Callable[[], T]) -> T:
    began = time.perf_counter()
    found = run()
    print(f"  {what}: {time.perf_counter() - began:.2f} s", flush=True)
    return found


def _megabytes(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
