"""What a run proposes to write, row by row: what differs, or in a revert what the other run wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from kpibackfill.archive.changes import PlanRow, databases, is_image, row_document
from kpibackfill.archive.plan_file import fingerprint
from kpibackfill.compute import Readings
from kpibackfill.database.fact_table import Image
from kpibackfill.drift import records
from kpibackfill.revert import Reverted
from kpibackfill.run import Run, kept_by_hand
from kpibackfill.text import some

Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A row to decide about, under the registry's KPI id.

    `row` is what an acceptance would write; of an unsupported row, what a removal would. `planned` rows are written
    where there is no decisions file. `numbers` stands for the numbers that a decision rests on.
    """

    row: PlanRow
    kpi_id: str
    status: str
    snapshot_date: str
    planned: bool
    numbers: str
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return self.row.snapshot_id, self.kpi_id

    def document(self) -> dict[str, Any]:
        """The row for a person to decide about, as plain JSON values."""
        document = row_document(self.row)
        return {
            "snapshot_id": self.row.snapshot_id,
            "kpi_id": self.kpi_id,
            "year": self.row.year,
            "snapshot_date": self.snapshot_date,
            "status": self.status,
            "stored": document["before"] and document["before"]["metric_value"],
            "computed": document["value"],
            "basis": self.row.basis,
            "population": self.row.population,
            "warnings": list(self.warnings),
            "numbers": self.numbers,
        }


@dataclass(frozen=True, slots=True)
class Proposed:
    """What a run proposes; `settled` are keys at which there is nothing to write, as stored and wanted agree."""

    proposals: tuple[Proposal, ...]
    settled: frozenset[Key]
    notes: tuple[str, ...] = ()


def numbers_of(where: Mapping[str, Any], row: PlanRow) -> str:
    """A short text that stands for the numbers of a row; it begins with a letter, so that no spreadsheet counts it.

    `where` names the databases, as in the fingerprint of a plan.
    """
    return "n" + fingerprint(where, [row_document(row)])[:15]


def of_drift(run: Run, readings: Readings, drift: pd.DataFrame) -> Proposed:
    """The new and the changed rows, and what is unsupported or kept by hand, which only a decision touches."""
    prefix, where = run.site.kpi_id_prefix, databases(run.target)
    found = []
    for told in records(drift[drift["status"].isin(["new", "changed", "unsupported"])]):
        before = readings.stored.get((told["snapshot_id"], told["kpi_id"]))
        supported = told["status"] != "unsupported"
        row = PlanRow(
            snapshot_id=told["snapshot_id"],
            kpi_id=prefix + told["kpi_id"],
            action="delete" if not supported else "insert" if before is None else "update",
            value=told["computed"],
            period_year=told["period_year"] if supported else None,
            period_month=told["period_month"] if supported else None,
            year=told["year"],
            basis=told["basis"],
            population=told["population"],
            before=before,
            origin="computed" if supported else "remove",
        )
        found.append(
            Proposal(
                row,
                told["kpi_id"],
                told["status"],
                told["snapshot_date"],
                supported,
                numbers_of(where, row),
                tuple(told["warnings"]),
            )
        )
    unchanged = drift[drift["status"] == "unchanged"]
    return Proposed(
        (*found, *_kept_by_hand(run, readings)),
        frozenset(zip(unchanged["snapshot_id"].tolist(), unchanged["kpi_id"].tolist(), strict=True)),
    )


def _kept_by_hand(run: Run, readings: Readings) -> Iterator[Proposal]:
    """The stored rows that nothing is computed for: unsupported, and for a decision to remove or to set anew."""
    where, kpi_ids = databases(run.target), kept_by_hand(run.config)
    for snapshot in readings.snapshots.to_dict("records"):
        for kpi_id in kpi_ids:
            before = readings.stored.get((snapshot["snapshot_id"], kpi_id))
            if before is None:
                continue
            row = PlanRow(
                snapshot_id=snapshot["snapshot_id"],
                kpi_id=run.site.kpi_id_prefix + kpi_id,
                action="delete",
                value=None,
                period_year=None,
                period_month=None,
                year=snapshot["year"],
                basis=None,
                population=None,
                before=before,
                origin="remove",
            )
            remark = ("Kept by hand.",)
            yield Proposal(row, kpi_id, "unsupported", snapshot["snapshot_date"], False, numbers_of(where, row), remark)


def of_revert(run: Run, reverted: Reverted) -> Proposed:
    """The rows to put back; those that somebody changed since are left alone unless a decision names them."""
    where = databases(run.target)
    proposals: list[Proposal] = []
    settled: set[Key] = set()
    gone, changed = [], []
    for row, left in reverted.written:
        key = (row.snapshot_id, row.kpi_id)
        found = reverted.current.get(key)
        if is_image(found, row.before):
            settled.add((row.snapshot_id, row.kpi_id.removeprefix(run.site.kpi_id_prefix)))
        elif row.snapshot_id not in reverted.snapshots:
            gone.append(key)
        else:
            untouched = is_image(found, left)
            if not untouched:
                changed.append(key)
            proposals.append(_proposal(run, where, row, found, untouched))
    notes = []
    if changed:
        notes.append(
            f"Changed by somebody since {run.parameters.revert_of}, so left alone: {_named(changed)}. "
            "A decision “accept” puts a row back all the same."
        )
    if gone:
        notes.append(f"Left alone, since their snapshot is gone: {_named(gone)}.")
    if settled:
        notes.append(f"{len(settled)} row{'s are' if len(settled) > 1 else ' is'} as before that run already.")
    return Proposed(tuple(proposals), frozenset(settled), tuple(notes))


def _proposal(run: Run, where: Mapping[str, Any], row: PlanRow, found: Image | None, untouched: bool) -> Proposal:
    restore = row.before
    if restore is not None and found is not None:
        restore = replace(restore, row_id=found.row_id)  # a row that is there keeps its own surrogate id
    back = PlanRow(
        snapshot_id=row.snapshot_id,
        kpi_id=row.kpi_id,
        action="delete" if restore is None else "insert" if found is None else "update",
        value=None if restore is None else restore.metric_value,
        period_year=None if restore is None else restore.period_year,
        period_month=None if restore is None else restore.period_month,
        year=row.year,
        basis=row.basis,
        population=row.population,
        before=found,
        restore=restore,
        origin="revert",
    )
    kpi_id = row.kpi_id.removeprefix(run.site.kpi_id_prefix)
    status = "put back" if untouched else "changed since"
    return Proposal(back, kpi_id, status, "", untouched, numbers_of(where, back))


def _named(keys: Iterable[Key]) -> str:
    return some((f"({snapshot_id}, {kpi_id})" for snapshot_id, kpi_id in keys), 20)
