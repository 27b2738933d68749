"""The rows that a plan writes: what each is before and after, and how ``plan.json`` keeps it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kpibackfill.archive import files
from kpibackfill.config import Target
from kpibackfill.database import fact_table, php_serialize
from kpibackfill.database.engine import identity
from kpibackfill.database.fact_table import Image
from kpibackfill.numbers import float4

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


def after_image(row: PlanRow, run_id: str, plan_fingerprint: str) -> Image | None:
    """The row as it is after the write; the surrogate id of an inserted row is the database's own."""
    if row.action == "delete":
        return None
    if row.restore is not None:
        return row.restore
    assert row.value is not None
    meta: dict[str, php_serialize.Scalar] = {
        "source": "kpibackfill",
        "computed_for_year": row.year,
        "run_id": run_id,
        "plan": plan_fingerprint,
        "previous_value": None if row.before is None else row.before.metric_value,
    }
    row_id = row.before.row_id if row.before else None
    return Image(row.value, row.period_year, row.period_month, php_serialize.dumps(meta), row_id)


def is_image(found: Image | None, image: Image | None) -> bool:
    """Whether what is stored is that image; a surrogate id that the database chose may be any."""
    if found is None or image is None:
        return found is image
    return found.equals(image if image.row_id is not None else replace(image, row_id=found.row_id))


def changes(rows: Sequence[PlanRow], units: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the rows become, for the receipt and the ledger, with what a reader needs to render the values."""
    return [
        {
            "snapshot_id": row.snapshot_id,
            "kpi_id": row.kpi_id,
            "year": row.year,
            "action": row.action,
            "before": None if row.before is None else files.number(float4(row.before.metric_value)),
            "after": None if row.value is None else files.number(float4(row.value)),
            "basis": row.basis,
            "unit": units.get(row.kpi_id),
            "origin": row.origin,
        }
        for row in rows
    ]


def databases(target: Target) -> dict[str, Mapping[str, Any]]:
    """What names store and sources in a fingerprint."""
    return {"store": identity(target.store_url), "sources": identity(target.sources_url)}


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
    raw = fact_table.bytes_of(meta) if isinstance(meta, str) else meta
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
    meta = fact_table.text_of(raw) if raw is not None and kept["type"] == "text" else raw
    return Image(
        float(document["metric_value"]), document["period_year"], document["period_month"], meta, document["row_id"]
    )
