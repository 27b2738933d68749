"""The fingerprint of a plan, and ``plan.json`` held against it; read without a database."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpibackfill.archive import files
from kpibackfill.archive.models import Databases, ImageDocument, PlanDocument, PlanRow, read
from kpibackfill.database.image import Image
from kpibackfill.errors import Refused

_COUNTS = {"snapshot_id", "kpi_id", "action", "value_f4", "period_year", "period_month", "basis", "population"}


def fingerprint(databases: Databases, rows: Sequence[PlanRow]) -> str:
    """SHA-256 over the canonical JSON of the databases and the plan's rows.

    A row counts with its key, action, 4-byte value, period, basis, population and before-image, whose ``meta``
    counts as its own SHA-256.
    """
    counted = [row.model_dump(mode="json", include=_COUNTS) | {"before": _without_content(row.before)} for row in rows]
    return hashlib.sha256(files.canonical({"databases": databases.as_json(), "rows": counted})).hexdigest()


def _without_content(before: Image | None) -> dict[str, Any] | None:
    if before is None:
        return None
    document = ImageDocument.of(before)
    return document.as_json() | {"meta": document.meta and document.meta.sha256}


def read_plan(path: Path) -> PlanDocument:
    """A ``plan.json`` of the archive.

    Raises
    ------
    Refused : it is missing, or its rows are not those of its fingerprint.
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
