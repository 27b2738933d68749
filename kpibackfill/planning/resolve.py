"""Chooses the rows of the plan: the planned candidates, or those that a person decided for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from kpibackfill.archive.models import DecisionLine, PlanRow
from kpibackfill.compute import Readings
from kpibackfill.database.image import Image, RowKey
from kpibackfill.decisions.decisions_file import Decision, Decisions, contradiction, refuse_lines
from kpibackfill.numbers import same
from kpibackfill.planning.candidates import Candidates, row_to_write
from kpibackfill.run import Run
from kpibackfill.text import count, some


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows of the plan, and for the record each decision with the row that it is about."""

    rows: tuple[PlanRow, ...]
    decided: tuple[DecisionLine, ...] = ()
    notes: tuple[str, ...] = ()


def choose(run: Run, readings: Readings, found: Candidates) -> Chosen:
    """Choose the planned candidates or, with a decisions file, exactly what it says; it defers what it does not name.

    Raises
    ------
    Refused : a line is about a row that this run does not have, or was decided on numbers that have changed since, or
        two lines contradict each other; the message names the lines, and nothing was written.
    """
    decisions = run.decisions
    if decisions is None:
        return Chosen(tuple(candidate.row for candidate in found.candidates if candidate.planned))
    resolver = _DecisionResolver(run, readings, found)
    problems: list[tuple[Decision, str]] = []
    first: dict[RowKey, Decision] = {}
    rows: list[PlanRow] = []
    already: list[int] = []
    for decision in decisions.lines:
        try:
            keys = list(resolver.keys(decision))
            for key in keys:
                known = first.setdefault(key, decision)
                if not known.same_as(decision):
                    raise contradiction(known, decision, decisions.name)
                if known is not decision:
                    continue
                row = resolver.row(decision, key)
                if row is not None:
                    rows.append(row)
                elif decision.decision != "reject":
                    already.append(decision.line)
        except _Unfit as unfit:
            problems.append((decision, str(unfit)))
    refuse_lines(decisions, problems)
    return Chosen(tuple(rows), tuple(resolver.decided(first)), (_decision_note(decisions, rows, first, already),))


class _Unfit(Exception):
    """Why a decision doesn't fit this run."""


class _DecisionResolver:
    """Works out what decisions mean for a run's candidates and stored rows."""

    def __init__(self, run: Run, readings: Readings, found: Candidates) -> None:
        self._run, self._readings = run, readings
        self._settled = found.settled
        self._by_key = {candidate.key: candidate for candidate in found.candidates}
        ids, years, dates = (readings.snapshots[name].tolist() for name in ("snapshot_id", "year", "snapshot_date"))
        self._snapshots = dict(zip(ids, zip(years, dates, strict=True), strict=True))

    def keys(self, decision: Decision) -> Iterator[RowKey]:
        if decision.snapshot_id is None:
            found = [snapshot_id for snapshot_id, (year, _) in self._snapshots.items() if year == decision.year]
            if not found:
                raise _Unfit(f"this run has no target snapshot for {decision.year}")
            yield from ((snapshot_id, decision.kpi_id) for snapshot_id in found)
            return
        key = (decision.snapshot_id, decision.kpi_id)
        candidate = self._by_key.get(key)
        if decision.snapshot_id not in self._snapshots and candidate is None:
            raise _Unfit(f"snapshot {decision.snapshot_id} is not one of this run's target snapshots")
        year = candidate.row.year if candidate else self._snapshots[decision.snapshot_id][0]
        if decision.year is not None and decision.year != year:
            raise _Unfit(f"snapshot {decision.snapshot_id} is from {year}, not from {decision.year}")
        yield key

    def row(self, decision: Decision, key: RowKey) -> PlanRow | None:
        """The row that the decision puts into the plan; ``None`` where there is nothing to write."""
        if self._run.parameters.revert_of and decision.decision in ("set", "remove"):
            raise _Unfit(f"a revert only restores rows; {decision.decision} needs another run")
        if self._is_done(decision, key):
            return None
        candidate = self._by_key.get(key)
        if decision.numbers and candidate is None:
            raise _Unfit("this run has nothing to decide there: the numbers have changed, or the KPI is not computed")
        if decision.numbers and candidate and candidate.numbers != decision.numbers:
            raise _Unfit("decided on numbers that have changed since; review a new dry run")
        if decision.decision == "set":
            return self._set(decision, key)
        assert candidate is not None
        if decision.decision == "remove":
            return candidate.row.changed(
                action="delete", value=None, period_year=None, period_month=None, origin="remove"
            )
        if decision.decision == "accept" and candidate.status == "unsupported":
            raise _Unfit("nothing was computed for that row, so there is nothing to accept; remove it, or set a value")
        return candidate.row if decision.decision == "accept" else None

    def _is_done(self, decision: Decision, key: RowKey) -> bool:
        """Whether the stored row is already as decided, for example because the decisions were applied."""
        before = self._readings.stored.get(key)
        if decision.decision == "set":
            assert decision.value is not None
            period = self._period(key)
            return (
                before is not None
                and same(before.metric_value, decision.value)
                and (before.period_year, before.period_month) == period
            )
        if decision.decision == "remove":
            return before is None
        return key in self._settled

    def _period(self, key: RowKey) -> tuple[int, int]:
        _, date = self._snapshots[key[0]]
        return int(date[:4]), int(date[5:7])

    def _set(self, decision: Decision, key: RowKey) -> PlanRow:
        before: Image | None = self._readings.stored.get(key)
        computed = self._readings.computed
        rows = computed[(computed["snapshot_id"] == key[0]) & (computed["kpi_id"] == key[1])]
        basis, population = (
            None if rows.empty or pd.isna(rows[name].iloc[0]) else int(rows[name].iloc[0])
            for name in ("basis", "population")
        )
        kept = {"basis": basis, "population": population}
        stored_key, year = (key[0], self._readings.prefix + key[1]), self._snapshots[key[0]][0]
        return row_to_write(stored_key, year, decision.value, before, period=self._period(key), origin="set", **kept)

    def decided(self, first: Mapping[RowKey, Decision]) -> Iterator[DecisionLine]:
        for (snapshot_id, _), decision in first.items():
            candidate = self._by_key.get((snapshot_id, decision.kpi_id))
            year = candidate.row.year if candidate else self._snapshots[snapshot_id][0]
            yield DecisionLine(**{**asdict(decision), "snapshot_id": snapshot_id, "year": year})


def _decision_note(
    decisions: Decisions, rows: Sequence[PlanRow], first: Mapping[RowKey, Decision], already: Iterable[int]
) -> str:
    words = [decision.decision for decision in first.values()]
    past = {"accept": "accepted", "set": "set", "remove": "to remove", "reject": "rejected"}
    counts = ", ".join(f"{words.count(word)} {text}" for word, text in past.items() if word in words) or "none"
    lines = list(dict.fromkeys(already))
    nothing = f" Already done: line{'s' if lines[1:] else ''} {some(lines, 50)}." if lines else ""
    ignored = f" Ignored columns: {some(decisions.ignored)}." if decisions.ignored else ""
    return (
        f"Decisions in {decisions.name}: {counts}; {count(len(rows), 'row')} in the plan. Rows that it does not name "
        f"are deferred.{nothing}{ignored}"
    )
