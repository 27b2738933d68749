"""Rows of the record as people read them: numbers as text, and remarks.

Where a rate rests on fewer than five people, neither the row nor its texts hold a number of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from kpibackfill.archive.models import DecisionLine, DriftRow, KpiRecord, PlanRow
from kpibackfill.database.image import RowKey
from kpibackfill.kpis.registry import Kpi
from kpibackfill.numbers import FEW, NONE, NOT_FOR_PUBLICATION, amount, measure, too_few
from kpibackfill.page.annual_tables import Shown

# The most important first.
STATUSES = ("unsupported", "changed", "new", "no_data", "unchanged")
DIFFERS = STATUSES[:3]
SHOWN: Mapping[str | None, str] = {
    "shown": "shown",
    "behind": "hidden: later snapshot",
    "test": "hidden: test snapshot",
    "outside": "hidden: outside its years",
    "live": "hidden: counted live",
    None: "",
}
"""What becomes of a row on the page."""

Kpis = Mapping[str, Kpi | KpiRecord]
"""By the registry's id; a KPI that only decisions set is not in it."""


@dataclass(frozen=True, slots=True)
class ReadableDrift:
    """A row of the drift; where it is `withheld`, its numbers are ``None``."""

    snapshot_id: int
    snapshot_date: str
    source: str
    period: str
    kpi_id: str
    label: str
    status: str
    moved: str
    withheld: bool
    basis: int | None
    basis_text: str
    stored: float | None
    stored_text: str
    computed: float | None
    computed_text: str
    size: float | None
    """Of the drift, in hundredths of its measure, so that shares and points sort together."""
    drift_text: str
    warnings: tuple[str, ...]
    remarks: tuple[str, ...]
    shown_text: str

    @property
    def key(self) -> RowKey:
        return self.snapshot_id, self.kpi_id

    @property
    def differs(self) -> bool:
        return self.status in DIFFERS


@dataclass(frozen=True, slots=True)
class ReadableChange:
    """A row of a plan, and the drift's row of the same snapshot, if any."""

    snapshot_id: int
    kpi_id: str
    label: str
    period: str
    action: str
    by: str
    from_text: str
    to_text: str
    snapshot: ReadableDrift | None
    shown_text: str

    @property
    def withheld(self) -> bool:
        return FEW in (self.from_text, self.to_text)


class ReadableDecision(DecisionLine):
    """What a person decided about a row."""

    label: str
    value_text: str


def drift_rows(rows: Iterable[DriftRow], kpis: Kpis) -> list[ReadableDrift]:
    """The rows of a drift, the most important first."""
    return sorted((_drift_row(row, kpis[row.kpi_id]) for row in rows), key=_rank)


def _drift_row(row: DriftRow, kpi: Kpi | KpiRecord) -> ReadableDrift:
    few = too_few(kpi.unit, row.basis)
    # The stored value came from the same few people, so it is withheld next to a computed rate of theirs.
    withheld = few and row.computed is not None
    stored, computed, delta, change = (
        None if withheld else value for value in (row.stored, row.computed, row.delta, row.change)
    )
    stored_period = (row.stored_period_year, row.stored_period_month)
    remarks = [
        f"{NOT_FOR_PUBLICATION.capitalize()}." if withheld else "",
        f"{row.decided[:1].upper()}{row.decided[1:]}." if row.decided else "",
        _moved_remark(row.moved, FEW if withheld else amount(row.recorded, kpi.unit)),
        f"The stored period is {row.stored_period_year}-{row.stored_period_month}."
        if row.status == "changed" and stored_period != (row.period_year, row.period_month)
        else "",
        *row.warnings,
    ]
    return ReadableDrift(
        snapshot_id=row.snapshot_id,
        snapshot_date=row.snapshot_date,
        source=(row.source or "").replace("_", " "),
        period=row.period,
        kpi_id=row.kpi_id,
        label=kpi.label,
        status=row.status,
        moved=row.moved,
        withheld=withheld,
        basis=None if few else row.basis,
        basis_text=FEW if few else rests_on(row.basis, row.population),
        stored=stored,
        stored_text=FEW if withheld and row.stored is not None else amount(stored, kpi.unit),
        computed=computed,
        computed_text=FEW if withheld else amount(computed, kpi.unit),
        size=change if kpi.unit == "count" else delta / 100 if kpi.unit == "points" and delta is not None else delta,
        drift_text=FEW if withheld else NONE if delta == 0 else measure(delta, change, kpi.unit),
        warnings=row.warnings,
        remarks=tuple(filter(None, remarks)),
        shown_text=SHOWN[row.shown],
    )


def _rank(row: ReadableDrift) -> tuple[int, float]:
    """By status, then by size of drift; as in the figures, drift from a stored 0 has no percentage and comes last."""
    return STATUSES.index(row.status), 1 if row.size is None else -abs(row.size)


def _moved_remark(moved: str, recorded: str) -> str:
    """Who moved since the value, `recorded` as people read it, was recorded."""
    return {
        "": "",
        "source": f"The computed value differs from the {recorded} recorded: sources, settings or code have changed.",
        "store": f"Someone changed the stored row since {recorded} was recorded.",
        "both": f"The computed value differs from the {recorded} recorded, and someone changed the stored row too.",
        "vanished": f"The row has vanished since {recorded} was recorded.",
    }[moved]


def warnings_by_kpi(rows: Iterable[ReadableDrift]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The label of each KPI with warnings, and each of its warnings with the periods that it is about."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in sorted(rows, key=lambda row: row.snapshot_date):
        for sentence in row.warnings:
            found.setdefault(row.label, {}).setdefault(sentence, []).append(row.period)
    return [
        (label, [(", ".join(dict.fromkeys(periods)), sentence) for sentence, periods in sentences.items()])
        for label, sentences in found.items()
    ]


def plan_rows(
    rows: Iterable[PlanRow],
    kpis: Kpis,
    prefix: str,
    drift: Collection[ReadableDrift] = (),
    shown: Mapping[RowKey, Shown | None] = MappingProxyType({}),
) -> list[ReadableChange]:
    """The rows of a plan, withheld where the run's drift is, too, and what becomes of them by the registry's ids."""
    by_key = {(row.snapshot_id, prefix + row.kpi_id): row for row in drift}
    snapshots = {row.snapshot_id: row for row in drift}
    found = []
    for row in rows:
        snapshot, kpi_id = snapshots.get(row.snapshot_id), row.kpi_id.removeprefix(prefix)
        kpi = kpis.get(kpi_id)
        unit = kpi.unit if kpi else None
        few = too_few(unit, row.basis) or (row.key in by_key and by_key[row.key].withheld)
        before = None if row.before is None else row.before.metric_value
        from_text, to_text = (
            FEW if few and text != NONE else text for text in (amount(before, unit), amount(row.value, unit))
        )
        found.append(
            ReadableChange(
                snapshot_id=row.snapshot_id,
                kpi_id=row.kpi_id,
                label=kpi.label if kpi else row.kpi_id,
                period=snapshot.period if snapshot else str(row.year),
                action=row.action,
                by={"set": "set by hand", "remove": "removed by hand", "revert": "restored"}.get(row.origin, ""),
                from_text=from_text,
                to_text=to_text,
                snapshot=snapshot,
                shown_text=SHOWN[shown.get((row.snapshot_id, kpi_id))],
            )
        )
    return found


def decision_rows(
    decisions: Iterable[DecisionLine], kpis: Kpis, withheld: Collection[RowKey]
) -> list[ReadableDecision]:
    """What was decided; the values of `withheld` rows are left out."""
    found = []
    for decision in decisions:
        kpi = kpis.get(decision.kpi_id)
        value = "" if decision.value is None else amount(decision.value, kpi.unit if kpi else None)
        few = (decision.snapshot_id, decision.kpi_id) in withheld
        label = kpi.label if kpi else decision.kpi_id
        found.append(ReadableDecision(**dict(decision), label=label, value_text=FEW if value and few else value))
    return found


def rests_on(basis: int | None, population: int | None) -> str:
    """``10 of 12``: how many observations a value rests on, out of how many where that is known."""
    if basis is None:
        return ""
    return f"{basis:,}" if population is None else f"{basis:,} of {population:,}"
