"""Explain one number: how the value of a KPI is computed, what was left out, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from kpibackfill.compute import as_kpi_error
from kpibackfill.config import Config
from kpibackfill.errors import Refused
from kpibackfill.explaining.parts import Explained, Parts, explanation_of
from kpibackfill.explaining.reading import Opened, Stored, opened
from kpibackfill.explaining.windows import month_name, months_of, window_of, year_window
from kpibackfill.kpis.registry import Kpi, Value, Window
from kpibackfill.numbers import FEW, NOT_FOR_PUBLICATION, amount, too_few
from kpibackfill.reporting.markup import render
from kpibackfill.reporting.terminal import table
from kpibackfill.text import one_line

if TYPE_CHECKING:
    from kpibackfill.plots import Figures

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
class Explanation:
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

    def figure(self) -> Figures:
        """Draw the waterfall, with the parts below it."""
        # Only when it is needed: matplotlib takes long to import.
        from kpibackfill.explaining.waterfall import plot_explanation

        return plot_explanation(self)

    def __repr__(self) -> str:
        lines = [_headline(self), *_stored_lines(self), *_remarks(self)]
        for title, rows in _tables_of(self):
            lines += ["", *table((title, ""), rows, right=(1,))]
        return "\n".join(map(one_line, lines))

    def _repr_html_(self) -> str:
        lines, tables = _stored_lines(self), _tables_of(self)
        return render("explanation", first=_headline(self), lines=lines, remarks=_remarks(self), tables=tables)


def explain(
    kpi_id: str,
    *,
    year: int,
    target: str = "demo",
    as_of: str | datetime | date | None = None,
    config: Config | None = None,
) -> Explanation:
    """Explain how the value of a KPI for a year is computed. Reads only, and leaves no record.

    The value is the KPI's own; separate queries in the same read-only transaction count its parts, and a warning says
    so if they don't add up to it. A KPI without a registered explanation is broken down by month if its months add up.

    Parameters
    ----------
    kpi_id : the id of one registered KPI, built in or the site's own.
    year : the calendar year to explain.
    target : a target of ``kpibackfill.toml``.
    as_of : the instant that decides which month is the current one; a local time is the site's; default now.
    config : the configuration to use instead of the nearest ``kpibackfill.toml``.

    Returns
    -------
    Explanation : the value with what it is based on, its parts and what was left out; ``figure()`` draws it.

    Raises
    ------
    KpiBackfillError : in one or two lines, what is wrong; nothing was written.

    Example: ``kb.explain("education_nps", year=2024, target="live")``
    """
    if not str(kpi_id).strip() or "," in str(kpi_id):
        raise Refused(
            "explain takes the id of one KPI, such as education_nps; nothing was read. `kpibackfill kpis` lists them.",
            code="parameter",
        )
    with opened(config, target=target, kpis=kpi_id, from_year=year, to_year=None, as_of=as_of) as found:
        entry = found.run.kpis[0]
        parameters = found.run.parameters
        window = year_window(parameters.from_year)
        value = found.values(entry, [window]).get(window.window_id, Value(window.window_id, None))
        explaining = explanation_of(entry.kpi_id)
        with as_kpi_error(entry):
            explained = (
                explaining(found.connection(entry), found.site, window)
                if explaining
                else _by_month(found, entry, window, value)
            )
        stored = found.stored_rows(entry.kpi_id)
    return Explanation(
        kpi=entry,
        target=found.run.target.name,
        year=parameters.from_year,
        as_of=parameters.as_of,
        computed=None if value.value is None else float(value.value),
        basis=value.basis,
        population=value.population,
        warnings=tuple(value.warnings),
        stored=pd.DataFrame(stored, columns=Stored._fields).drop(columns="year"),
        explained=explained,
        problems=tuple(explained.problems(value)) if explained else (),
    )


def _by_month(found: Opened, entry: Kpi, window: Window, value: Value) -> Explained | None:
    """The value, or else its basis, by month as the KPI's own function computes it, if the months add up.

    Not for a rate: a month of it may be based on few people.
    """
    if value.value is None or entry.unit == "fraction":
        return None
    try:
        months = found.values(entry, [window_of(month, range(month, month + 1)) for month in months_of(window)])
    except Refused:  # it may compute whole years only
        return None
    names = {month_name(month): month_value for month, month_value in months.items()}
    by_value = Parts("month", {name: month.value for name, month in names.items() if month.value is not None})
    by_basis = Parts("month", {name: month.basis for name, month in names.items() if month.basis is not None}, "basis")
    if by_value.total == value.value:
        return Explained([by_value])
    return Explained([by_basis]) if value.basis is not None and by_basis.total == value.basis else None


def _headline(explanation: Explanation) -> str:
    """``Workshop attendees 2021: 693, based on 693 of 1,295 registrations that count, for events of any type.``"""
    entry = explanation.kpi
    if explanation.withheld:
        return f"{entry.label} {explanation.year}: {FEW} people, {NOT_FOR_PUBLICATION}."
    based = ""
    if explanation.basis is not None:
        whole = explanation.explained.population if explanation.explained else ""
        of = "" if explanation.population is None else f" of {explanation.population:,} {whole}"
        based = f", based on {explanation.basis:,}{of.rstrip()}"
    value = "nothing to compute from" if explanation.computed is None else amount(explanation.computed, entry.unit)
    return f"{entry.label} {explanation.year}: {value}{based}."


def _stored_lines(explanation: Explanation) -> list[str]:
    rows = [
        f"Stored: {FEW if explanation.withheld else amount(row.value, explanation.kpi.unit)} "
        f"(snapshot {row.snapshot_id}, {row.snapshot_date}, {row.source})."
        for row in explanation.stored.itertuples()
    ]
    return rows or ["Nothing is stored."]


def _remarks(explanation: Explanation) -> list[str]:
    """First where it doesn't add up, then the KPI's own warnings, then the notes on the parts."""
    explained = explanation.explained
    parts = [NO_PARTS] if explained is None else list(explained.notes)
    return [*explanation.problems, *explanation.warnings, *parts]


def _tables_of(explanation: Explanation) -> list[Table]:
    """What was considered, left out and added, and the parts, without the counts of a withheld rate."""
    explained = explanation.explained or Explained()
    if explanation.withheld:
        return [(f"by {parts.by}", [(label, FEW) for label in parts.values]) for parts in explained.parts]
    tables: list[Table] = []
    if steps := explanation.steps:
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
