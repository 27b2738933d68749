"""What the dashboard's annual tables show of a target, next to what is stored and what is computed now."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from sqlalchemy.engine import Connection

from kpibackfill.archive.history import last_recorded
from kpibackfill.compute import connections
from kpibackfill.config import Config
from kpibackfill.database.engine import names_of, reading
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.kpi_values import values_of
from kpibackfill.kpis import registry
from kpibackfill.kpis.registry import SiteAt, Value
from kpibackfill.numbers import same, too_few
from kpibackfill.page.annual_tables import AnnualRow, AnnualTables, Section
from kpibackfill.page.id_prefix import which_show
from kpibackfill.page.reading import read_page
from kpibackfill.parameters import DEFAULTS, command_options
from kpibackfill.planning.page import page_state
from kpibackfill.reporting.dashboard import DIFFERS, MISSING, Cell, Dashboard, behind_remark, page_sentence
from kpibackfill.reporting.page_table import warm_commands
from kpibackfill.run import Run, kept_by_hand, prepare
from kpibackfill.snapshots import read_snapshots


def dashboard(
    target: str = "demo",
    *,
    computed: bool = False,
    kpis: str | list[str] = "",
    include_risky: bool = False,
    from_year: int | None = None,
    to_year: int | None = None,
    as_of: str | datetime | date | None = None,
    config: Config | None = None,
) -> Dashboard:
    """Show what the site's dashboard shows now, next to what is stored. Reads only, and leaves no record.

    Parameters
    ----------
    target : a target of ``kpibackfill.toml``.
    computed : also compute what a run would for the snapshots of these years.
    kpis : KPI ids instead of all, as text separated by commas or a list.
    include_risky : compute the risky KPIs too, without naming them.
    from_year, to_year : the page's columns, inclusive; by default all of them.
    as_of : the instant that is now; a local time is the site's.
    config : the configuration to use instead of the nearest ``kpibackfill.toml``.

    Returns
    -------
    Dashboard : a table; ``frame()`` is a DataFrame, and `agrees` says whether the page shows the stored rows.

    Raises
    ------
    KpiBackfillError : in one or two lines, what is wrong; nothing was written.

    Example: ``kb.dashboard("live", computed=True)``
    """
    asked = {"target": target, "kpis": kpis, "include_risky": include_risky, "as_of": as_of}
    run = prepare({**asked, "from_year": from_year, "to_year": to_year}, config)
    known, by_hand = registry.load(run.site.kpi_modules), kept_by_hand(run.config)
    now, every = run.parameters.as_of.astimezone(run.target.zone), [*known, *by_hand]
    kpi_ids = [entry.kpi_id for entry in run.kpis] if run.parameters.kpis else every
    with ExitStack() as stack:
        if computed:
            store, sources = stack.enter_context(connections(run.target, run.site))
        else:
            store = sources = stack.enter_context(reading(run.target.store_url, run.site))
        tables = read_page(store, run.site, now, every)
        prefix = tables.prefix
        notes = [prefix.evidence, *tables.payload.notes]
        if prefix.shown is not None and not prefix.is_read:
            notes.append(f"{which_show(prefix)} Rows of a run would show on no page: see kpi_id_prefix.")
            tables = read_page(store, run.site, now, every, replace(prefix, text=prefix.shown))
        if from_year is not None:
            within = range(run.parameters.from_year, run.parameters.to_year + 1)
            tables = replace(
                tables, years=range(max(within[0], tables.years[0]), min(within[-1], tables.years[-1]) + 1)
            )
        values = _compute(store, sources, run, tables.years) if computed else None
    cells = tuple(_cells(run, tables, kpi_ids, values))
    state = page_state(tables, kpi_ids).changed(note=None)
    return Dashboard(
        target=run.target.name,
        as_of=run.parameters.as_of,
        cells=cells,
        state=state,
        sentence=page_sentence(tables, state, now),
        notes=tuple(notes),
        commands=(*_run_command(run, cells), *(warm_commands(state) if state.stale else ())),
        _kpis=known,
        _computed=computed,
    )


@dataclass(frozen=True, slots=True)
class _Computed:
    """The values by KPI and window, the window of each target snapshot, and of the last one in each column."""

    values: Mapping[str, Mapping[int, Value]]
    windows: Mapping[int, int]
    columns: Mapping[int, int]

    def of(self, kpi_id: str, year: int, row: AnnualRow | None) -> Value | None:
        """What a run computes for the snapshot whose row shows, or else for the last one of that year."""
        window = self.windows.get(row.snapshot_id) if row else None
        window = self.columns.get(year) if window is None else window
        return None if window is None else self.values.get(kpi_id, {}).get(window)


def _compute(store: Connection, sources: Connection, run: Run, years: range) -> _Computed:
    if not years:
        return _Computed({}, {}, {})
    # A snapshot may stand for the year before its date, by which the page goes.
    parameters = replace(run.parameters, from_year=years[0] - 1, to_year=years[-1])
    snapshots, windows = read_snapshots(store, run.site, parameters)
    at = SiteAt(run.site, run.target.zone, parameters.as_of)
    values: dict[str, Mapping[int, Value]] = {}
    for entry in run.kpis if windows else ():
        connection = RecordedConnection(store if entry.reads_store else sources)
        values[entry.kpi_id] = values_of(entry, connection, at, windows)
    rows = [row for row in snapshots.itertuples() if not row.is_test]
    return _Computed(
        values,
        {row.snapshot_id: row.window_id for row in rows},
        {int(row.snapshot_date[:4]): row.window_id for row in rows},
    )


def _cells(run: Run, tables: AnnualTables, kpi_ids: Sequence[str], values: _Computed | None) -> Iterator[Cell]:
    """The cells that show or hold anything, or lack a row that a run may write."""
    stale: dict[tuple[str, int], list[Section]] = {}
    for cell in tables.stale(kpi_ids):
        stale.setdefault((cell.kpi_id, cell.year), []).append(cell.section)
    few = set(_of_few(run, tables, stale))
    units = {entry.kpi_id: entry.unit for entry in run.kpis}
    for kpi_id in kpi_ids:
        sections = tables.sections(kpi_id)
        for year in tables.years:
            behind = stale.get((kpi_id, year), [])
            section = next(iter(behind or sections), None)
            showing = section.annual[tables.prefix.text + kpi_id].get(year) if section else None
            live = tables.is_live(kpi_id, year)
            rows: Sequence[AnnualRow | None] = tables.winning.get((kpi_id, year)) or [None]
            for row in rows:
                value = values.of(kpi_id, year, row) if values else None
                number = value.value if value else None
                due = number is not None if values else kpi_id in units and year < run.parameters.as_of.year
                missing = row is None and due and not live
                if showing is None and row is None and number is None and not missing:
                    continue
                differs = row is not None and number is not None and not same(row.value, number)
                withheld = (kpi_id, year) in few or (value is not None and too_few(units[kpi_id], value.basis))
                remarks = (behind_remark(behind), missing and MISSING, differs and DIFFERS)
                yield Cell(
                    kpi_id=kpi_id,
                    year=year,
                    page=None if withheld or showing is None else showing.value,
                    page_source="live" if live else showing.source if showing else "",
                    stored=None if withheld or row is None else row.value,
                    snapshot_id=row.snapshot_id if row else None,
                    computed=None if withheld else number,
                    agrees=None if live or section is None else not behind,
                    section=section.name if section else "",
                    withheld=withheld,
                    remark="; ".join(remark for remark in remarks if remark),
                )


def _of_few(run: Run, tables: AnnualTables, stale: Collection[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """The cells with a rate of too few people, as far as the archive knows.

    A page that is behind may show the value from before, or one whose row was deleted.
    """
    later = run.site.dated.later("annual")
    for change in last_recorded(run.config.runs_dir, *names_of(run.config, run.target)).values():
        kpi_id = change.kpi_id.removeprefix(tables.prefix.text)
        row = tables.rows.get((change.snapshot_id, kpi_id))
        cell = row.cell if row else (kpi_id, change.year + later)
        if (row and too_few(change.unit, change.basis)) or (
            (row or change.after is None) and cell in stale and too_few(change.unit, change.basis_before)
        ):
            yield cell


def _run_command(run: Run, cells: Sequence[Cell]) -> Iterator[str]:
    """A dry run of the cells whose rows are not there, or not as computed, if any."""
    due = [cell for cell in cells if MISSING in cell.remark or DIFFERS in cell.remark]
    if not due:
        return
    years = sorted({cell.year - run.site.dated.later("annual") for cell in due})
    due_ids = {cell.kpi_id for cell in due}
    named = run.parameters.kpis or any(entry.risky for entry in run.kpis if entry.kpi_id in due_ids)
    asked: dict[str, Any] = {
        **DEFAULTS,
        "target": run.target.name,
        "from_year": years[0],
        "to_year": None if len(years) == 1 else years[-1],
        "kpis": ",".join(sorted(due_ids)) if named else "",
    }
    yield shlex.join(["kpibackfill", "run", *command_options(asked)])
