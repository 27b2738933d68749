"""What a run proposes to write, row by row: what differs, or in a revert what the other run wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kpibackfill.archive.changes import databases, is_image
from kpibackfill.archive.models import Databases, DriftRow, PlanRow, ReviewRow
from kpibackfill.archive.plan_file import fingerprint
from kpibackfill.compute import Readings
from kpibackfill.database.image import Image, RowKey
from kpibackfill.page.annual_tables import Shown
from kpibackfill.revert import Reverted
from kpibackfill.run import Run, kept_by_hand
from kpibackfill.text import count, some


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row to decide about, under the registry's KPI id.

    `row` is what accepting it would write or, if it is unsupported, what removing it would. `planned` rows are written
    if there is no decisions file. `numbers` is a short digest of the numbers that a decision is based on.
    """

    row: PlanRow
    kpi_id: str
    status: str
    snapshot_date: str
    planned: bool
    numbers: str
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> RowKey:
        return self.row.snapshot_id, self.kpi_id

    def review_row(self, shown: Shown | None) -> ReviewRow:
        """The row for a person to decide about, and what becomes of it on the page."""
        return ReviewRow(
            snapshot_id=self.row.snapshot_id,
            kpi_id=self.kpi_id,
            year=self.row.year,
            snapshot_date=self.snapshot_date,
            status=self.status,
            stored=None if self.row.before is None else self.row.before.metric_value,
            computed=self.row.value,
            basis=self.row.basis,
            population=self.row.population,
            warnings=self.warnings,
            numbers=self.numbers,
            shown=shown,
        )


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a run proposes; nothing needs writing at the `settled` keys, where stored and wanted values agree."""

    candidates: tuple[Candidate, ...]
    settled: frozenset[RowKey]
    notes: tuple[str, ...] = ()


def numbers_of(where: Databases, row: PlanRow) -> str:
    """A short digest of a row's numbers; it begins with a letter, so that no spreadsheet takes it for a number.

    `where` names the databases, as in the fingerprint of a plan.
    """
    return "n" + fingerprint(where, [row])[:15]


def row_to_write(
    key: RowKey,
    year: int,
    value: float | None,
    before: Image | None,
    *,
    period: tuple[int | None, int | None] = (None, None),
    **more: Any,
) -> PlanRow:
    """The row that writes a value under a stored key, or that deletes what is stored there."""
    return PlanRow(
        snapshot_id=key[0],
        kpi_id=key[1],
        year=year,
        action="delete" if value is None else "insert" if before is None else "update",
        value=value,
        period_year=period[0],
        period_month=period[1],
        before=before,
        **more,
    )


def of_drift(run: Run, readings: Readings, drift: Sequence[DriftRow]) -> Candidates:
    """The new and changed rows, and those unsupported or kept by hand, which only a decision touches."""
    prefix, where = readings.prefix, databases(run.target)
    found = []
    for drifted in drift:
        if drifted.status in ("unchanged", "no_data"):
            continue
        before = readings.stored.get(drifted.key)
        supported = drifted.status != "unsupported"
        row = row_to_write(
            (drifted.snapshot_id, prefix + drifted.kpi_id),
            drifted.year,
            drifted.computed,
            before,
            period=(drifted.period_year, drifted.period_month) if supported else (None, None),
            basis=drifted.basis,
            population=drifted.population,
            origin="computed" if supported else "remove",
        )
        numbers, dated = numbers_of(where, row), drifted.snapshot_date
        found.append(Candidate(row, drifted.kpi_id, drifted.status, dated, supported, numbers, drifted.warnings))
    unchanged = frozenset(drifted.key for drifted in drift if drifted.status == "unchanged")
    return Candidates((*found, *_kept_by_hand(run, readings)), unchanged)


def _kept_by_hand(run: Run, readings: Readings) -> Iterator[Candidate]:
    """The stored rows that nothing is computed for: unsupported, and for a decision to remove or set."""
    where, kpi_ids = databases(run.target), kept_by_hand(run.config)
    for snapshot in readings.snapshots.to_dict("records"):
        for kpi_id in kpi_ids:
            before = readings.stored.get((snapshot["snapshot_id"], kpi_id))
            if before is None:
                continue
            key = snapshot["snapshot_id"], readings.prefix + kpi_id
            row = row_to_write(key, snapshot["year"], None, before, origin="remove")
            numbers, dated = numbers_of(where, row), snapshot["snapshot_date"]
            yield Candidate(row, kpi_id, "unsupported", dated, False, numbers, ("Kept by hand.",))


def of_revert(run: Run, prefix: str, reverted: Reverted) -> Candidates:
    """The rows to restore; those that someone changed since are left alone unless a decision names them."""
    where = databases(run.target)
    proposed: list[Candidate] = []
    settled: set[RowKey] = set()
    gone, changed = [], []
    for row, left in reverted.written:
        key = row.key
        found = reverted.current.get(key)
        if is_image(found, row.before):
            settled.add((row.snapshot_id, row.kpi_id.removeprefix(prefix)))
        elif row.snapshot_id not in reverted.snapshots:
            gone.append(key)
        else:
            untouched = is_image(found, left)
            if not untouched:
                changed.append(key)
            proposed.append(_candidate(prefix, where, row, found, untouched))
    notes = []
    if changed:
        notes.append(
            f"Changed by someone since {run.parameters.revert_of}, so left alone: {_named(changed)}. "
            "The decision “accept” restores such a row anyway."
        )
    if gone:
        notes.append(f"Left alone because their snapshot is gone: {_named(gone)}.")
    if settled:
        notes.append(f"Already as before that run: {count(len(settled), 'row')}.")
    return Candidates(tuple(proposed), frozenset(settled), tuple(notes))


def _candidate(prefix: str, where: Databases, row: PlanRow, found: Image | None, untouched: bool) -> Candidate:
    restore = row.before
    if restore is not None and found is not None:
        restore = replace(restore, row_id=found.row_id)  # an existing row keeps its own surrogate id
    value = None if restore is None else restore.metric_value
    period = (None, None) if restore is None else (restore.period_year, restore.period_month)
    kept = {"basis": row.basis, "population": row.population}
    back = row_to_write(row.key, row.year, value, found, period=period, restore=restore, origin="revert", **kept)
    kpi_id = row.kpi_id.removeprefix(prefix)
    status = "put back" if untouched else "changed since"
    return Candidate(back, kpi_id, status, "", untouched, numbers_of(where, back))


def _named(keys: Iterable[RowKey]) -> str:
    return some((f"({snapshot_id}, {kpi_id})" for snapshot_id, kpi_id in keys), 20)
