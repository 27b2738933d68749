"""Explain one number: how the value of a KPI is computed, what was left out, and why."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

import pandas as pd

from kpibackfill.config import Config
from kpibackfill.errors import Refused
from kpibackfill.explaining.account import Account
from kpibackfill.explaining.parts import Explained, Parts, explanation_of
from kpibackfill.explaining.reading import Opened, Stored, opened
from kpibackfill.explaining.windows import month_name, months_of, window_of, year_window
from kpibackfill.kpi_values import as_kpi_error
from kpibackfill.kpis.registry import Kpi, Value, Window

if TYPE_CHECKING:
    from kpibackfill.plots import Figures


class Explanation(Account):
    """What `explain` returns: an account and its figure."""

    def figure(self) -> Figures:
        """Draw the waterfall, with the parts below it."""
        # Only when it is needed: matplotlib takes long to import.
        from kpibackfill.explaining.waterfall import plot_explanation

        return plot_explanation(self)


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
