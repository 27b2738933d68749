"""Time each KPI on a loaded database, its plain query, and a bare scan and join, all in one session."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from benchmarks.plain import bare, plain_queries
from kpibackfill.config import Site
from kpibackfill.database.engine import reading
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.kpis import registry
from kpibackfill.kpis.registry import SiteAt, Window

AT = SiteAt(Site(), ZoneInfo("America/New_York"), datetime(2026, 11, 22, tzinfo=UTC))
YEARS = [Window(year, datetime(year, 1, 1), datetime(year, 12, 31, 23, 59, 59)) for year in range(2015, 2026)]
ALL_IN_ONE = [Window(1, YEARS[0].start, YEARS[-1].end)]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of several runs: the median by the clock, and the least processor time."""

    median: float
    processor: float

    def __add__(self, other: Times) -> Times:
        return Times(self.median + other.median, self.processor + other.processor)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one database took. `one_window` computes the same rows as a single window."""

    kpis: dict[str, Times]
    plain: dict[str, Times]
    bare: Times
    one_window: Times
    statements: int
    peak_memory: int
    """Of this process, in bytes."""


def measure(url: sa.URL, *, runs: int, plain: bool, server: Path | None = None) -> Measured:
    """Run everything `runs` times; `server` is the file with the process id of a database server of our own."""
    kpis = registry.load().values()
    with reading(url, Site()) as connection:
        recorded = RecordedConnection(connection)
        pid = connection.scalar(sa.select(sa.func.pg_backend_pid())) if url.get_backend_name() == "postgresql" else None
        pid = pid or (server and int(server.read_text()))

        def timed(run: Callable[[], Any]) -> Times:
            return _timed(run, runs, pid)

        def all_in_one() -> None:
            for kpi in kpis:
                list(kpi.compute(recorded, AT, ALL_IN_ONE))

        times = {kpi.kpi_id: timed(lambda kpi=kpi: list(kpi.compute(recorded, AT, YEARS))) for kpi in kpis}
        statements = len(recorded.queries) // runs
        one_window = timed(all_in_one)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        queries: dict[str, sa.Select[Any]] = plain_queries(AT, YEARS) if plain else {}
        return Measured(
            kpis=times,
            plain={kpi_id: timed(lambda query=query: recorded.execute(query)) for kpi_id, query in queries.items()},
            bare=timed(lambda: recorded.execute(bare())),
            one_window=one_window,
            statements=statements,
            peak_memory=memory,
        )


def _timed(run: Callable[[], Any], runs: int, pid: int | None) -> Times:
    clock, processor = [], []
    for _ in range(runs):
        worked, began = _processor_seconds(pid), time.perf_counter()
        run()
        clock.append(time.perf_counter() - began)
        processor.append(_processor_seconds(pid) - worked)
    return Times(statistics.median(clock), min(processor))


def _processor_seconds(pid: int | None) -> float:
    """Processor time of this process and the server's; the server's is known only on Linux."""
    seconds = time.process_time()
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat") if pid else ():
        try:
            seconds += int(path.read_text().split()[0]) / 1e9
        except OSError:  # a thread that has ended meanwhile
            continue
    return seconds


def table(measured: Sequence[tuple[str, Measured]]) -> str:
    """The measurements as a Markdown table: a row per KPI, median seconds (processor seconds)."""

    def cell(times: Times | None) -> str:
        return f"{times.median:.2f} ({times.processor:.2f})" if times else ""

    lines = ["| | " + " | ".join(f"{name} | plain" for name, _ in measured) + " |"]
    lines.append("|---|" + "---:|---:|" * len(measured))
    for kpi_id in measured[0][1].kpis:
        cells = (f"{cell(each.kpis[kpi_id])} | {cell(each.plain.get(kpi_id))}" for _, each in measured)
        lines.append(f"| `{kpi_id}` | {' | '.join(cells)} |")
    rows: dict[str, Callable[[Measured], tuple[str, str]]] = {
        "**all six**": lambda each: (cell(_total(each.kpis)), cell(_total(each.plain))),
        "the same rows as one window": lambda each: (cell(each.one_window), ""),
        "bare scan and join": lambda each: (cell(each.bare), ""),
        "statements": lambda each: (str(each.statements), str(len(each.plain))),
        "peak memory, MB": lambda each: (f"{each.peak_memory / 1e6:.0f}", ""),
    }
    for name, of in rows.items():
        lines.append(f"| {name} | {' | '.join(' | '.join(of(each)) for _, each in measured)} |")
    return "\n".join(lines)


def _total(times: dict[str, Times]) -> Times | None:
    return sum(list(times.values())[1:], next(iter(times.values()))) if times else None
