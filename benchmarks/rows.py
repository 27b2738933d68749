"""Measure how long many rows of the fact table take: `python -m benchmarks.rows --help`."""

from __future__ import annotations

import os
import platform
import resource
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
from benchmarks.server import private
from kpibackfill.numbers import float4
from kpibackfill.run import RUN_VARIABLE, prepare, recorded
from kpibackfill.tables import kpi_fact, snapshot
from kpibackfill.text import count

MODULE = """
import kpibackfill as kb

for number in range({kpis}):
    words = dict(label=f"KPI {{number}}", unit="count", family="bench", description="-", sources=["none"])

    @kb.kpi(f"{module}_{{number:02}}", **words)
    def compute(connection, site, windows, number=number):
        return [kb.Value(window.window_id, window.start.year * 100.0 + number, 10, 20) for window in windows]
"""
CONFIG = """
runs = "runs"
[targets.bench]
store = "{url}"
[site]
kpi_modules = ["{module}"]
"""
T = TypeVar("T")


@click.command(help="Time comparing, planning and applying many rows; each KPI of each snapshot is stored or missing.")
@click.option("--compare", "compared", default=1_000_000, show_default=True, help="Rows to compare and plan (SQLite).")
@click.option("--apply", "applied", default=10_000, show_default=True, help="Rows to write (MariaDB).")
def main(compared: int, applied: int) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="kpibackfill-bench-") as name:
        folder = Path(name) / "compare"
        # One row in 25 differs, one in 25 is missing.
        _steps(folder, sa.URL.create("sqlite", database=str(folder / "store.sqlite")), rows=compared, kpis=50, every=25)
    with tempfile.TemporaryDirectory(prefix="kpibackfill-bench-") as name, private("mariadb") as server:
        # Half of the rows are updated, half inserted.
        _steps(Path(name) / "apply", server.url(), rows=applied, kpis=10, every=2, apply=True)


def _steps(folder: Path, url: sa.URL, *, rows: int, kpis: int, every: int, apply: bool = False) -> None:
    """Run each step in this process: with a record where it writes, otherwise as a notebook session does."""
    values = _site(folder, url, rows // kpis, kpis, every)
    os.environ["KPIBACKFILL_CONFIG"] = str(folder / "kpibackfill.toml")
    if apply:
        begun = recorded(prepare({**values, "apply": True}), "kpibackfill run")
        record = begun.record
        assert record is not None
        os.environ[RUN_VARIABLE] = record.run_id
        values = begun.parameters.as_notebook()
    print(f"\n{count(rows, 'row')}, {url.get_backend_name()}")
    run = kb.begin(**values)
    readings = _timed("read", lambda: kb.compute_kpis(run))
    drift = _timed("compare", lambda: kb.compare(readings))
    plan = _timed("plan", lambda: kb.make_plan(run, drift))
    if apply:
        _timed(f"apply {count(len(plan), 'row')}, figures and report included", lambda: kb.apply_plan(run, plan))
        assert record.receipt.state == "applied"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(f"  {count(len(plan), 'row')} in the plan; peak memory {peak:,.0f} MB")


def _site(folder: Path, url: sa.URL, snapshots: int, kpis: int, every: int) -> dict[str, Any]:
    """A store with that many annual snapshots; of every `every` KPIs, one row differs and one is missing."""
    folder.mkdir()
    module = f"bench_{url.get_backend_name()}"
    (folder / f"{module}.py").write_text(MODULE.format(module=module, kpis=kpis), encoding="utf-8")
    text = url.render_as_string(hide_password=False)
    (folder / "kpibackfill.toml").write_text(CONFIG.format(url=text, module=module), encoding="utf-8")
    years = range(2015, 2026)
    of_year = {number: years[number % len(years)] for number in range(1, snapshots + 1)}
    names = {"definition": "membership_totals", "snapshot_type": "annual"}
    facts = [
        {
            "snapshot_id": number,
            "kpi_id": f"{module}_{kpi:02}",
            "metric_value": float4(year * 100 + kpi + (kpi % every == 0)),
            "period_year": year,
            "period_month": 12,
        }
        for number, year in of_year.items()
        for kpi in range(kpis)
        if kpi % every != 1
    ]
    schema = "sqlite" if url.get_backend_name() == "sqlite" else "mariadb"
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        for statement in (SCHEMAS / f"schema-{schema}.sql").read_text(encoding="utf-8").split(";\n"):
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
    ids = ",".join(f"{module}_{kpi:02}" for kpi in range(kpis))
    return {"target": "bench", "from_year": years[0], "to_year": years[-1], "kpis": ids}


def _timed(what: str, run: Callable[[], T]) -> T:
    began = time.perf_counter()
    found = run()
    print(f"  {what}: {time.perf_counter() - began:.2f} s", flush=True)
    return found


if __name__ == "__main__":
    main()
