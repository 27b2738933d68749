"""This step lists exactly what would be written, from what, and gives the list a fingerprint."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from kpibackfill.compute import Readings
from kpibackfill.database.engine import identity
from kpibackfill.database.store import Image
from kpibackfill.drift import counts, records
from kpibackfill.errors import Refused
from kpibackfill.frames import seal_of
from kpibackfill.numbers import float4
from kpibackfill.record import files
from kpibackfill.record.receipt import DRIFT, PLAN
from kpibackfill.run import Run, step
from kpibackfill.spreadsheets import drift_csv

if TYPE_CHECKING:
    from kpibackfill.deciding import Proposal

Action = Literal["insert", "update", "delete"]
Origin = Literal["computed", "set", "remove", "revert"]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A row to write: its key as stored, the new value, what it rests on, and the full row as it is before.

    Where a person or a revert gives the value, ``basis`` and ``population`` are those of the value that it replaces.

    ``restore`` is a whole row to put back, where the plan reverts another run; ``origin`` is where the value comes
    from: the sources, a person who set it or removed the row, or the run that is reverted.
    """

    snapshot_id: int
    kpi_id: str
    action: Action
    value: float | None
    period_year: int | None
    period_month: int | None
    year: int
    basis: int | None = None
    population: int | None = None
    before: Image | None = None
    restore: Image | None = None
    origin: Origin = "computed"


@dataclass(frozen=True, repr=False)
class Plan:
    """The rows to write, ordered by key, and the fingerprint that stands for them and for the databases.

    ``proposals`` are the rows that a person may decide about, planned ones included; ``decided`` is what was decided.
    """

    rows: tuple[PlanRow, ...]
    databases: Mapping[str, Mapping[str, Any]]
    fingerprint: str
    run: Run
    proposals: tuple[Proposal, ...] = ()
    decided: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def frame(self) -> pd.DataFrame:
        """A row per planned row: `snapshot_id`, `kpi_id`, `action`, `year`, `before`, `after` (floats)."""
        return pd.DataFrame(
            [
                (row.snapshot_id, row.kpi_id, row.action, row.year, row.before and row.before.metric_value, row.value)
                for row in self.rows
            ],
            columns=["snapshot_id", "kpi_id", "action", "year", "before", "after"],
        ).astype({"before": "float64", "after": "float64"})

    def __repr__(self) -> str:
        from kpibackfill import views

        return views.plan_sentence(self)

    def _repr_html_(self) -> str:
        from kpibackfill import views

        return views.plan_html(self)


@step
def make_plan(run: Run, drift: pd.DataFrame) -> Plan:
    """The rows that an apply would write: the new and the changed ones, as limited or added to by decisions.

    In a revert they are the rows that the other run wrote, to be put back as they were before.

    Raises
    ------
    Refused : `drift` was edited since it was compared, or belongs to another run; or a decision doesn't fit.
    """
    from kpibackfill import deciding, revert

    seal = seal_of(drift)
    if seal.run is not run:
        raise Refused("This drift belongs to another run; nothing was written. Run the cells in order.", code="order")
    readings: Readings = seal.content
    if readings.reverted is None:
        proposed = deciding.proposed(run, readings, drift)
    else:
        proposed = revert.proposed(run, readings.reverted)
    chosen = deciding.choose(run, readings, proposed)
    notes = (*proposed.notes, *chosen.notes)
    plan = build_plan(run, chosen.rows, proposals=proposed.proposals, decided=chosen.decided, notes=notes)
    if run.record is not None:
        years, total = counts(drift, range(run.parameters.from_year, run.parameters.to_year + 1))
        run.record.add(DRIFT, drift_csv(drift))
        run.record.add(PLAN, files.readable(plan_document(plan)))
        run.record.update(
            databases=readings.databases,
            notes=[*run.parameters.notes, *readings.notes, *plan.notes],
            kpis=[
                {
                    **_kpi_words(entry),
                    "source_text": entry.source_text,
                    "source_sha256": hashlib.sha256(entry.source_text.encode()).hexdigest(),
                    "queries": [asdict(query) for query in readings.queries[entry.kpi_id]],
                }
                for entry in run.kpis
            ],
            years=years,
            total_kpi_rows=total,
            rows=records(drift),
            plan={"fingerprint": plan.fingerprint, "rows": len(plan)},
            review=[proposal.document() for proposal in plan.proposals],
            decisions=list(plan.decided),
        )
    return plan


def build_plan(run: Run, rows: Iterable[PlanRow], **more: Any) -> Plan:
    ordered = tuple(sorted(rows, key=lambda row: (row.snapshot_id, row.kpi_id)))
    where = databases(run)
    return Plan(ordered, where, fingerprint(where, [row_document(row) for row in ordered]), run, **more)


def databases(run: Run) -> dict[str, Mapping[str, Any]]:
    """What names store and sources in a fingerprint."""
    return {"store": identity(run.target.store_url), "sources": identity(run.target.sources_url)}


def fingerprint(databases: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over the canonical JSON of the databases and the plan's rows, as they stand in ``plan.json``.

    A row counts with its key, action, 4-byte value, period, basis, population and before-image, whose ``meta``
    counts as its own SHA-256.
    """
    stands_for = [
        {
            **{
                name: row[name]
                for name in (
                    "snapshot_id",
                    "kpi_id",
                    "action",
                    "value_f4",
                    "period_year",
                    "period_month",
                    "basis",
                    "population",
                )
            },
            "before": _without_content(row["before"]),
        }
        for row in rows
    ]
    return hashlib.sha256(files.canonical({"databases": databases, "rows": stands_for})).hexdigest()


def _without_content(before: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if before is None:
        return None
    return {**before, "meta": None if before["meta"] is None else before["meta"]["sha256"]}


def plan_document(plan: Plan) -> dict[str, Any]:
    """``plan.json``: every row with its whole before-image, ``meta`` in base64."""
    return {
        "schema": 1,
        "run_id": plan.run.run_id,
        "fingerprint": plan.fingerprint,
        "databases": plan.databases,
        "rows": [row_document(row) for row in plan.rows],
    }


def row_document(row: PlanRow) -> dict[str, Any]:
    return {
        "snapshot_id": row.snapshot_id,
        "kpi_id": row.kpi_id,
        "year": row.year,
        "action": row.action,
        "value": files.number(row.value),
        "value_f4": None if row.value is None else files.number(float4(row.value)),
        "period_year": row.period_year,
        "period_month": row.period_month,
        "basis": row.basis,
        "population": row.population,
        "before": image_document(row.before),
        "restore": image_document(row.restore),
        "origin": row.origin,
    }


def row_of(document: Mapping[str, Any]) -> PlanRow:
    """The row that `row_document` wrote."""
    names = ("snapshot_id", "kpi_id", "action", "period_year", "period_month", "year", "basis", "population", "origin")
    return PlanRow(
        **{name: document[name] for name in names},
        value=None if document["value"] is None else float(document["value"]),
        before=image_of(document["before"]),
        restore=image_of(document["restore"]),
    )


def image_document(image: Image | None) -> dict[str, Any] | None:
    if image is None:
        return None
    meta = image.meta
    raw = meta.encode("utf-8", "surrogateescape") if isinstance(meta, str) else meta
    return {
        "metric_value": files.number(image.metric_value),
        "period_year": image.period_year,
        "period_month": image.period_month,
        "meta": None
        if raw is None
        else {
            "type": "text" if isinstance(meta, str) else "blob",
            "base64": base64.b64encode(raw).decode(),
            "sha256": hashlib.sha256(raw).hexdigest(),
        },
        "row_id": image.row_id,
    }


def image_of(document: Mapping[str, Any] | None) -> Image | None:
    """The image that `image_document` wrote."""
    if document is None:
        return None
    kept = document["meta"]
    raw = None if kept is None else base64.b64decode(kept["base64"])
    meta = raw.decode("utf-8", "surrogateescape") if raw is not None and kept["type"] == "text" else raw
    return Image(
        float(document["metric_value"]), document["period_year"], document["period_month"], meta, document["row_id"]
    )


def read_plan(path: Any) -> dict[str, Any]:
    """A ``plan.json`` of the archive.

    Raises
    ------
    Refused : it is missing, or its rows are not those of its fingerprint.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise Refused(f"{path} can't be read; nothing was written.", code="record") from None
    if fingerprint(document["databases"], document["rows"]) != document["fingerprint"]:
        raise Refused(
            f"{path} was altered: its rows are not those of its fingerprint; nothing was written.", code="altered"
        )
    return document


def _kpi_words(entry: Any) -> dict[str, Any]:
    from kpibackfill.kpis.registry import as_dict

    return as_dict(entry)
