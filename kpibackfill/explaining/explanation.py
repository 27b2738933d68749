"""Explain one number: how the value of a KPI comes about, with what was left out and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from kpibackfill.config import Config
from kpibackfill.errors import Refused
from kpibackfill.explaining.parts import Explained, explanation_of
from kpibackfill.explaining.reading import opened, year_window
from kpibackfill.kpis.registry import Kpi, Value
from kpibackfill.numbers import too_few

if TYPE_CHECKING:
    from kpibackfill.plots import Figures


@dataclass(frozen=True, repr=False)
class Explanation:
    """How the value of a KPI for one year comes about, from aggregates only.

    Attributes
    ----------
    kpi : the registered KPI, with its words.
    target, year, as_of : what was asked for.
    computed : the KPI's own value, ``None`` for no data; `basis`, `population` and `warnings` are its own too.
    stored : DataFrame, a row per stored value of the year: `snapshot_id`, `snapshot_date`, `source`, `value`.
    parts : DataFrame `by`, `label`, `value`: for each `by`, the parts of the value, or of what it rests on.
    left_out, added : DataFrames `reason`, `count`: what separates all that was considered from what counts.
    explained : the same as values, with how the parts give the value; ``None`` where the KPI's module gives no parts.
    problems : sentences where the parts do not add up to the value; empty when they do.
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
    def withheld(self) -> bool:
        """Whether the value rests on so few people that what people read must not show it."""
        return self.computed is not None and too_few(self.kpi.unit, self.basis)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, numbers in full precision; also those that people must not read."""
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
        """The explanation waterfall, with the parts below it."""
        from kpibackfill.plots.waterfall import plot_explanation

        return plot_explanation(self)

    def __repr__(self) -> str:
        from kpibackfill.explaining.words import explanation_text

        return explanation_text(self)

    def _repr_html_(self) -> str:
        from kpibackfill.explaining.words import explanation_html

        return explanation_html(self)


def explain(
    kpi_id: str,
    *,
    year: int,
    target: str = "demo",
    as_of: str | datetime | date | None = None,
    config: Config | None = None,
) -> Explanation:
    """Explain how the value of a KPI for a year comes about. Reads only, and leaves no record.

    The value is the KPI's own; its parts are counted by queries of their own in the same read-only transaction, and
    held against it: where they don't add up, a warning says so.

    Parameters
    ----------
    kpi_id : one KPI of the registry, the site's own included.
    year : the year of the window.
    target : a target of ``kpibackfill.toml``.
    as_of : the instant that the current month goes by; a local time is the site's; default now.

    Raises
    ------
    KpiBackfillError : with one or two lines that say what is wrong; nothing was written.
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
        explained = explaining(found.connection(entry), found.site, window) if explaining else None
        stored = found.stored_rows(entry.kpi_id)
    columns = ["snapshot_id", "snapshot_date", "source", "value"]
    return Explanation(
        kpi=entry,
        target=found.run.target.name,
        year=parameters.from_year,
        as_of=parameters.as_of,
        computed=None if value.value is None else float(value.value),
        basis=value.basis,
        population=value.population,
        warnings=tuple(value.warnings),
        stored=pd.DataFrame(stored, columns=columns),
        explained=explained,
        problems=tuple(explained.problems(value)) if explained else (),
    )


def _reasons(counts: Any) -> pd.DataFrame:
    return pd.DataFrame(list(counts.items()), columns=["reason", "count"])
