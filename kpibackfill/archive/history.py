"""Every value that a run ever wrote, as the ledger tells it: no database is asked, no other file is opened.

Only a run cut off between its commit and its last line makes an exception: what it wrote stands in its receipt alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpibackfill.archive import ledger
from kpibackfill.archive import runs as runs_on_record
from kpibackfill.archive.run_record import receipt_of
from kpibackfill.numbers import Unit, published, too_few

if TYPE_CHECKING:
    from kpibackfill.config import Config

Key = tuple[int, str]


def changes(runs_dir: Path, *, target: str | None = None) -> list[dict[str, Any]]:
    """A dict per value written, in the order of the ledger; of `target` alone where it is given.

    Each has `at` (ISO instant in UTC), `run_id`, `target`, `snapshot_id`, `kpi_id` (as stored, prefix included),
    `year`, `action` (``insert``, ``update`` or ``delete``), `before` and `after` (4-byte values; ``None`` without a
    row), `basis` and `basis_before` (what they rest on) and `unit` of the KPI where these are known, `origin` (where
    the value came from: computed, or a person's decision), `reverts` (the run whose rows were put back), `reviewer` and
    `decision_reason` (of the decision on that row; empty without one), `reason` and `operator` (of the run). A run
    counts when its state is ``applied``, or when it was settled as applied.
    """
    found = changes_of(ledger.entries(runs_dir), runs_dir)
    return [change for change in found if target in (None, change["target"])]


def select(
    config: Config,
    *,
    target: str | None = None,
    year: int | None = None,
    kpi: str | None = None,
    snapshot_id: int | None = None,
) -> list[dict[str, Any]]:
    """The `changes` of one target, year, KPI (its registry's id, or as stored) or snapshot, where these are given.

    Raises
    ------
    Refused : neither the configuration nor any run knows such a target.
    """
    runs_on_record.refuse_unknown_target(config, target)
    spelled = (kpi, f"{config.site.kpi_id_prefix}{kpi}")
    return [
        change
        for change in changes(config.runs_dir, target=target)
        if year in (None, change["year"])
        and (kpi is None or change["kpi_id"] in spelled)
        and snapshot_id in (None, change["snapshot_id"])
    ]


def changes_of(entries: Iterable[dict[str, Any]], runs_dir: Path) -> list[dict[str, Any]]:
    """The changes that these events of the ledger tell."""
    begun: dict[str, tuple[int, dict[str, Any]]] = {}
    ended: set[str] = set()
    parts: list[tuple[int, list[dict[str, Any]]]] = []
    for place, entry in enumerate(entries):
        run_id, event = entry["run_id"], entry["event"]
        if event == "begun":
            begun[run_id] = place, entry
        elif event == "closed" and run_id in begun and run_id not in ended:
            ended.add(run_id)
            if entry["state"] == "applied":
                parts.append((place, _told(entry["at"], begun[run_id][1], entry)))
        elif event == "settled" and run_id in begun and run_id not in ended:
            ended.add(run_id)
            if entry["outcome"] == "applied":
                # It wrote when it ran, not when that was found out.
                first, beginning = begun[run_id]
                parts.append((first, _told(beginning["at"], beginning, entry)))
    for run_id, (first, beginning) in begun.items():
        if run_id not in ended:
            receipt = receipt_of(runs_dir / run_id)
            if receipt.get("state") == "applied":
                closing = {
                    "changes": receipt.get("written", {}).get("rows", []),
                    "decisions": receipt.get("decisions", []),
                }
                parts.append((first, _told(beginning["at"], beginning, closing)))
    return _with_basis_before(change for _, part in sorted(parts, key=lambda found: found[0]) for change in part)


def last_recorded(runs_dir: Path, *targets: str) -> dict[Key, dict[str, Any]]:
    """What was last written to each row of a target, or of several that name one database.

    By (snapshot_id, stored kpi_id) the change of `changes`: its `after` is ``None`` for a deleted row.
    """
    return {
        (change["snapshot_id"], change["kpi_id"]): change for change in changes(runs_dir) if change["target"] in targets
    }


def shown(change: Mapping[str, Any]) -> tuple[str, str]:
    """The values before and after as people read them; what too few people stand behind is left out."""
    unit: Unit | None = change["unit"]
    # As beside a computed rate, what was stored before may come from the same few people.
    basis_before = change["basis"] if too_few(unit, change["basis"]) else change["basis_before"]
    return published(change["before"], unit, basis_before), published(change["after"], unit, change["basis"])


def origin_words(change: Mapping[str, Any]) -> str:
    """Where a value came from, other than from the sources, and who decided that and why; empty for those alone."""
    by = f" by {change['reviewer']}" if change["reviewer"] else ""
    why = f": {change['decision_reason']}" if change["decision_reason"] else ""
    decided = {"set": "set by hand", "remove": "removed by hand"}.get(change["origin"], "accepted" if by or why else "")
    back = f"put back, as before {change['reverts']}" if change["reverts"] else ""
    return "; ".join(filter(None, [back, f"{decided}{by}{why}"]))


def _told(at: str, begun: Mapping[str, Any], closing: Mapping[str, Any]) -> list[dict[str, Any]]:
    decided: dict[int, list[Mapping[str, Any]]] = {}
    for told in closing.get("decisions", []):
        decided.setdefault(told["snapshot_id"], []).append(told)
    found = []
    for row in closing["changes"]:
        # A decision names the registry's id. The row's is that with the site's prefix, which the ledger does not tell:
        # of two ids that the row's ends with, the longer one is meant.
        told = max(
            (told for told in decided.get(row["snapshot_id"], []) if row["kpi_id"].endswith(told["kpi_id"])),
            key=lambda told: len(told["kpi_id"]),
            default={},
        )
        found.append(
            {
                "at": at,
                "run_id": begun["run_id"],
                "target": begun["target"],
                "snapshot_id": row["snapshot_id"],
                "kpi_id": row["kpi_id"],
                "year": row["year"],
                "action": row["action"],
                # A value that JSON knows no number for, such as NaN, stands there as text.
                "before": None if row["before"] is None else float(row["before"]),
                "after": None if row["after"] is None else float(row["after"]),
                "basis": row.get("basis"),
                "unit": row.get("unit"),
                "origin": row.get("origin", "computed"),
                "reverts": begun.get("revert_of", ""),
                "reviewer": told.get("reviewer", ""),
                "decision_reason": told.get("reason", ""),
                "reason": begun["reason"],
                "operator": begun["operator"],
            }
        )
    return found


def _with_basis_before(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The changes with what the value before rested on, where a run wrote that value."""
    last: dict[tuple[str, int, str], dict[str, Any]] = {}
    told = []
    for change in found:
        key = (change["target"], change["snapshot_id"], change["kpi_id"])
        earlier = last.get(key)
        ours = earlier is not None and earlier["after"] == change["before"]
        last[key] = {**change, "basis_before": earlier["basis"] if ours and earlier else None}
        told.append(last[key])
    return told
