"""Compares the rows in a database with the archive, by the run id and the plan in their ``meta``.

In both directions: a row that names a run must be known to that run, and what was last recorded must still be there.
And the dashboard's page must come to show the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sqlalchemy.engine import Connection

from kpibackfill.archive.changes import after_image, is_image
from kpibackfill.archive.history import RecordedChange, changes
from kpibackfill.archive.models import DatabaseIdentity
from kpibackfill.archive.page import behind
from kpibackfill.archive.plan_file import read_plan
from kpibackfill.archive.run_record import PLAN
from kpibackfill.archive.runs import list_runs
from kpibackfill.archive.verify import IntegrityFinding, Verdict, verify
from kpibackfill.config import Config, Target
from kpibackfill.database import fact_table, php_serialize
from kpibackfill.database.engine import identity, reading
from kpibackfill.database.image import Image, RowKey
from kpibackfill.errors import KpiBackfillError
from kpibackfill.kpis import registry
from kpibackfill.numbers import same
from kpibackfill.page.reading import read_page

# The parts of an image other than its value, which is compared first, as a 4-byte number.
_PARTS = ("period_year", "period_month", "meta", "row_id")


def reconcile(config: Config, target: str, head: str = "") -> Verdict:
    """Verify the archive, and compare a target's rows, byte for byte, with what was last recorded, and with the page.

    Raises
    ------
    KpiBackfillError : there is no such target, or its database can't be reached or read.
    """
    wanted = config.target(target)
    verdict = verify(config.runs_dir, head)
    recorded = _changes(config.runs_dir, wanted)
    last = {change.key: change for change in recorded}
    now, known = datetime.now(wanted.zone), {*registry.load(config.site.kpi_modules), *config.site.manual_kpis}
    with reading(wanted.store_url, config.site) as connection:
        stored, snapshots = _stored(connection)
        tables = read_page(connection, config.site, now, known, stored_ids={stored_id for _, stored_id in last})
    fingerprints = {run.run_id: run.fingerprint for run in list_runs(config.runs_dir)}
    claims = dict(_claims(stored, recorded, fingerprints))
    left = _left(config.runs_dir, {change.run_id for change in last.values()})
    found = [*claims.items(), *_recorded(stored, snapshots, last, left, claims.keys())]
    ordered = [
        IntegrityFinding(f"snapshot {key[0]}, {key[1]}", problem)
        for key, problem in sorted(found, key=lambda pair: str(pair[0]))
    ]
    page = list(behind(tables, known, last, now))
    return replace(
        verdict,
        findings=(*verdict.findings, *ordered, *(finding for finding, is_note in page if not is_note)),
        notes=(*verdict.notes, *(finding for finding, is_note in page if is_note)),
        target=target,
        rows=sum(map(len, stored.values())),
        recorded=len(last),
    )


def _changes(runs_dir: Path, target: Target) -> list[RecordedChange]:
    """What was written to the target, or to the same database under another name."""
    found = changes(runs_dir)
    here = DatabaseIdentity(**identity(target.store_url))
    others = {change.run_id for change in found if change.target != target.name}
    same_place = {run_id for run_id in others if _place(runs_dir, run_id) == here}
    return [change for change in found if change.target == target.name or change.run_id in same_place]


def _place(runs_dir: Path, run_id: str) -> DatabaseIdentity | None:
    with suppress(KpiBackfillError):
        return read_plan(runs_dir / run_id / PLAN).databases.store
    return None


def _stored(connection: Connection) -> tuple[dict[RowKey, list[Image]], set[int]]:
    found: dict[RowKey, list[Image]] = {}
    for row in connection.execute(fact_table.rows_select(fact_table.layout(connection))):
        found.setdefault((row.snapshot_id, row.kpi_id), []).append(fact_table.image(row))
    return found, {snapshot_id for snapshot_id, _ in found}


def _claims(
    stored: dict[RowKey, list[Image]], recorded: list[RecordedChange], fingerprints: dict[str, str | None]
) -> Iterator[tuple[RowKey, str]]:
    """Problems of rows that name a run which did not write them, or wrote them differently."""
    written = {(change.run_id, change.key): change for change in recorded}
    for key, images in stored.items():
        for image in images:
            claim = php_serialize.loads(image.meta) or {}
            if claim.get("source") != "kpibackfill":
                continue
            run_id = str(claim.get("run_id"))
            change = written.get((run_id, key))
            if run_id not in fingerprints:
                problem = f"names the run {run_id}, which is not in this archive"
            elif change is None or change.after is None:
                problem = f"names the run {run_id}, which wrote no such row"
            elif claim.get("plan") != fingerprints[run_id]:
                problem = f"names a plan other than that of {run_id}"
            elif not same(image.metric_value, change.after):
                problem = f"names {run_id}, which wrote a different value"
            elif len(images) > 1:
                problem = f"exists {len(images)} times"
            else:
                continue
            yield key, problem


def _left(runs_dir: Path, run_ids: Iterable[str]) -> dict[tuple[str, RowKey], Image | None]:
    """The image that each run left of each row, except for a plan that can't be read, which `verify` reports."""
    found: dict[tuple[str, RowKey], Image | None] = {}
    for run_id in run_ids:
        with suppress(KpiBackfillError, AssertionError):
            document = read_plan(runs_dir / run_id / PLAN)
            for row in document.rows:
                found[run_id, row.key] = after_image(row, run_id, document.fingerprint)
    return found


def _recorded(
    stored: dict[RowKey, list[Image]],
    snapshots: set[int],
    last: dict[RowKey, RecordedChange],
    left: dict[tuple[str, RowKey], Image | None],
    known: Set[RowKey],
) -> Iterator[tuple[RowKey, str]]:
    """Problems of rows that differ from what was last recorded of them; those in `known` have one already."""
    for key, change in last.items():
        images, run_id = stored.get(key, []), change.run_id
        named = any((php_serialize.loads(image.meta) or {}).get("run_id") == run_id for image in images)
        problem = ""
        if change.after is None:
            problem = f"was deleted by {run_id} and exists again" if images else ""
        elif not images:
            gone = "" if key[0] in snapshots else ", and its snapshot has no rows left"
            problem = f"was written by {run_id} and is gone{gone}"
        elif not any(same(image.metric_value, change.after) for image in images):
            # A row that still names the run has a finding already.
            problem = "" if named else f"differs from the value that {run_id} wrote last"
        elif not change.reverts and not named:
            problem = f"no longer names {run_id}, which wrote it last"
        elif key not in known:
            problem = _unlike(images, left.get((run_id, key)), run_id)
        if problem:
            yield key, problem


def _unlike(images: list[Image], image: Image | None, run_id: str) -> str:
    """How a row with the value and the name of its run differs from what the run left; empty if it does not."""
    if len(images) > 1:
        return f"exists {len(images)} times"
    if image is None or is_image(images[0], image):
        return ""
    parts = [name for name in _PARTS if getattr(images[0], name) != getattr(image, name)]
    if image.row_id is None and "row_id" in parts:
        parts.remove("row_id")  # the database chose it
    return f"differs from what {run_id} left: {', '.join(parts)}"
