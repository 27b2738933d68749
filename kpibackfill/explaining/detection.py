"""Find out which definition the stored values followed, before they are corrected."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from kpibackfill.config import Config
from kpibackfill.explaining.definitions import definitions
from kpibackfill.explaining.question import Asked, Candidates
from kpibackfill.explaining.reading import Opened, opened, year_window
from kpibackfill.explaining.sentences import EXACT, ROUNDED, sentence
from kpibackfill.kpis.registry import Kpi
from kpibackfill.numbers import Unit, rounded, same, too_few
from kpibackfill.reporting.markup import block

if TYPE_CHECKING:
    from kpibackfill.plots import Figures

COLUMNS = [
    "kpi_id", "year", "snapshot_id", "snapshot_date", "source", "stored", "definition", "own", "value", "detail",
    "match", "withheld",
]  # fmt: skip


@dataclass(frozen=True, repr=False, eq=False)
class Detection:
    """Which plausible definitions give exactly what is stored.

    Attributes
    ----------
    kpis : the KPIs that were looked at.
    matrix : DataFrame, a row per stored value and definition: `kpi_id`, `year`, `snapshot_id`, `snapshot_date`,
        `source`, `stored` (float), `definition` (a few words), `own` (bool: the one that is computed here), `value`
        (float, NaN for none), `detail` (such as the month that it was counted up to), `match` (``exact``: equal as
        4-byte floats; ``rounded``: equal when rounded; or empty), `withheld` (bool: a rate of fewer than five people).
    sentences : per KPI one sentence, with the definitions between asterisks.
    target, as_of : what was asked for.
    """

    kpis: tuple[Kpi, ...]
    matrix: pd.DataFrame
    sentences: dict[str, str]
    target: str
    as_of: datetime

    def figure(self) -> Figures:
        """The detective matrix, a drawing for each KPI that has a stored value."""
        from kpibackfill.explaining.matrix import plot_detection

        return plot_detection(self.kpis, self.matrix, self.sentences)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = self.matrix.astype(object).where(self.matrix.notna(), None).to_dict("records")
        return {
            "target": self.target,
            "as_of": self.as_of.isoformat(),
            "sentences": self.sentences,
            "matrix": rows,
        }

    def __repr__(self) -> str:
        return "\n".join(self.sentences.values())

    def _repr_html_(self) -> str:
        labels = {entry.kpi_id: entry.label for entry in self.kpis}
        pieces = [(labels[kpi_id], re.split(r"\*([^*]+)\*", text)) for kpi_id, text in self.sentences.items()]
        return block("{{ t.style() }}{{ t.detection(found) }}", found=pieces)


def detect(
    *,
    target: str = "demo",
    kpis: str | list[str] = "",
    from_year: int | None = None,
    to_year: int | None = None,
    as_of: str | datetime | date | None = None,
    config: Config | None = None,
) -> Detection:
    """Hold what is stored against every plausible definition of it. Reads only, and leaves no record.

    Parameters
    ----------
    target : a target of ``kpibackfill.toml``.
    kpis : KPI ids instead of the default set, text with commas or a list.
    from_year, to_year : inclusive; by default every year that has an annual snapshot.
    as_of : the instant that the current month goes by; a local time is the site's; default now.
    config : the configuration instead of the nearest one.

    Returns
    -------
    Detection : a sentence per KPI; ``figure()`` draws the matrix, `matrix` is the table behind it.

    Raises
    ------
    KpiBackfillError : with one or two lines that say what is wrong; nothing was written.

    Example: ``kb.detect(target="live", kpis="workshop_attendees").figure()``
    """
    rows: list[dict[str, Any]] = []
    with opened(
        config, target=target, kpis=kpis, from_year=from_year, to_year=to_year, as_of=as_of, every_year=True
    ) as found:
        for entry in found.run.kpis:
            rows += _rows(found, entry)
    matrix = pd.DataFrame(rows, columns=COLUMNS)
    chosen = found.run.kpis
    told = {entry.kpi_id: sentence(matrix[matrix["kpi_id"] == entry.kpi_id]) for entry in chosen}
    return Detection(chosen, matrix, told, found.run.target.name, found.run.parameters.as_of)


def _rows(found: Opened, entry: Kpi) -> list[dict[str, Any]]:
    stored = found.stored_rows(entry.kpi_id)
    years = sorted({row["year"] for row in stored})
    if not years:
        return []
    every = list(range(years[0], years[-1] + 1))
    own = found.values(entry, [year_window(year) for year in every])
    asked = Asked(found.connection(entry), found.site, every, own)
    rows: list[dict[str, Any]] = []
    fits: set[int] = set()
    for number, definition in enumerate(definitions(asked, entry.kpi_id)):
        found_rows = []
        for row in stored:
            candidates = definition.values[row["year"]]
            if len(candidates) > 1 and row["snapshot_id"] in fits:
                candidates = []
            detail, value, match = _best(candidates, row["value"], entry.unit)
            if number == 0 and match:
                fits.add(row["snapshot_id"])
            mine = own.get(row["year"])
            found_rows.append(
                {
                    **{name: row[name] for name in ("year", "snapshot_id", "snapshot_date", "source")},
                    "kpi_id": entry.kpi_id,
                    "stored": row["value"],
                    "definition": definition.words,
                    "own": number == 0,
                    "value": value,
                    "detail": detail,
                    "match": match,
                    "withheld": mine is not None and mine.value is not None and too_few(entry.unit, mine.basis),
                }
            )
        if number == 0 or any(row["value"] is not None for row in found_rows):
            rows += found_rows
    return rows


def _best(candidates: Candidates, stored: float, unit: Unit) -> tuple[str, float | None, str]:
    """The candidate that is what is stored; without any, the only one there is, or none of several."""
    for detail, value in candidates:
        if value is not None and same(value, stored):
            return detail, float(value), EXACT
    if len(candidates) != 1:
        return "", None, ""
    detail, value = candidates[0]
    return detail, value, ROUNDED if value is not None and _rounded(value, stored, unit) else ""


def _rounded(value: float, stored: float, unit: Unit) -> bool:
    """Whether what is stored is the value as people round: rates to per cents, points to whole ones, counts to tens."""
    digits = {"fraction": (3, 2), "points": (0,), "count": (-1,)}[unit]
    if unit == "count" and abs(value) < 100:
        return False
    return any(same(rounded(value, number), stored) for number in digits)
