"""How one value comes about, as text, JSON and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from kpibackfill.explaining.parts import Explained
from kpibackfill.kpis.registry import Kpi
from kpibackfill.numbers import FEW, NOT_FOR_PUBLICATION, amount, too_few
from kpibackfill.reporting.markup import render
from kpibackfill.reporting.terminal import table
from kpibackfill.text import one_line

NO_PARTS = "No breakdown is registered for this KPI."
Table = tuple[str, list[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Step:
    """A step from all that was considered to what remains: from one amount to another."""

    label: str
    start: int
    end: int
    kind: str
    """``considered``, ``out``, ``in`` or ``remains``."""

    @property
    def text(self) -> str:
        change = self.end - self.start
        return f"{change:+,}".replace("-", "−") if self.kind in ("out", "in") else f"{self.end:,}"


@dataclass(frozen=True, repr=False, eq=False)
class Account:
    """How the value of a KPI for one year is computed, from aggregates only.

    Attributes
    ----------
    kpi : the registered KPI, with its label and description.
    target, year, as_of : what was requested.
    computed : the KPI's own value, ``None`` for no data; `basis`, `population` and `warnings` are its own too.
    stored : DataFrame, a row per stored value of the year: `snapshot_id`, `snapshot_date`, `source`, `value`.
    parts : DataFrame `by`, `label`, `value`: for each `by`, the parts of the value, or of what it is based on.
    left_out, added : DataFrames `reason`, `count`: the difference between everything considered and what counts.
    explained : the same as values, with how the parts make up the value; ``None`` if nothing breaks the KPI down.
    problems : sentences that say where the parts don't add up to the value; empty when they do.
    """

    kpi: Kpi
    target: str
    year: int
    as_of: datetime
    computed: float | None
    basis: int | None
    population: int | None
    warnings: tuple[str, ...]
    stored: pd.DataFrame
    explained: Explained | None
    problems: tuple[str, ...]

    @property
    def parts(self) -> pd.DataFrame:
        found = self.explained.parts if self.explained else ()
        rows = [(parts.by, label, value) for parts in found for label, value in parts.values.items()]
        return pd.DataFrame(rows, columns=["by", "label", "value"])

    @property
    def left_out(self) -> pd.DataFrame:
        return _reasons(self.explained.left_out if self.explained else {})

    @property
    def added(self) -> pd.DataFrame:
        return _reasons(self.explained.added if self.explained else {})

    @property
    def steps(self) -> list[Step]:
        """From all that was considered to what remains, without reasons that apply to nothing."""
        explained = self.explained
        if explained is None or explained.considered is None:
            return []
        level = explained.considered
        steps = [Step(f"all {explained.what}", 0, level, "considered")]
        for changes, sign, kind in ((explained.left_out, -1, "out"), (explained.added, 1, "in")):
            for reason, count in changes.items():
                if count:
                    steps.append(Step(reason, level, level + sign * count, kind))
                    level += sign * count
        remains = self.kpi.label if explained.arrives_at == "value" else "what the value is based on"
        return [*steps, Step(remains, 0, level, "remains")]

    @property
    def withheld(self) -> bool:
        """Whether the value is based on too few people to be shown."""
        return self.computed is not None and too_few(self.kpi.unit, self.basis)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, numbers in full precision, including those that are withheld from people."""
        explained = self.explained or Explained()
        return {
            "kpi_id": self.kpi.kpi_id,
            "year": self.year,
            "target": self.target,
            "as_of": self.as_of.isoformat(),
            "unit": self.kpi.unit,
            "computed": self.computed,
            "basis": self.basis,
            "population": self.population,
            "stored": self.stored.to_dict("records"),
            "considered": None
            if explained.considered is None
            else {"what": explained.what, "count": explained.considered, "arrives_at": explained.arrives_at},
            "parts": self.parts.to_dict("records"),
            "left_out": self.left_out.to_dict("records"),
            "added": self.added.to_dict("records"),
            "adds_up": None if self.explained is None else not self.problems,
            "warnings": [*self.problems, *self.warnings, *explained.notes],
        }

    def __repr__(self) -> str:
        lines = [_headline(self), *_stored_lines(self), *_remarks(self)]
        for title, rows in _tables_of(self):
            lines += ["", *table((title, ""), rows, right=(1,))]
        return "\n".join(map(one_line, lines))

    def _repr_html_(self) -> str:
        lines, tables = _stored_lines(self), _tables_of(self)
        return render("explanation", first=_headline(self), lines=lines, remarks=_remarks(self), tables=tables)


def _headline(account: Account) -> str:
    """``Workshop attendees 2021: 693, based on 693 of 1,295 registrations that count, for events of any type.``"""
    entry = account.kpi
    if account.withheld:
        return f"{entry.label} {account.year}: {FEW} people, {NOT_FOR_PUBLICATION}."
    based = ""
    if account.basis is not None:
        whole = account.explained.population if account.explained else ""
        of = "" if account.population is None else f" of {account.population:,} {whole}"
        based = f", based on {account.basis:,}{of.rstrip()}"
    value = "nothing to compute from" if account.computed is None else amount(account.computed, entry.unit)
    return f"{entry.label} {account.year}: {value}{based}."


def _stored_lines(account: Account) -> list[str]:
    rows = [
        f"Stored: {FEW if account.withheld else amount(row.value, account.kpi.unit)} "
        f"({', '.join(filter(None, (f'snapshot {row.snapshot_id}', row.snapshot_date, row.source)))})."
        for row in account.stored.itertuples()
    ]
    return rows or ["Nothing is stored."]


def _remarks(account: Account) -> list[str]:
    """First where it doesn't add up, then the KPI's own warnings, then the notes on the parts."""
    explained = account.explained
    parts = [NO_PARTS] if explained is None else list(explained.notes)
    return [*account.problems, *account.warnings, *parts]


def _tables_of(account: Account) -> list[Table]:
    """What was considered, left out and added, and the parts, without the counts of a withheld rate."""
    explained = account.explained or Explained()
    if account.withheld:
        return [(f"by {parts.by}", [(label, FEW) for label in parts.values]) for parts in explained.parts]
    tables: list[Table] = []
    if steps := account.steps:
        tables.append(("how it is computed", [(step.label, step.text) for step in steps]))
    elif any(explained.left_out.values()):
        tables.append(("left out", [(reason, f"{count:,}") for reason, count in explained.left_out.items() if count]))
    by_parts = [
        (parts.title, [(label, f"{value:,.10g}") for label, value in parts.values.items()])
        for parts in explained.nonzero
    ]
    return tables + by_parts


def _reasons(counts: Any) -> pd.DataFrame:
    return pd.DataFrame(list(counts.items()), columns=["reason", "count"])
