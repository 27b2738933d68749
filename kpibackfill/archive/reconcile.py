"""The rows in a database held against the archive, by the run id and the plan that stand in their ``meta``.

Both directions: a row that claims a run must be known to that run, and what was recorded last must still be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpibackfill.archive import history
from kpibackfill.archive import runs as runs_on_record
from kpibackfill.archive.changes import after_image, is_image, row_of
from kpibackfill.archive.plan_file import read_plan
from kpibackfill.archive.run_record import PLAN
from kpibackfill.archive.verdict import Finding
from kpibackfill.config import Target
from kpibackfill.database import fact_table, php_serialize
from kpibackfill.database.engine import identity, reading
from kpibackfill.errors import KpiBackfillError
from kpibackfill.numbers import same

Key = tuple[int, str]
# What an image has besides its value, which is compared as a 4-byte number before.
_PARTS = ("period_year", "period_month", "meta", "row_id")


@dataclass(frozen=True, slots=True)
class Compared:
    """What `verify_target` compared: numbers of the table's rows and of the rows on record; and its findings."""

    rows: int
    recorded: int
    findings: tuple[Finding, ...]


def verify_target(runs_dir: Path, target: Target) -> Compared:
    """Hold the rows of a target's store against what was recorded of them last, to the byte, and look for false claims.

    Raises
    ------
    KpiBackfillError : the database can't be reached or read.
    """
    stored, snapshots = _stored(target)
    changes = _changes(runs_dir, target)
    fingerprints = {run["run_id"]: run["fingerprint"] for run in runs_on_record.runs(runs_dir)}
    last = {(change["snapshot_id"], change["kpi_id"]): change for change in changes}
    claims = dict(_claims(stored, changes, fingerprints))
    left = _left(runs_dir, {change["run_id"] for change in last.values()})
    findings = [*claims.items(), *_recorded(stored, snapshots, last, left, claims.keys())]
    found = tuple(finding for _, finding in sorted(findings, key=lambda found: str(found[0])))
    return Compared(sum(map(len, stored.values())), len(last), found)


def _changes(runs_dir: Path, target: Target) -> list[dict[str, Any]]:
    """What was written to the target, or by another name to the same database."""
    found = history.changes(runs_dir)
    here = identity(target.store_url)
    others = {change["run_id"] for change in found if change["target"] != target.name}
    same_place = {run_id for run_id in others if _place(runs_dir, run_id) == here}
    return [change for change in found if change["target"] == target.name or change["run_id"] in same_place]


def _place(runs_dir: Path, run_id: str) -> Any:
    with suppress(KpiBackfillError, LookupError, TypeError):
        return read_plan(runs_dir / run_id / PLAN)["databases"]["store"]
    return None


def _stored(target: Target) -> tuple[dict[Key, list[fact_table.Image]], set[int]]:
    with reading(target.store_url) as connection:
        found: dict[Key, list[fact_table.Image]] = {}
        for row in connection.execute(fact_table.rows_select(fact_table.layout(connection))):
            found.setdefault((row.snapshot_id, row.kpi_id), []).append(fact_table.image(row))
        return found, {snapshot_id for snapshot_id, _ in found}


def _claims(
    stored: dict[Key, list[fact_table.Image]], changes: list[dict[str, Any]], fingerprints: dict[str, str | None]
) -> Iterator[tuple[Key, Finding]]:
    """Rows that claim a run which does not know them, or not so."""
    written = {(change["run_id"], change["snapshot_id"], change["kpi_id"]): change for change in changes}
    for key, images in stored.items():
        for image in images:
            claim = php_serialize.loads(image.meta) or {}
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


def _left(runs_dir: Path, run_ids: Iterable[str]) -> dict[tuple[str, Key], fact_table.Image | None]:
    """The image that each run left of each row; none of a run whose plan can't be read, which `verify` tells."""
    found: dict[tuple[str, Key], fact_table.Image | None] = {}
    for run_id in run_ids:
        with suppress(KpiBackfillError, LookupError, TypeError, ValueError, AssertionError):
            document = read_plan(runs_dir / run_id / PLAN)
            for row in map(row_of, document["rows"]):
                found[run_id, (row.snapshot_id, row.kpi_id)] = after_image(row, run_id, document["fingerprint"])
    return found


def _recorded(
    stored: dict[Key, list[fact_table.Image]],
    snapshots: set[int],
    last: dict[Key, dict[str, Any]],
    left: dict[tuple[str, Key], fact_table.Image | None],
    told: Set[Key],
) -> Iterator[tuple[Key, Finding]]:
    """Rows that are not what was recorded of them last; of `told` it is known already that they are not."""
    for key, change in last.items():
        images, run_id = stored.get(key, []), change["run_id"]
        named = any((php_serialize.loads(image.meta) or {}).get("run_id") == run_id for image in images)
        problem = ""
        if change["after"] is None:
            problem = f"was deleted by {run_id} and is there again" if images else ""
        elif not images:
            gone = "" if key[0] in snapshots else ", and its snapshot has no row any more"
            problem = f"was written by {run_id} and is gone{gone}"
        elif not any(same(image.metric_value, change["after"]) for image in images):
            # A row that still claims the run is told already.
            problem = "" if named else f"holds another value than {run_id} wrote last"
        elif not change["reverts"] and not named:
            problem = f"does not name {run_id} any more, which wrote it last"
        elif key not in told:
            problem = _unlike(images, left.get((run_id, key)), run_id)
        if problem:
            yield key, _finding(key, problem)


def _unlike(images: list[fact_table.Image], image: fact_table.Image | None, run_id: str) -> str:
    """In what a row with the value and the name of its run differs from what that left; empty for nothing."""
    if len(images) > 1:
        return f"is there {len(images)} times"
    if image is None or is_image(images[0], image):
        return ""
    parts = [name for name in _PARTS if getattr(images[0], name) != getattr(image, name)]
    if image.row_id is None and "row_id" in parts:
        parts.remove("row_id")  # the database chose it
    return f"is not as {run_id} left it: {', '.join(parts)}"


def _finding(key: Key, problem: str) -> Finding:
    return Finding(f"snapshot {key[0]}, {key[1]}", problem)
