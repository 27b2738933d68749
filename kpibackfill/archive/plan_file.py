"""The fingerprint of a plan, and ``plan.json`` held against it; read without a database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kpibackfill.archive import files
from kpibackfill.errors import Refused


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


def read_plan(path: Path) -> dict[str, Any]:
    """A ``plan.json`` of the archive.

    Raises
    ------
    Refused : it is missing, or its rows are not those of its fingerprint.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        own = fingerprint(document["databases"], document["rows"]) == document["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise Refused(f"{path} can't be read; nothing was written.", code="record") from None
    if not own:
        raise Refused(
            f"{path} was altered: its rows are not those of its fingerprint; nothing was written.", code="altered"
        )
    return document
