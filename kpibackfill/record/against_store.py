"""The rows in a database held against the archive, by the run id and the plan that stand in their ``meta``.

Both directions: a row that claims a run must be known to that run, and what was recorded last must still be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kpibackfill import phpmeta
from kpibackfill.config import Target
from kpibackfill.database import store
from kpibackfill.database.engine import reading
from kpibackfill.numbers import same
from kpibackfill.record import archive, history
from kpibackfill.record.verify import Finding

Key = tuple[int, str]


def verify_target(runs_dir: Path, target: Target) -> list[Finding]:
    """Findings on the rows of a target's store, the recorded ones that are gone included.

    Raises
    ------
    KpiBackfillError : the database can't be reached or read.
    """
    stored, snapshots = _stored(target)
    changes = history.changes(runs_dir, target=target.name)
    fingerprints = {run["run_id"]: run["fingerprint"] for run in archive.runs(runs_dir)}
    findings = [*_claims(stored, changes, fingerprints), *_recorded(stored, snapshots, changes)]
    return [finding for _, finding in sorted(findings, key=lambda found: found[0])]


def _stored(target: Target) -> tuple[dict[Key, list[store.Image]], set[int]]:
    with reading(target.store_url) as connection:
        found: dict[Key, list[store.Image]] = {}
        for row in connection.execute(store.rows_select(store.layout(connection))):
            found.setdefault((row.snapshot_id, row.kpi_id), []).append(store.image(row))
        return found, {snapshot_id for snapshot_id, _ in found}


def _claims(
    stored: dict[Key, list[store.Image]], changes: list[dict[str, Any]], fingerprints: dict[str, str | None]
) -> Iterator[tuple[Key, Finding]]:
    """Rows that claim a run which does not know them, or not so."""
    written = {(change["run_id"], change["snapshot_id"], change["kpi_id"]): change for change in changes}
    for key, images in stored.items():
        for image in images:
            claim = phpmeta.loads(image.meta) or {}
            if claim.get("source") != "kpibackfill":
                continue
            run_id = str(claim.get("run_id"))
            change = written.get((run_id, *key))
            if run_id not in fingerprints:
                problem = f"claims the run {run_id}, which is not in this archive"
            elif change is None or change["after"] is None:
                problem = f"claims the run {run_id}, which wrote no such row"
            elif claim.get("plan") != fingerprints[run_id]:
                problem = f"claims another plan than that of {run_id}"
            elif not same(image.metric_value, change["after"]):
                problem = f"holds another value than {run_id} wrote, which it claims"
            elif len(images) > 1:
                problem = f"is there {len(images)} times"
            else:
                continue
            yield key, _finding(key, problem)


def _recorded(
    stored: dict[Key, list[store.Image]], snapshots: set[int], changes: list[dict[str, Any]]
) -> Iterator[tuple[Key, Finding]]:
    """Rows that are not what was recorded of them last."""
    last = {(change["snapshot_id"], change["kpi_id"]): change for change in changes}
    for key, change in last.items():
        images = stored.get(key, [])
        run_id = change["run_id"]
        claims = [phpmeta.loads(image.meta) or {} for image in images]
        if change["after"] is None:
            if images:
                yield key, _finding(key, f"was deleted by {run_id} and is there again")
        elif not images:
            gone = "" if key[0] in snapshots else ", and its snapshot has no row any more"
            yield key, _finding(key, f"was written by {run_id} and is gone{gone}")
        elif not any(same(image.metric_value, change["after"]) for image in images):
            # A row that still claims the run is told already.
            if not any(claim.get("run_id") == run_id for claim in claims):
                yield key, _finding(key, f"holds another value than {run_id} wrote last")
        elif not change["reverts"] and not any(claim.get("run_id") == run_id for claim in claims):
            yield key, _finding(key, f"does not name {run_id} any more, which wrote it last")


def _finding(key: Key, problem: str) -> Finding:
    return Finding(f"snapshot {key[0]}, {key[1]}", problem)
