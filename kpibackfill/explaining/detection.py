"""Find out which definition the stored values follow, before they are corrected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from kpibackfill.config import Config
from kpibackfill.errors import Refused
from kpibackfill.explaining.alternatives import DECEMBER, UNTIL, Outcome, Outcomes, comparison_of, shifted, until
from kpibackfill.explaining.reading import Opened, opened
from kpibackfill.explaining.sentences import EXACT, ROUNDED, sentence
from kpibackfill.explaining.windows import months_of, window_of, year_window
from kpibackfill.kpi_values import as_kpi_error
from kpibackfill.kpis.registry import Kpi, Value, Window
from kpibackfill.numbers import Unit, rounded, same, too_few
from kpibackfill.reporting.markup import render
from kpibackfill.text import one_line

if TYPE_CHECKING:
    from kpibackfill.plots import Figures


class MatrixRow(NamedTuple):
    """A row of the matrix: a stored value and what one definition yields for its year."""

    kpi_id: str
    year: int
    snapshot_id: int
    snapshot_date: str
    source: str
    stored: float
    definition: str
    own: bool
    value: float | None
    detail: str
    match: str
    withheld: bool


COLUMNS = list(MatrixRow._fields)


@dataclass(frozen=True, repr=False, eq=False)
class Detection:
    """Which plausible definitions yield exactly what is stored.

    Attributes
    ----------
    kpis : the KPIs examined.
    matrix : DataFrame, a row per stored value and definition: `kpi_id`, `year`, `snapshot_id`, `snapshot_date`,
        `source`, `stored` (float), `definition` (a few words), `own` (bool: the one computed here), `value` (float,
        NaN for none), `detail` (such as the month counted up to), `match` (``exact``: equal as 4-byte floats;
        ``rounded``: equal when rounded; or empty), `withheld` (bool: a rate of fewer than five people).
    sentences : per KPI one sentence, with the definitions between asterisks.
    target, as_of : what was requested.
    """

    kpis: tuple[Kpi, ...]
    matrix: pd.DataFrame
    sentences: dict[str, str]
    target: str
    as_of: datetime

    def figure(self) -> Figures:
        """Draw the matrix, one drawing for each KPI that has a stored value."""
        from kpibackfill.explaining.matrix import plot_detection

        return plot_detection(self.kpis, self.matrix, self.sentences)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = self.matrix.astype(object).where(self.matrix.notna(), None).to_dict("records")
        return {"target": self.target, "as_of": self.as_of.isoformat(), "sentences": self.sentences, "matrix": rows}

    def __repr__(self) -> str:
        return "\n".join(self.sentences.values())

    def _repr_html_(self) -> str:
        labels = {entry.kpi_id: entry.label for entry in self.kpis}
        pieces = [(labels[kpi_id], re.split(r"\*([^*]+)\*", text)) for kpi_id, text in self.sentences.items()]
        return render("detection", found=pieces)


def detect(
    *,
    target: str = "demo",
    kpis: str | list[str] = "",
    from_year: int | None = None,
    to_year: int | None = None,
    as_of: str | datetime | date | None = None,
    config: Config | None = None,
) -> Detection:
    """Compare the stored values with every plausible definition. Reads only, and leaves no record.

    The definitions are the KPI's own, those registered with ``compares`` and, for a site's own KPI, its function
    applied to other months.

    Parameters
    ----------
    target : a target of ``kpibackfill.toml``.
    kpis : KPI ids instead of the default set, as text separated by commas or a list.
    from_year, to_year : inclusive; by default every year that has an annual snapshot.
    as_of : the instant that decides which month is the current one; a local time is the site's; default now.
    config : the configuration to use instead of the nearest ``kpibackfill.toml``.

    Returns
    -------
    Detection : a sentence per KPI; ``figure()`` draws the matrix, and `matrix` is the table behind it.

    Raises
    ------
    KpiBackfillError : in one or two lines, what is wrong; nothing was written.

    Example: ``kb.detect(target="live", kpis="workshop_attendees").figure()``
    """
    years = {"from_year": from_year, "to_year": to_year}
    with opened(config, every_year=True, target=target, kpis=kpis, as_of=as_of, **years) as found:
        chosen = found.run.kpis
        matrix = pd.DataFrame([row for entry in chosen for row in _compared(found, entry)], columns=COLUMNS)
    sentences = {entry.kpi_id: sentence(matrix[matrix["kpi_id"] == entry.kpi_id]) for entry in chosen}
    return Detection(chosen, matrix, sentences, found.run.target.name, found.run.parameters.as_of)


def _compared(found: Opened, entry: Kpi) -> list[MatrixRow]:
    """Each stored value of the KPI with what each definition yields for its year."""
    stored = found.stored_rows(entry.kpi_id)
    if not stored:
        return []
    years = [row.year for row in stored]
    windows = [year_window(year) for year in range(min(years), max(years) + 1)]
    own = found.values(entry, windows)
    few = {year for year, value in own.items() if value.value is not None and too_few(entry.unit, value.basis)}
    rows: list[MatrixRow] = []
    for number, (words, outcomes) in enumerate(_definitions(found, entry, windows, own).items()):
        fits = {row.snapshot_id for row in rows if row.own and row.match}
        of_definition = []
        for row in stored:
            values = outcomes.get(row.year, {})
            if len(values) > 1 and row.snapshot_id in fits:
                values = {}
            detail, value, match = _best(values, row.value, entry.unit)
            of_definition.append(
                MatrixRow(entry.kpi_id, *row, words, number == 0, value, detail, match, row.year in few)
            )
        if number == 0 or any(row.value is not None for row in of_definition):
            rows += of_definition
    return rows


def _definitions(
    found: Opened, entry: Kpi, windows: Sequence[Window], own: Mapping[int, Value]
) -> dict[str, dict[int, dict[str, float | None]]]:
    """By definition and year the values, with their details: first the KPI's own definition, then those registered for
    it and, for a site's KPI, its own function over other months."""
    words_of_own, alternatives_of = comparison_of(entry.kpi_id)
    definitions: dict[str, dict[int, dict[str, float | None]]] = {}
    with as_kpi_error(entry):
        for alternatives in (
            {words_of_own: {year: value.value for year, value in own.items()}},
            alternatives_of(found.connection(entry), found.site, windows),
            {} if entry.built_in else _over_other_months(found, entry, windows),
        ):
            for words, outcomes in alternatives.items():
                by_year = {year: _by_detail(outcome) for year, outcome in outcomes.items()}
                definitions.setdefault(one_line(words), by_year)
    return definitions


def _by_detail(outcome: Outcome) -> dict[str, float | None]:
    """The value without a detail, or several by their details, in Python's own numbers."""
    values = outcome if isinstance(outcome, Mapping) else {"": outcome}
    return {one_line(detail): None if value is None else float(value) for detail, value in values.items()}


def _over_other_months(found: Opened, entry: Kpi, windows: Sequence[Window]) -> dict[str, Outcomes]:
    """What the KPI's own function computes from December to November, and up to the end of each month."""
    begun = [window_of(months[0] + last, months[:last]) for months in map(months_of, windows) for last in range(1, 12)]
    try:
        found_values = found.values(entry, [*shifted(windows), *begun]).items()
    except Refused:  # it may compute whole years only
        return {}
    values = {number: None if too_few(entry.unit, value.basis) else value.value for number, value in found_values}
    return {
        DECEMBER: {window.window_id: values.get(-window.window_id) for window in windows},
        UNTIL: until(windows, lambda months: values.get(months[0] + len(months))),
    }


def _best(values: Mapping[str, float | None], stored: float, unit: Unit) -> tuple[str, float | None, str]:
    """The value that equals the stored one, with its detail; otherwise the only value, or none of several."""
    for detail, value in values.items():
        if value is not None and same(value, stored):
            return detail, value, EXACT
    if len(values) != 1:
        return "", None, ""
    ((detail, value),) = values.items()
    return detail, value, ROUNDED if value is not None and _rounded(value, stored, unit) else ""


def _rounded(value: float, stored: float, unit: Unit) -> bool:
    """Whether the stored value is the value as people round it: rates to percent, points to units, counts to tens."""
    digits = {"fraction": (3, 2), "points": (0,), "count": (-1,)}[unit]
    if unit == "count" and abs(value) < 100:
        return False
    return any(same(rounded(value, number), stored) for number in digits)
