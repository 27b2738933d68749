"""Read everything that a run needs, in one read-only transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill import baseline, revert
from kpibackfill.archive.models import ReadDatabase, ReadDatabases
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.config import PREFIX, Site, Target, masked_url
from kpibackfill.database import fact_table
from kpibackfill.database.engine import identity, one_moment, reading
from kpibackfill.database.image import Image, RowKey
from kpibackfill.database.inspection import server_version
from kpibackfill.database.query_log import Query, RecordedConnection
from kpibackfill.frames import sealed
from kpibackfill.kpi_values import values_of
from kpibackfill.kpis.registry import Kpi, SiteAt, Value
from kpibackfill.page.annual_tables import AnnualTables, IdPrefix, Payload, is_annual
from kpibackfill.page.id_prefix import find_prefix, spelled, which_show
from kpibackfill.page.payload import read_payload
from kpibackfill.page.reading import read_annual_tables
from kpibackfill.progress import Progress
from kpibackfill.reporting.notebook_tables import readings_html
from kpibackfill.revert import Reverted
from kpibackfill.run import Run, decidable, kept_by_hand, step
from kpibackfill.snapshots import misdated, read_snapshots, targets
from kpibackfill.tables import kpi_fact, snapshot
from kpibackfill.text import count


@dataclass(frozen=True, repr=False, eq=False)
class Readings:
    """What a run read, all of it as of one moment.

    Attributes
    ----------
    snapshots : DataFrame, a row per target snapshot: `snapshot_id`, `snapshot_date`, `snapshot_type`, `source` (empty
        where it has none), `is_test` (bool: pages skip it), `year` (int: the window's) and `period` (``2024``,
        ``2024 Q1`` or ``2024-01``).
    computed : DataFrame, a row per snapshot and KPI: the columns of `snapshots` except `is_test`, then `kpi_id`,
        `computed` (float, NaN for no data), `basis` and `population` (Int64, missing where a KPI returns none),
        `warnings` (tuple of sentences).
    stored : the stored rows, by snapshot and the registry's KPI id, including `meta`, which is never rendered.
    tables : the dashboard's annual tables, and how the stored ids begin.
    queries : the statements that each KPI sent.
    databases : server, version and identity of store and sources, for the record.
    notes : sentences about the reading as a whole.
    reverted : in a revert, what the reverted run wrote and what is stored now.
    gone : a sentence about recorded rows whose snapshots no longer exist, or the empty text.
    """

    run: Run
    snapshots: pd.DataFrame
    computed: pd.DataFrame
    stored: Mapping[RowKey, Image]
    tables: AnnualTables
    queries: Mapping[str, Sequence[Query]]
    databases: ReadDatabases
    notes: tuple[str, ...]
    reverted: Reverted | None = None
    gone: str = ""

    @property
    def prefix(self) -> str:
        """How the ids in the fact table begin."""
        return self.tables.prefix.text

    def __repr__(self) -> str:
        return f"{count(len(self.computed), 'value')} for {count(len(self.snapshots), 'snapshot')}"

    def _repr_html_(self) -> str:
        snapshots, computed = (table.to_dict("records") for table in (self.snapshots, self.computed))
        return readings_html(snapshots, computed, self.run.kpis, self.notes)


@step
def compute_kpis(run: Run) -> Readings:
    """Read the target snapshots, compute each KPI for each of their windows, and read the stored rows.

    It sends one query per KPI, however many snapshots there are, in one read-only transaction, or one per database if
    the sources and the store are different databases.

    Parameters
    ----------
    run : what ``begin`` returned.

    Returns
    -------
    Readings : the DataFrames `snapshots` and `computed`, and the stored rows; a notebook shows it as a table.

    Raises
    ------
    KpiBackfillError : the database can't be reached or read, a table is missing, or a key exists twice.
    """
    target, site = run.target, run.site
    with connections(target, site) as (store_connection, sources_connection):
        fact = fact_table.layout(store_connection)
        snapshots, windows = read_snapshots(store_connection, site, run.parameters)
        payload = read_payload(store_connection)
        prefix = prefix_of(store_connection, run, payload)
        stored, notes = stored_rows(store_connection, fact, run, prefix)
        tables = read_annual_tables(
            store_connection,
            site.dashboard,
            run.parameters.as_of.astimezone(target.zone),
            prefix,
            payload,
            {*(entry.kpi_id for entry in run.kpis), *(kpi_id for _, kpi_id in stored)},
            known=targets(site, run.parameters),
        )
        tables = _with_targets(tables, snapshots, stored)
        gone = baseline.gone_sentence(
            _recorded_of_no_snapshot(store_connection, run, prefix.text, snapshots["snapshot_id"].tolist())
        )
        undone = run.parameters.revert_of
        reverted = revert.read(store_connection, fact, run.config, undone) if undone else None
        databases = ReadDatabases(
            store=_described(store_connection, target.store_url, surrogate_id=fact.surrogate),
            sources=_described(sources_connection, target.sources_url),
            one_transaction=sources_connection is store_connection,
        )
        at = SiteAt(site, target.zone, run.parameters.as_of)
        values: dict[str, dict[int, Value]] = {}
        queries: dict[str, Sequence[Query]] = {}
        with Progress("Computing", len(run.kpis)) as progress:
            for entry in run.kpis:
                progress.at(entry.label)
                connection = RecordedConnection(store_connection if entry.reads_store else sources_connection)
                values[entry.kpi_id] = values_of(entry, connection, at, windows) if windows else {}
                queries[entry.kpi_id] = tuple(connection.queries)
    if not databases.one_transaction:
        notes.append("Sources and store are two databases; each was read as of its own moment.")
    if not one_moment(target.sources_url):
        notes.append("The sources have no transactions; each KPI was read as of its own moment.")
    notes += [prefix.evidence, *payload.notes, *misdated(site, snapshots), *([gone] if gone else [])]
    return Readings(
        run=run,
        snapshots=sealed(snapshots.drop(columns="window_id"), run),
        computed=sealed(_frame(snapshots, run.kpis, values), run),
        stored=MappingProxyType(stored),
        tables=tables,
        queries=MappingProxyType(queries),
        databases=databases,
        notes=tuple(notes),
        reverted=reverted,
        gone=gone,
    )


@contextmanager
def connections(target: Target, site: Site) -> Iterator[tuple[Connection, Connection]]:
    """Connections to the store and to the sources: the same read-only transaction where they are one database."""
    with reading(target.store_url, site) as store_connection:
        if target.sources_are_store:
            yield store_connection, store_connection
        else:
            with reading(target.sources_url, site) as sources_connection:
                yield store_connection, sources_connection


def prefix_of(connection: Connection, run: Run, payload: Payload) -> IdPrefix:
    """How the ids begin that the run reads and writes: in a revert, as in the run that it reverts."""
    undone = run.parameters.revert_of
    setting = RunRecord(run.config.runs_dir, undone).receipt.prefix if undone else run.site.kpi_id_prefix
    found = find_prefix(connection, setting, payload, decidable(run.config))
    if not undone:
        return found
    return dataclasses.replace(found, evidence=f"KPI ids are read and written {spelled(found.text)}, as by {undone}.")


def stored_rows(
    connection: Connection, fact: fact_table.Layout, run: Run, id_prefix: IdPrefix
) -> tuple[dict[RowKey, Image], list[str]]:
    """The stored rows of the run's KPIs and of those kept by hand, by the registry's ids, and notes.

    A note reports rows of these KPIs whose ids are spelled the other way, and one that the page reads no such ids.
    """
    prefix = id_prefix.text
    decided = run.decisions.kpi_ids() if run.decisions else set()
    ids = (*(entry.kpi_id for entry in run.kpis), *kept_by_hand(run.config), *sorted(decided))
    wanted = {prefix + kpi_id: kpi_id for kpi_id in ids}
    other = "" if prefix else PREFIX
    twins = {other + entry.kpi_id for entry in run.kpis}
    trimmed = sa.func.lower(sa.func.trim(kpi_fact.c.kpi_id))
    statement = (
        fact_table.rows_select(fact)
        .join_from(kpi_fact, snapshot, snapshot.c.id == kpi_fact.c.snapshot_id)
        .where(targets(run.site, run.parameters), trimmed.in_(sorted({name.lower() for name in [*wanted, *twins]})))
    )
    rows = connection.execute(statement).all()
    found = fact_table.index_rows(rows, wanted)
    notes = []
    others = sum(row.kpi_id in twins for row in rows)
    if others:
        notes.append(
            f"For these snapshots the fact table also holds {count(others, 'row')} of these KPIs {spelled(other)}, "
            f"which this run leaves alone. {which_show(id_prefix)}"
        )
    if not id_prefix.is_read:
        notes.append(f"{which_show(id_prefix)} Rows of this run would show on no page: see kpi_id_prefix.")
    return {(snapshot_id, wanted[kpi_id]): image for (snapshot_id, kpi_id), image in found.items()}, notes


def _with_targets(tables: AnnualTables, snapshots: pd.DataFrame, stored: Mapping[RowKey, Image]) -> AnnualTables:
    """The annual tables with the target snapshots and their stored rows."""
    names = ("snapshot_id", "snapshot_date", "snapshot_type", "is_test")
    facts = {
        snapshot_id: (date, is_annual(snapshot_type), is_test)
        for snapshot_id, date, snapshot_type, is_test in zip(*(snapshots[n].tolist() for n in names), strict=True)
    }
    return dataclasses.replace(tables, snapshots=facts).changed(
        (key, image.metric_value, (image.period_year, image.period_month)) for key, image in stored.items()
    )


def _recorded_of_no_snapshot(connection: Connection, run: Run, prefix: str, found: Sequence[int]) -> int:
    """How many recorded rows belong to snapshots that no longer exist; a rebuilt snapshot gets a new id."""
    recorded = baseline.recorded_snapshots(run, prefix)
    others = recorded.keys() - set(found)
    missing = others - fact_table.present_snapshots(connection, others, hold=False)
    return sum(recorded[snapshot_id] for snapshot_id in missing)


def _frame(snapshots: pd.DataFrame, kpis: Sequence[Kpi], values: Mapping[str, Mapping[int, Value]]) -> pd.DataFrame:
    nothing = Value(-1, None)
    found = [values[entry.kpi_id].get(window_id, nothing) for window_id in snapshots["window_id"] for entry in kpis]
    rows = (
        snapshots.drop(columns=["is_test", "window_id"]).loc[snapshots.index.repeat(len(kpis))].reset_index(drop=True)
    )
    return rows.assign(
        kpi_id=pd.Series([entry.kpi_id for entry in kpis] * len(snapshots), dtype="str"),
        computed=np.array([np.nan if v.value is None else float(v.value) for v in found], dtype="float64"),
        basis=pd.array([v.basis for v in found], dtype="Int64"),
        population=pd.array([v.population for v in found], dtype="Int64"),
        warnings=pd.Series([tuple(v.warnings) for v in found], dtype=object),
    )


def _described(connection: Connection, url: sa.URL, surrogate_id: bool | None = None) -> ReadDatabase:
    server = server_version(connection)
    return ReadDatabase(url=masked_url(url), server=server, surrogate_id=surrogate_id, **identity(url))
