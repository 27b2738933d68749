"""Every value that a run ever wrote, read from the ledger: no database is queried and no other file is opened.

The one exception is a run that was cut off between its commit and its last line: only its receipt has what it wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kpibackfill.archive import files, ledger
from kpibackfill.archive.models import Action, Begun, Change, Decision, End, Event, Origin, Settled
from kpibackfill.archive.run_record import receipt_of
from kpibackfill.archive.runs import refuse_unknown_target
from kpibackfill.config import Config
from kpibackfill.database.image import RowKey
from kpibackfill.numbers import Unit, published, too_few

# What a run wrote: its place in the ledger, when, the run's first line, the rows, the decisions.
_Part = tuple[int, str, Begun, Sequence[Change], Sequence[Decision]]


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A `Change` with the run that made it; not a model, since there may be a hundred thousand of them.

    `reverts` is the run whose rows were restored. `reviewer` and `decision_reason` are empty without a decision about
    the row; `reason` and `operator` are the run's. `basis_before` is known if a run wrote the value before.
    """

    at: str
    run_id: str
    target: str
    snapshot_id: int
    kpi_id: str
    year: int
    action: Action
    before: float | None
    after: float | None
    basis: int | None
    unit: Unit | None
    origin: Origin
    reverts: str
    reviewer: str
    decision_reason: str
    reason: str
    operator: str
    basis_before: int | None

    @property
    def key(self) -> RowKey:
        return self.snapshot_id, self.kpi_id

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"before": files.number(self.before), "after": files.number(self.after)}


def changes(runs_dir: Path, *, target: str | None = None, run_id: str | None = None) -> list[RecordedChange]:
    """Every value written, or only those of `target` or one run, in the order of the ledger.

    A run counts if its state is ``applied``, or if it was settled as applied.
    """
    found = changes_of(ledger.events(runs_dir), runs_dir)
    return [change for change in found if target in (None, change.target) and run_id in (None, change.run_id)]


def select(
    config: Config,
    *,
    target: str | None = None,
    year: int | None = None,
    kpi: str | None = None,
    snapshot_id: int | None = None,
) -> list[RecordedChange]:
    """The `changes`, filtered by target, year, KPI (its id in the registry or as stored) or snapshot.

    Raises
    ------
    Refused : neither the configuration nor any run has such a target.
    """
    refuse_unknown_target(config, target)
    spelled = (kpi, *config.site.spellings(kpi or ""))
    return [
        change
        for change in changes(config.runs_dir, target=target)
        if year in (None, change.year)
        and (kpi is None or change.kpi_id in spelled)
        and snapshot_id in (None, change.snapshot_id)
    ]


def changes_of(events: Iterable[Event], runs_dir: Path) -> list[RecordedChange]:
    """The changes that these events of the ledger report."""
    begun: dict[str, tuple[int, Begun]] = {}
    ended: set[str] = set()
    parts: list[_Part] = []
    for place, event in enumerate(events):
        if isinstance(event, Begun):
            begun[event.run_id] = place, event
        elif isinstance(event, End) and event.run_id in begun and event.run_id not in ended:
            ended.add(event.run_id)
            first, beginning = begun[event.run_id]
            if event.applied and isinstance(event, Settled):
                # It wrote when it ran, not when it was settled.
                parts.append((first, beginning.at, beginning, event.changes, event.decisions))
            elif event.applied:
                parts.append((place, event.at, beginning, event.changes, event.decisions))
    for run_id, (first, beginning) in begun.items():
        receipt = None if run_id in ended else receipt_of(runs_dir / run_id)
        if receipt is not None and receipt.state == "applied":
            parts.append((first, beginning.at, beginning, receipt.written.rows, receipt.decisions))
    return list(_recorded(sorted(parts, key=lambda part: part[0])))


def _recorded(parts: Iterable[_Part]) -> Iterator[RecordedChange]:
    last: dict[tuple[str, RowKey], RecordedChange] = {}
    for _, at, beginning, rows, decisions in parts:
        decided: dict[int, list[Decision]] = {}
        for decision in decisions:
            decided.setdefault(decision.snapshot_id, []).append(decision)
        for row in rows:
            # A decision has the registry's id. The row's id adds the site's prefix, which is not in the ledger: if it
            # ends with two decisions' ids, the longer one is meant.
            on_row = max(
                (decision for decision in decided.get(row.snapshot_id, []) if row.kpi_id.endswith(decision.kpi_id)),
                key=lambda decision: len(decision.kpi_id),
                default=None,
            )
            earlier = last.get((beginning.target, row.key))
            last[beginning.target, row.key] = change = RecordedChange(
                at=at,
                run_id=beginning.run_id,
                target=beginning.target,
                **vars(row),
                reverts=beginning.revert_of,
                reviewer=on_row.reviewer if on_row else "",
                decision_reason=on_row.reason if on_row else "",
                reason=beginning.reason,
                operator=beginning.operator,
                basis_before=earlier.basis if earlier is not None and earlier.after == row.before else None,
            )
            yield change


def last_recorded(runs_dir: Path, *targets: str) -> dict[RowKey, RecordedChange]:
    """The last change of each row of a target, or of several targets that name one database, by stored key.

    Its `after` is ``None`` for a deleted row.
    """
    return {change.key: change for change in changes(runs_dir) if change.target in targets}


def published_values(
    before: float | None, after: float | None, unit: Unit | None, basis_before: int | None, basis: int | None
) -> tuple[str, str]:
    """The values before and after as people read them; a rate based on too few people is withheld."""
    # The value stored before may come from the same few people.
    basis_before = basis if too_few(unit, basis) else basis_before
    return published(before, unit, basis_before), published(after, unit, basis)


def published_change(change: RecordedChange) -> tuple[str, str]:
    """The `published_values` of a change."""
    return published_values(change.before, change.after, change.unit, change.basis_before, change.basis)


def origin_sentence(origin: str, reverts: str, reviewer: str, decision_reason: str) -> str:
    """Where a value came from, if not from the sources, and who decided so and why; otherwise empty."""
    by = f" by {reviewer}" if reviewer else ""
    why = f": {decision_reason}" if decision_reason else ""
    decided = {"set": "set by hand", "remove": "removed by hand"}.get(origin, "accepted" if by or why else "")
    back = f"restored to the value before {reverts}" if reverts else ""
    return "; ".join(filter(None, [back, f"{decided}{by}{why}"]))


def origin_of(change: RecordedChange) -> str:
    """The `origin_sentence` of a change."""
    return origin_sentence(change.origin, change.reverts, change.reviewer, change.decision_reason)
