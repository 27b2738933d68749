"""Generate, load and measure; print the tables of docs/performance.md."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import tempfile
from collections.abc import Iterator
from importlib.metadata import version as package_version
from pathlib import Path

import click
import sqlalchemy as sa

from benchmarks.load import load
from benchmarks.measure import Measured, measure, table
from benchmarks.server import private, sail
from tests.servers import connect

ENGINES = ("sqlite", "mariadb", "postgresql", "duckdb", "sail")


@click.command(help="Time the KPIs on generated makerspaces, loaded into temporary databases.")
@click.option("--participants", "sizes", type=int, multiple=True, default=(204_059, 1_019_745), show_default=True)
@click.option("--engine", "engines", type=click.Choice(ENGINES), multiple=True, default=ENGINES[:3], show_default=True)
@click.option("--runs", default=3, show_default=True, help="Show the medians of that many runs.")
@click.option("--plain/--no-plain", default=True, help="Also time a plain query for each KPI.")
def main(sizes: tuple[int, ...], engines: tuple[str, ...], runs: int, plain: bool) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="kpibackfill-bench-") as folder:
        for size in sizes:
            measured = [_measured(engine, size, Path(folder), runs=runs, plain=plain) for engine in engines]
            load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
            print(f"\n{size:,} participants; load {load}\n\n{table(measured)}", flush=True)


def _measured(engine: str, size: int, folder: Path, *, runs: int, plain: bool) -> tuple[str, Measured]:
    with _database(engine, size, folder) as (url, version, server):
        # In its own process, so that the memory measured here is that of reading alone.
        loader = multiprocessing.get_context("spawn").Process(target=load, args=(url, engine, size))
        loader.start()
        loader.join()
        if loader.exitcode:
            raise click.ClickException(f"loading {size:,} participants into {engine} failed")
        return version, measure(url, runs=runs, plain=plain, server=server)


@contextlib.contextmanager
def _database(engine: str, size: int, folder: Path) -> Iterator[tuple[sa.URL, str, Path | None]]:
    """The URL of an empty database, the engine with its version, and the file with the server's process id."""
    name = f"kpibackfill_bench_{size}"
    if engine == "sqlite":
        path = folder / f"{name}.sqlite"
        path.touch()
        yield sa.URL.create("sqlite", database=str(path)), f"SQLite {_version(sa.make_url('sqlite://'))}", None
        path.unlink()
    elif engine == "duckdb":
        path = folder / f"{name}.duckdb"
        yield sa.URL.create("duckdb", database=str(path)), f"DuckDB {package_version('duckdb')}", None
        path.unlink()
    elif engine == "sail":
        with sail(folder / name) as (url, process_id):
            yield url, f"Sail {package_version('pysail')}", process_id
    else:
        with private(engine) as server:
            url = server.url()
            if engine == "mariadb":
                url = url.update_query_dict({"local_infile": "1", "charset": "utf8mb4"})
            title = "MariaDB" if engine == "mariadb" else "PostgreSQL"
            # PostgreSQL has a process per connection, which reports its own id.
            yield url, f"{title} {_version(url)}", server.folder / "pid" if engine == "mariadb" else None


def _version(url: sa.URL) -> str:
    with connect(url) as connection:
        return ".".join(str(part) for part in connection.dialect.server_version_info or () if isinstance(part, int))


if __name__ == "__main__":
    main()
