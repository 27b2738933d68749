"""This step reads everything that a run needs, in one read-only transaction that ends with it."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from numbers import Integral, Number
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from kpibackfill import baseline, revert
from kpibackfill.config import Site, Target, masked_url
from kpibackfill.database import fact_table
from kpibackfill.database.engine import identity, one_moment, reading
from kpibackfill.database.inspection import server_version
from kpibackfill.database.query_log import Query, RecordedConnection
from kpibackfill.errors import KpiBackfillError, Refused
from kpibackfill.frames import sealed
from kpibackfill.kpis.registry import Kpi, SiteAt, Value, Window
from kpibackfill.numbers import float4
from kpibackfill.parameters import one_line
from kpibackfill.progress import Progress
from kpibackfill.reporting import markup
from kpibackfill.revert import Reverted
from kpibackfill.run import Run, kept_by_hand, step
from kpibackfill.snapshots import misdated, read_snapshots, targets
from kpibackfill.tables import kpi_fact, snapshot


@dataclass(frozen=True, repr=False, eq=False)
class Readings:
    """What a run read, all of it as of one moment.

    Attributes
    ----------
    snapshots : DataFrame, a row per target snapshot: `snapshot_id`, `snapshot_date`, `snapshot_type`, `source`, `year`
        (int: the window's) and `period` (``2024``, ``2024 Q1`` or ``2024-01``).
    computed : DataFrame, a row per snapshot and KPI: the columns of `snapshots`, `kpi_id`, `computed` (float, NaN for
        no data), `basis` and `population` (Int64, missing where a KPI gives none), `warnings` (tuple of sentences).
    stored : the rows that are there, by snapshot and the registry's KPI id, `meta` included: never rendered.
    queries : per KPI the statements that it sent.
    databases : server, version and identity of store and sources, for the record.
    notes : sentences about the reading as a whole.
    reverted : in a revert, what the other run wrote and what is there now.
    gone : a sentence on rows on record whose snapshot is there no more, or the empty text.
    """

    run: Run
    snapshots: pd.DataFrame
    computed: pd.DataFrame
    stored: Mapping[tuple[int, str], fact_table.Image]
    queries: Mapping[str, Sequence[Query]]
    databases: Mapping[str, Any]
    notes: tuple[str, ...]
    reverted: Reverted | None = None
    gone: str = ""

    def __repr__(self) -> str:
        return f"{len(self.computed)} values of {len(self.snapshots)} snapshots"

    def _repr_html_(self) -> str:
        snapshots, computed = (table.to_dict("records") for table in (self.snapshots, self.computed))
        return markup.readings_html(snapshots, computed, self.run.kpis, self.notes)


@step
def compute_kpis(run: Run) -> Readings:
    """Read the target snapshots, compute each KPI for each of their windows, and read the rows that are stored.

    One query a KPI, whatever the number of snapshots, in one read-only transaction; where the sources are another
    database, one there as well.

    Parameters
    ----------
    run : what ``begin`` returned.

    Returns
    -------
    Readings : `snapshots` and `computed`, two DataFrames, and what is stored; shown as a table.

    Raises
    ------
    KpiBackfillError : the database can't be reached or read, a table is missing, a key is there twice; one or two
        lines, and nothing was written.
    """
    target, site = run.target, run.site
    with connections(target, site) as (store_connection, sources_connection):
        fact = fact_table.layout(store_connection)
        snapshots, windows = read_snapshots(store_connection, site, run.parameters)
        stored, notes = stored_rows(store_connection, fact, run)
        gone = baseline.gone_sentence(
            _recorded_of_no_snapshot(store_connection, run, snapshots["snapshot_id"].tolist())
        )
        undone = run.parameters.revert_of
        reverted = revert.read(store_connection, fact, run.config, undone) if undone else None
        databases = {
            "store": _described(store_connection, target.store_url) | {"surrogate_id": fact.surrogate},
            "sources": _described(sources_connection, target.sources_url),
            "one_transaction": sources_connection is store_connection,
        }
        at = SiteAt(site, target.zone, run.parameters.as_of)
        values: dict[str, dict[int, Value]] = {}
        queries: dict[str, Sequence[Query]] = {}
        with Progress("Computing", len(run.kpis)) as progress:
            for entry in run.kpis:
                progress.at(entry.label)
                connection = RecordedConnection(store_connection if entry.reads_store else sources_connection)
                values[entry.kpi_id] = values_of(entry, connection, at, windows) if windows else {}
                queries[entry.kpi_id] = tuple(connection.queries)
    if not databases["one_transaction"]:
        notes.append("Sources and store are two databases: each was read as of a moment of its own.")
    if not one_moment(target.sources_url):
        notes.append("The sources have no transactions: each KPI was read as of a moment of its own.")
    notes += [*misdated(site, snapshots), *([gone] if gone else [])]
    columns = ["snapshot_id", "snapshot_date", "snapshot_type", "source", "year", "period"]
    return Readings(
        run=run,
        snapshots=sealed(snapshots[columns], run),
        computed=sealed(_frame(snapshots, run.kpis, values), run),
        stored=MappingProxyType(stored),
        queries=MappingProxyType(queries),
        databases=databases,
        notes=tuple(notes),
        reverted=reverted,
        gone=gone,
    )


@contextmanager
def connections(target: Target, site: Site) -> Iterator[tuple[Connection, Connection]]:
    """Where the store and where the sources are read: one read-only transaction where they are one database."""
    with reading(target.store_url, site.civicrm_schema) as store_connection:
        if target.sources_are_store:
            yield store_connection, store_connection
        else:
            with reading(target.sources_url, site.civicrm_schema) as sources_connection:
                yield store_connection, sources_connection


def stored_rows(
    connection: Connection, fact: fact_table.Layout, run: Run
) -> tuple[dict[tuple[int, str], fact_table.Image], list[str]]:
    """The stored rows of the wanted KPIs and of those kept by hand, and a note on rows under the other prefix.

    The rows are by the registry's ids.
    """
    prefix = run.site.kpi_id_prefix
    decided = run.decisions.kpi_ids() if run.decisions else set()
    ids = (*(entry.kpi_id for entry in run.kpis), *kept_by_hand(run.config), *sorted(decided))
    wanted = {prefix + kpi_id: kpi_id for kpi_id in ids}
    twins = {entry.kpi_id if prefix else f"kpi_{entry.kpi_id}" for entry in run.kpis}
    spelled = sa.func.lower(sa.func.trim(kpi_fact.c.kpi_id))
    statement = (
        fact_table.rows_select(fact)
        .join_from(kpi_fact, snapshot, snapshot.c.id == kpi_fact.c.snapshot_id)
        .where(targets(run.site, run.parameters), spelled.in_(sorted({name.lower() for name in [*wanted, *twins]})))
    )
    rows = connection.execute(statement).all()
    found = fact_table.index_rows(rows, wanted)
    notes = []
    count = sum(row.kpi_id in twins for row in rows)
    if count:
        spelling = "without a prefix" if prefix else "with the prefix 'kpi_'"
        notes.append(
            f"For these snapshots the fact table also holds {count} row{'s' * (count > 1)} of these KPIs {spelling}, "
            "which this run leaves alone; newer dashboards read prefixed ids: see kpi_id_prefix in kpibackfill.toml."
        )
    return {(snapshot_id, wanted[kpi_id]): image for (snapshot_id, kpi_id), image in found.items()}, notes


def _recorded_of_no_snapshot(connection: Connection, run: Run, found: Sequence[int]) -> int:
    """How many rows on record belong to snapshots that are there no more: where one is rebuilt it gets another id."""
    recorded = baseline.recorded_snapshots(run)
    others = recorded.keys() - set(found)
    missing = others - fact_table.present_snapshots(connection, others, hold=False)
    return sum(recorded[snapshot_id] for snapshot_id in missing)


def values_of(entry: Kpi, connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> dict[int, Value]:
    """One KPI's values by window, held to the contract."""
    known = {window.window_id for window in windows}
    values: dict[int, Value] = {}
    with as_kpi_error(entry):
        given = entry.compute(connection, site, windows)
        if not isinstance(given, Iterable):
            raise _broken(entry, f"gave {type(given).__name__} instead of one kb.Value per window")
        for value in given:
            value = _held_to_contract(entry, value)
            if value.window_id not in known or value.window_id in values:
                raise _broken(entry, f"gave the window {value.window_id!r}, which it was not asked for or gave twice")
            values[value.window_id] = value
    return values


@contextmanager
def as_kpi_error(entry: Kpi) -> Iterator[None]:
    """Say of a site's own KPI where it broke, without its error's text, which may quote an answer.

    The error itself is the cause: Python and pytest show it with its traceback. Those of the built-in KPIs are ours.
    """
    try:
        with redirect_stdout(sys.stderr):  # what a KPI says must not get into a JSON document
            yield
    except (KpiBackfillError, DBAPIError):
        raise
    except (Exception, SystemExit) as error:
        if entry.built_in:
            raise
        module = entry.compute.__module__
        lines = [
            line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_globals.get("__name__") == module
        ]
        where = f"{module}, line {lines[-1]}" if lines else module
        raise _broken(entry, f"raised {type(error).__name__} ({where})") from error


def _held_to_contract(entry: Kpi, value: Any) -> Value:
    """The value in plain numbers and texts, which driver and NumPy have kinds of their own of.

    No refusal quotes a text: it may be somebody's answer.
    """
    window_id: object = getattr(value, "window_id", None)
    if not isinstance(value, Value) or not isinstance(window_id, Integral):
        raise _broken(entry, f"gave {type(value).__name__} instead of a kb.Value with its window's id")
    try:
        number = None if value.value is None else float(_number(value.value))
        fits = number is None or math.isfinite(float4(number))
    except OverflowError:
        fits = False
    except TypeError:
        raise _broken(entry, f"gave {type(value.value).__name__} as a value, which is a number or None") from None
    if not fits:
        raise _broken(entry, f"gave {value.value!r:.40}, which the fact table can't hold")
    try:
        basis, population = _count(value.basis), _count(value.population)
    except (TypeError, ValueError, OverflowError):
        raise _broken(entry, "gave a basis or population that is no whole number from 0 up") from None
    try:
        if isinstance(value.warnings, str):
            raise TypeError
        warnings = tuple(one_line("warnings", text) for text in value.warnings)
    except (TypeError, Refused):
        raise _broken(entry, "gave warnings that are no list of texts of one line each") from None
    return Value(int(window_id), number, basis, population, warnings)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Number):
        raise TypeError
    return value


def _count(value: Any) -> int | None:
    whole = None if value is None else int(_number(value))
    if whole is not None and not (whole == value and 0 <= whole < 2**63):
        raise ValueError
    return whole


def _frame(snapshots: pd.DataFrame, kpis: Sequence[Kpi], values: Mapping[str, Mapping[int, Value]]) -> pd.DataFrame:
    nothing = Value(-1, None)
    parts = []
    for order, entry in enumerate(kpis):
        found = [values[entry.kpi_id].get(window_id, nothing) for window_id in snapshots["window_id"]]
        parts.append(
            snapshots.drop(columns="window_id").assign(
                order=order,
                kpi_id=entry.kpi_id,
                computed=np.array([np.nan if v.value is None else float(v.value) for v in found], dtype="float64"),
                basis=pd.array([v.basis for v in found], dtype="Int64"),
                population=pd.array([v.population for v in found], dtype="Int64"),
                warnings=pd.Series([tuple(v.warnings) for v in found], dtype=object, index=snapshots.index),
                snapshot_order=range(len(snapshots)),
            )
        )
    frame = pd.concat(parts).sort_values(["snapshot_order", "order"], kind="stable")
    return frame.drop(columns=["order", "snapshot_order"]).reset_index(drop=True)


def _described(connection: Connection, url: sa.URL) -> dict[str, Any]:
    return {"url": masked_url(url), **identity(url), "server": server_version(connection)}


def _broken(entry: Kpi, what: str) -> KpiBackfillError:
    return Refused(f"The KPI {entry.kpi_id!r} {what}; nothing was written. Mend its module.", code="kpi_contract")
