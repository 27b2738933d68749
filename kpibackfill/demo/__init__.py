"""The demo makerspace: one SQLite file with a store, its sources and a story to discover.

All people in it are invented. The same `until_year` always yields the same rows, except for the payload of the
dashboard: that was computed two hours before the demo was built. This is what the stored KPI rows show when they are
compared with the values computed from the sources:

| year         | what an analyst finds                                                                                |
|--------------|------------------------------------------------------------------------------------------------------|
| 2015         | until 2020, attendees follow the old definition: every label that contains "workshop" counts         |
| 2016         | no stored values                                                                                     |
| 2017         | old definition; one `meta` is the text `Array`; the participants' rate is rounded to two decimals    |
| 2018         | old definition; rounded rate; nobody could submit an evaluation, and the stored NPS is a false 0     |
| 2019         | no stored values                                                                                     |
| 2020         | the dip: closed from April on; old definition, and that row's `period_month` is wrong                |
| 2021         | from now on attendees match exactly; the monthly snapshots of August and September are lost, so the  |
|              | stored signups are right and the computed ones too low; the instructors' rate includes former ones   |
| 2022         | March to May have monthly snapshots from two sources, so the computed signups are too high           |
| 2023         | two annual snapshots: the system's, which matches, and a manual import with round numbers, which is  |
|              | dated two weeks earlier, so that no dashboard shows it                                               |
| 2024 …       | everything that is stored matches                                                                    |
| last but one | NPS and the participants' rate are missing                                                           |
| last year    | only attendees, as counted at the end of September; everything else is new                           |

Otherwise a stored value is the computed one as a 4-byte float. The risky rate is stored only for 2021 to 2023. The
annual snapshots also have KPI rows of other programs, and since January 2024 the site's hook freezes seven KPIs at each
monthly snapshot. The payload shows the last row of each year, targets of the strategic plan for 2026 to 2030, and for
signups the members who joined in the last 36 months, without those who came back.
"""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from kpibackfill.demo.payload import key_values
from kpibackfill.demo.people import FIRST_YEAR, invent
from kpibackfill.demo.rows import Tables, source_tables, store_tables
from kpibackfill.demo.stored import kpi_rows_of, snapshots_of
from kpibackfill.errors import KpiBackfillError

MARK = b"kpid"
UNTIL_YEARS = range(2025, 2051)  # the story needs the first; the last keeps the demo quick to build


@dataclass(frozen=True)
class DemoSummary:
    """What was built: the file, its years (inclusive), and how many rows of each kind (only events with a date)."""

    path: Path
    from_year: int
    until_year: int
    contacts: int
    events: int
    registrations: int
    evaluations: int
    snapshots: int
    kpi_rows: int


def build_demo(
    path: Path, *, until_year: int | None = None, replace: bool = False, now: dt.datetime | None = None
) -> DemoSummary:
    """Build the demo makerspace from 2015 to `until_year` (default: last year) as the SQLite file `path`.

    The dashboard's payload is as it would be at `now`, local time (default: this moment). The file appears complete or
    not at all. Raises KpiBackfillError if `path` exists and `replace` is not set or it is not a demo, if the year is
    out of range, and if the file can't be written.
    """
    now = now or dt.datetime.now()
    until = now.year - 1 if until_year is None else until_year
    if until not in UNTIL_YEARS:
        raise KpiBackfillError(
            f"The demo can end in {UNTIL_YEARS[0]} through {UNTIL_YEARS[-1]}, not in {until!r}. Nothing was built.",
            code="demo_year",
        )
    _refuse_existing(path, replace)
    space = invent(range(FIRST_YEAR, until + 1))
    snapshots = snapshots_of(space)
    kpi_rows = kpi_rows_of(space, snapshots)
    page = {"key_value (collection, name, value)": key_values(space, snapshots, kpi_rows, now)}
    image = _database(source_tables(space) | store_tables(snapshots, kpi_rows) | page)
    try:
        _place(image, path, replace)
    except OSError as error:
        raise KpiBackfillError(
            f"The demo could not be written to {path}: {error.strerror or error}. Nothing was left behind.",
            code="demo_not_written",
        ) from error
    return DemoSummary(
        path=path,
        from_year=FIRST_YEAR,
        until_year=until,
        contacts=len(space.contacts),
        events=len(space.events),
        registrations=len(space.registrations),
        evaluations=len(space.evaluations),
        snapshots=len(snapshots),
        kpi_rows=len(kpi_rows),
    )


def _refuse_existing(path: Path, replace: bool) -> None:
    if path.exists() and not (replace and _is_demo(path)):
        raise KpiBackfillError(
            f"{path} already exists and was left unchanged. "
            + ("It is not a demo; name another file." if replace else "Name another file, or use --replace."),
            code="demo_exists",
        )


def _is_demo(path: Path) -> bool:
    """Whether the file has the schema's mark where SQLite stores it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(72)[68:] == MARK


def _database(tables: Tables) -> bytes:
    """The whole database, built in memory so that a build that is killed leaves nothing on the disk."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(resources.files("kpibackfill").joinpath("demo", "schema.sql").read_text("utf-8"))
        connection.execute("BEGIN")
        for table, rows in tables.items():
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608  these tables are ours
        connection.execute("COMMIT")
        return connection.serialize()


def _place(image: bytes, path: Path, replace: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent, delete=False) as file:
        try:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
            _refuse_existing(path, replace)
            # SQLite would apply the journal of an earlier database of that name to the new one.
            for suffix in ("-journal", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
