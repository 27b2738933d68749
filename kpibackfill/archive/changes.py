"""What the rows of a plan become when they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kpibackfill.archive.models import Change, DatabaseIdentity, Databases, PlanRow
from kpibackfill.config import Target
from kpibackfill.database import php_serialize
from kpibackfill.database.engine import identity
from kpibackfill.database.image import Image
from kpibackfill.numbers import Unit, float4

# What a change has from its planned row.
_SAME = ("snapshot_id", "kpi_id", "year", "action", "basis", "origin")


def after_image(row: PlanRow, run_id: str, plan_fingerprint: str) -> Image | None:
    """The row after the write; the database chooses the surrogate id of an inserted row."""
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
    """Whether the stored row matches the image; where the database chose the surrogate id, any id matches."""
    if found is None or image is None:
        return found is image
    return found.equals(image if image.row_id is not None else replace(image, row_id=found.row_id))


def changes(rows: Iterable[PlanRow], units: Mapping[str, Unit]) -> tuple[Change, ...]:
    """The planned rows as changes, for the receipt and the ledger, with what a reader needs to render their values."""
    return tuple(
        Change(
            **{name: getattr(row, name) for name in _SAME},
            before=None if row.before is None else float4(row.before.metric_value),
            after=None if row.value is None else float4(row.value),
            unit=units.get(row.kpi_id),
        )
        for row in rows
    )


def databases(target: Target) -> Databases:
    """What identifies the store and the sources in a fingerprint."""
    return Databases(
        store=DatabaseIdentity(**identity(target.store_url)), sources=DatabaseIdentity(**identity(target.sources_url))
    )
