"""Every value that a run ever wrote, as the ledger tells it: no database is asked, no other file is opened.

Only a run cut off between its commit and its last line makes an exception: what it wrote stands in its receipt alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kpibackfill.record import ledger

Key = tuple[int, str]


def changes(runs_dir: Path, *, target: str | None = None) -> list[dict[str, Any]]:
    """A dict per value written, in the order of the ledger; of `target` alone where it is given.

    Each has `at` (ISO instant in UTC), `run_id`, `target`, `snapshot_id`, `kpi_id` (as stored, prefix included),
    `year`, `action` (``insert``, ``update`` or ``delete``), `before` and `after` (4-byte values; ``None`` without a
    row), `reason`, `operator`. A run counts when its state is ``applied``, or when it was settled as applied.
    """
    begun: dict[str, dict[str, Any]] = {}
    ended: set[str] = set()
    found: list[dict[str, Any]] = []
    for entry in ledger.entries(runs_dir):
        run_id, event = entry["run_id"], entry["event"]
        if event == "begun":
            begun[run_id] = entry
        elif event in ("closed", "settled") and run_id not in ended:
            ended.add(run_id)
            if entry.get("state" if event == "closed" else "outcome") == "applied":
                found += _told(entry["at"], run_id, begun.get(run_id, {}), entry.get("changes") or [])
    for run_id in begun.keys() - ended:
        receipt = _receipt(runs_dir / run_id)
        if receipt.get("state") == "applied":
            written = receipt.get("written", {}).get("rows", [])
            found += _told(begun[run_id]["at"], run_id, begun[run_id], written)
    return [change for change in found if target in (None, change["target"])]


def last_recorded(runs_dir: Path, target_name: str) -> dict[Key, dict[str, Any]]:
    """What was last written to each row of a target: by (snapshot_id, stored kpi_id) the change of `changes`.

    Each has `run_id`, `value` (4-byte float; ``None`` for a deleted row), `action`, `at`, and the rest of `changes`.
    """
    return {
        (change["snapshot_id"], change["kpi_id"]): {**change, "value": change["after"]}
        for change in changes(runs_dir, target=target_name)
    }


def _told(at: str, run_id: str, begun: Mapping[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "at": at,
            "run_id": run_id,
            "target": begun.get("target"),
            "snapshot_id": row["snapshot_id"],
            "kpi_id": row["kpi_id"],
            "year": row["year"],
            "action": row["action"],
            # A value that JSON knows no number for, such as NaN, stands there as text.
            "before": None if row["before"] is None else float(row["before"]),
            "after": None if row["after"] is None else float(row["after"]),
            "reason": begun.get("reason", ""),
            "operator": begun.get("operator", ""),
        }
        for row in rows
    ]


def _receipt(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads((folder / "receipt.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
