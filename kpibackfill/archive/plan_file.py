"""The fingerprint of a plan, and ``plan.json`` read and checked against it, without a database."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kpibackfill.archive import files
from kpibackfill.archive.models import Databases, PlanDocument, PlanRow, read
from kpibackfill.database.image import Image, bytes_of
from kpibackfill.errors import Refused

_COUNTED = ("snapshot_id", "kpi_id", "action", "period_year", "period_month", "basis", "population")


def fingerprint(databases: Databases, rows: Sequence[PlanRow]) -> str:
    """SHA-256 over the canonical JSON of the databases and the plan's rows.

    It covers a row's key, action, 4-byte value, period, basis, population and before-image, with the SHA-256 of
    ``meta`` in its place.
    """
    counted = [
        {
            **{name: getattr(row, name) for name in _COUNTED},
            "value_f4": files.number(row.value_f4),
            "before": None if row.before is None else _without_content(row.before),
        }
        for row in rows
    ]
    return hashlib.sha256(files.canonical({"databases": _plain(databases), "rows": counted})).hexdigest()


@cache
def _plain(databases: Databases) -> dict[str, Any]:
    return databases.as_json()


def _without_content(before: Image) -> dict[str, Any]:
    meta = bytes_of(before.meta) if isinstance(before.meta, str) else before.meta
    return {
        "metric_value": files.number(before.metric_value),
        "period_year": before.period_year,
        "period_month": before.period_month,
        "meta": None if meta is None else hashlib.sha256(meta).hexdigest(),
        "row_id": before.row_id,
    }


def read_plan(path: Path) -> PlanDocument:
    """Read a ``plan.json`` of the archive.

    Raises
    ------
    Refused : it is missing or can't be read, or its rows do not match its fingerprint.
    """
    try:
        document = read(PlanDocument, path.read_bytes())
    except (OSError, ValueError):
        raise Refused(f"{path} can't be read; nothing was written.", code="record") from None
    if fingerprint(document.databases, document.rows) != document.fingerprint:
        raise Refused(
            f"{path} was altered: its rows do not match its fingerprint; nothing was written.", code="altered"
        )
    return document
