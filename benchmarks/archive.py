"""Measure how long it takes to read an archive of many runs: `python -m benchmarks.archive --help`."""

from __future__ import annotations

import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from kpibackfill.archive import history, ledger
from kpibackfill.archive.models import Archived, Closed, Event
from kpibackfill.archive.run_record import INDEX, RunRecord
from kpibackfill.config import load_config
from kpibackfill.demo import build_demo
from kpibackfill.execution.papermill import run_notebook
from kpibackfill.reporting import index

CONFIG = 'runs = "runs"\n[targets.demo]\nstore = "sqlite:///demo.sqlite"\ntimezone = "America/New_York"\n'
COMMANDS = (["runs"], ["history"], ["history", "--kpi", "education_nps"], ["show", "latest"], ["verify"], ["--help"])
Model = tuple[RunRecord, list[Event]]


@click.command(help="Time the commands on an archive that repeats two real runs of the demo: a dry run and an apply.")
@click.option("--runs", "count", default=2000, show_default=True, help="Runs in the archive, half of them applied.")
@click.option("--repeat", default=3, show_default=True, help="Show the medians of that many runs.")
def main(count: int, repeat: int) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="kpibackfill-bench-") as name:
        folder = Path(name)
        many = _archive(folder, count)
        size = sum(path.stat().st_size for path in many.rglob("*") if path.is_file())
        lines = (many / ledger.FILE_NAME).stat().st_size
        values = len(history.changes(many))
        print(f"{count:,} runs, {values:,} values, {size / 1e6:,.0f} MB, of which the ledger {lines / 1e6:.1f} MB")
        print(f"{'':40}  {'wall':>8} {'processor':>11}")
        print(f"{INDEX:40} {_median(lambda: index.write(many), repeat)}")
        for arguments in COMMANDS:
            command = [sys.executable, "-m", "kpibackfill", *arguments]
            seconds = _median(lambda command=command: _run(command, folder), repeat)  # type: ignore[misc]
            print(f"kpibackfill {' '.join(arguments):28} {seconds}")


def _archive(folder: Path, count: int) -> Path:
    """A folder of runs: two real ones and copies of them with other ids, each with its events in the ledger."""
    (folder / "kpibackfill.toml").write_text(CONFIG, encoding="utf-8")
    build_demo(folder / "demo.sqlite")
    config = load_config(folder / "kpibackfill.toml")
    asked = {"target": "demo", "from_year": 2015, "to_year": 2025}
    outcomes = [run_notebook({**asked, "apply": apply}, config) for apply in (False, True)]
    models = [(outcome.record, outcome.record.events()) for outcome in outcomes]
    begun = datetime.now(UTC) - timedelta(days=count)
    for number in range(count - len(models)):
        _copy(models[number % 2], begun + timedelta(days=number))
    return config.runs_dir


def _copy(model: Model, begun: datetime) -> None:
    record, events = model
    _, _, rest = record.run_id.partition("-")
    copy = RunRecord(record.runs_dir, f"{begun:%Y%m%dT%H%M%SZ}-{rest[:-6]}{secrets.token_hex(3)}")
    copy.folder.mkdir()
    for path in record.folder.iterdir():
        if path.name != "SHA256SUMS":
            content = path.read_bytes().replace(record.run_id.encode(), copy.run_id.encode())
            (copy.folder / path.name).write_bytes(content)
    for event in events:
        again = event.changed(run_id=copy.run_id, files={})
        if isinstance(again, Closed | Archived):
            copy.seal(again, event.files, {})
        else:
            ledger.append(copy.runs_dir, again)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _median(measured: Callable[[], None], repeat: int) -> str:
    """Median seconds by the clock and of processor time, which other work on the machine affects less."""
    wall, processor = [], []
    for _ in range(repeat):
        began, used = time.perf_counter(), _processor()
        measured()
        wall.append(time.perf_counter() - began)
        processor.append(_processor() - used)
    return f"{statistics.median(wall):7.2f} s {statistics.median(processor):9.2f} s"


def _processor() -> float:
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
