"""This step lists exactly what would be written, from what, and gives the list a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pandas as pd

from kpibackfill.archive.changes import databases
from kpibackfill.archive.models import (
    Databases,
    DecisionLine,
    KpiRecord,
    PageRecord,
    PlanDocument,
    PlanRow,
    PlanSummary,
    QueryRecord,
)
from kpibackfill.archive.plan_file import fingerprint
from kpibackfill.archive.run_record import DRIFT, PLAN
from kpibackfill.compute import Readings
from kpibackfill.database.image import RowKey
from kpibackfill.database.query_log import Query
from kpibackfill.drift import counts, rows_of
from kpibackfill.errors import Refused
from kpibackfill.frames import seal_of
from kpibackfill.kpis.registry import Kpi
from kpibackfill.page.annual_tables import AnnualTables, IdPrefix, Shown
from kpibackfill.planning import candidates, resolve
from kpibackfill.planning.candidates import Candidate
from kpibackfill.planning.page import hidden_decisions, page_record
from kpibackfill.reporting import markup
from kpibackfill.reporting.csv_export import drift_csv
from kpibackfill.reporting.markup import Table
from kpibackfill.reporting.notebook_tables import plan_html
from kpibackfill.reporting.page_table import page_table
from kpibackfill.reporting.sentences import actions_sentence
from kpibackfill.run import Run, step


@dataclass(frozen=True, repr=False)
class Plan:
    """The rows to write, ordered by key, and the fingerprint that stands for them and for the databases.

    ``page_record`` is what the dashboard shows before and after; ``shown``, by the registry's ids, what becomes of each
    row there. ``candidates`` are the rows that a person may decide about, planned ones included; ``decided`` is what
    was decided.
    """

    rows: tuple[PlanRow, ...]
    databases: Databases
    fingerprint: str
    run: Run
    prefix: IdPrefix
    page_record: PageRecord
    shown: Mapping[RowKey, Shown | None]
    candidates: tuple[Candidate, ...] = ()
    decided: tuple[DecisionLine, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def kpi_ids(self) -> list[str]:
        """The KPIs of its rows, by the registry's ids."""
        return sorted({row.kpi_id.removeprefix(self.prefix.text) for row in self.rows})

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def page(self) -> Table:
        """The dashboard's annual tables, on the page now and after this plan: for the last expression of a cell."""
        kpis = {entry.kpi_id: entry for entry in self.run.kpis}
        page = page_table(self.page_record, kpis, datetime.now(UTC))
        return Table(markup.render("page", page=page), "\n".join(page.lines()))

    def frame(self) -> pd.DataFrame:
        """One row per planned row: `snapshot_id`, `kpi_id`, `action`, `year`, `before`, `after` (floats), `shown`."""
        return pd.DataFrame(
            [
                (
                    row.snapshot_id,
                    row.kpi_id,
                    row.action,
                    row.year,
                    row.before and row.before.metric_value,
                    row.value,
                    self.shown.get((row.snapshot_id, row.kpi_id.removeprefix(self.prefix.text))),
                )
                for row in self.rows
            ],
            columns=["snapshot_id", "kpi_id", "action", "year", "before", "after", "shown"],
        ).astype({"before": "float64", "after": "float64", "shown": object})

    def __repr__(self) -> str:
        return actions_sentence([row.action for row in self.rows])

    def _repr_html_(self) -> str:
        kpis = {entry.kpi_id: entry for entry in self.run.kpis}
        return plan_html(self.rows, kpis, self.prefix.text, self.fingerprint, self.decided, self.notes, self.shown)


@step
def make_plan(run: Run, drift: pd.DataFrame) -> Plan:
    """List the rows that an apply would write: the new and the changed ones, as limited or extended by decisions.

    In a revert, these are the rows that the other run wrote, restored to what they were before.

    Parameters
    ----------
    run : what ``begin`` returned.
    drift : what ``compare`` returned for that run.

    Returns
    -------
    Plan : its `rows`, ordered by key, each with its before-image, and one `fingerprint`. ``frame()`` returns them as a
    DataFrame, one row each: `snapshot_id`, `kpi_id`, `action`, `year`, `before`, `after` (stored numbers: counts,
    points, and rates as fractions) and `shown` (what becomes of the row on the dashboard, as in ``compare``). ``page``
    shows the dashboard's annual tables now and after the plan.

    Raises
    ------
    Refused : `drift` was edited since it was compared or belongs to another run, or a decision doesn't fit; nothing
        was written.
    """
    seal = seal_of(drift)
    if seal.run is not run:
        raise Refused("This drift belongs to another run; nothing was written. Run the cells in order.", code="order")
    readings: Readings = seal.content
    drifted = rows_of(drift)
    if readings.reverted is None:
        found = candidates.of_drift(run, readings, drifted)
    else:
        found = candidates.of_revert(run, readings.prefix, readings.reverted)
    chosen = resolve.choose(run, readings, found)
    rows = tuple(sorted(chosen.rows, key=lambda row: row.key))
    where, tables = databases(run.target), readings.tables
    proposed = _written(tables, {each.key: each.row for each in found.candidates if each.planned})
    wanted = {(row.snapshot_id, row.kpi_id.removeprefix(readings.prefix)): row for row in rows}
    after = _written(tables, wanted)
    plan = Plan(
        rows=rows,
        databases=where,
        fingerprint=fingerprint(where, rows),
        run=run,
        prefix=tables.prefix,
        page_record=page_record(run, drifted, tables, after, {key: row.value for key, row in wanted.items()}),
        shown={key: after.shown(key) for key in after.rows},
        candidates=found.candidates,
        decided=chosen.decided,
        notes=(*found.notes, *chosen.notes, *hidden_decisions(chosen.decided, after)),
    )
    if run.record is not None:
        years, total = counts(drift, range(run.parameters.from_year, run.parameters.to_year + 1))
        drifted = tuple(row.model_copy(update={"shown": plan.shown.get(row.key)}) for row in drifted)
        run.record.add(DRIFT, drift_csv(drift.assign(shown=[row.shown for row in drifted])))
        document = PlanDocument(run_id=run.run_id, fingerprint=plan.fingerprint, databases=where, rows=rows)
        run.record.write(PLAN, document)
        run.record.update(
            databases=readings.databases,
            notes=(*run.parameters.notes, *readings.notes, *plan.notes),
            kpis=tuple(_kpi_record(entry, readings.queries[entry.kpi_id]) for entry in run.kpis),
            years=years,
            total_kpi_rows=total,
            kpi_id_prefix=readings.prefix,
            rows=drifted,
            plan=PlanSummary(fingerprint=plan.fingerprint, rows=len(plan)),
            page=plan.page_record,
            review=tuple(candidate.review_row(proposed.shown(candidate.key)) for candidate in plan.candidates),
            decisions=plan.decided,
        )
    return plan


def _written(tables: AnnualTables, rows: Mapping[RowKey, PlanRow]) -> AnnualTables:
    """The tables once these rows are written."""
    return tables.changed((key, row.value, (row.period_year, row.period_month)) for key, row in rows.items())


def _kpi_record(entry: Kpi, queries: Iterable[Query]) -> KpiRecord:
    names = ("kpi_id", "label", "unit", "family", "risky", "description", "source_text")
    return KpiRecord(
        **{name: getattr(entry, name) for name in names},
        sources=tuple(entry.sources),
        cadences=tuple(entry.cadences),
        source_sha256=hashlib.sha256(entry.source_text.encode()).hexdigest(),
        queries=tuple(QueryRecord(**asdict(query)) for query in queries),
    )
