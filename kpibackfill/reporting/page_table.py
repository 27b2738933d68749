"""The dashboard's annual tables as people read them: on the page now, and after a plan or an apply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kpibackfill.archive.models import PageAfter, PageCell, PageRecord, PageSection
from kpibackfill.numbers import FEW, NONE, Unit, amount
from kpibackfill.reporting.rows import Kpis
from kpibackfill.reporting.terminal import table
from kpibackfill.text import count


@dataclass(frozen=True, slots=True)
class ReadableCell:
    """A cell of the page: its text now, and after where that is another."""

    now: str = ""
    after: str = ""
    mark: str = ""
    """``live`` or ``target``, where that is what the page shows."""

    def __str__(self) -> str:
        shown = f"{self.now} → {self.after}" if self.after else self.now
        return f"{shown} ({self.mark})" if self.mark else shown


@dataclass(frozen=True, slots=True)
class ReadablePage:
    """The cells by KPI and year, and a sentence on what they are; no rows where nothing shows."""

    sentence: str
    years: tuple[int, ...]
    rows: tuple[tuple[str, tuple[ReadableCell, ...]], ...]

    def lines(self) -> list[str]:
        """As a table in a terminal."""
        if not self.rows:
            return [self.sentence]
        heads = ["KPI", *map(str, self.years)]
        rows = [(label, *cells) for label, cells in self.rows]
        return [self.sentence, *table(heads, rows, right=range(1, len(heads)))]


def page_table(page: PageRecord, kpis: Kpis, at: datetime) -> ReadablePage:
    """The cells of a plan's page, with the age that the payload has `at` an instant."""
    years = tuple(sorted({cell.year for cell in page.cells}))
    found: dict[str, dict[int, ReadableCell]] = {}
    for cell in page.cells:
        kpi = kpis.get(cell.kpi_id)
        label = kpi.label if kpi else cell.kpi_id
        found.setdefault(label, {})[cell.year] = _readable(cell, kpi.unit if kpi else None)
    rows = tuple((label, tuple(cells.get(year, ReadableCell()) for year in years)) for label, cells in found.items())
    return ReadablePage(_sentence(page, at), years, rows)


def page_after_sentence(page: PageAfter, at: datetime) -> str:
    """What the page shows after an apply, and when cron would bring the rest."""
    if page.note:
        return page.note
    if not page.sections:
        return "The dashboard stores no page yet: the next view computes it from the rows."
    if not page.stale:
        return "The page shows the stored rows."
    cells = count(page.stale, "cell")
    return f"The page still shows other numbers than the rows in {cells}; {_cron(page.sections, at)}."


def warm_commands(page: PageAfter) -> list[str]:
    """What makes the page show the rows at once; to be run where the site is."""
    if page.note:
        return ["drush msd:kpi-warm"]
    return [f"drush msd:kpi-warm {section.name}" for section in page.sections] if page.stale else []


def _readable(cell: PageCell, unit: Unit | None) -> ReadableCell:
    now, after = (FEW if cell.withheld else _values(values, unit) for values in (cell.now, cell.after))
    mark = cell.now_from if cell.now_from in ("live", "target") else ""
    if cell.changes and not (cell.withheld or now == after):
        return ReadableCell(now, after, "")
    return ReadableCell(now, "", mark)


def _values(values: Sequence[float], unit: Unit | None) -> str:
    return " or ".join(amount(value, unit) for value in values) or NONE


def _sentence(page: PageRecord, at: datetime) -> str:
    if not page.cells:
        return "The page's annual tables show none of these KPIs in these years, and would not after this plan."
    since = [datetime.fromisoformat(section.computed_at) for section in page.sections if section.computed_at]
    when = f"computed {ago(at - min(since))}" if since else "as the stored rows say, since no page is stored"
    changing = sum(cell.changes for cell in page.cells)
    then = f"{count(changing, 'cell')} would change" if changing else "no cell would change"
    return f"On the page now ({when}) → after this plan: {then}."


def ago(age: timedelta) -> str:
    """How long ago something was, in words."""
    hours = age.total_seconds() / 3600
    if hours < 2:
        return f"{count(max(round(hours * 60), 0), 'minute')} ago"
    return f"{count(round(hours), 'hour')} ago" if hours < 48 else f"{count(round(hours / 24), 'day')} ago"


def _cron(sections: Iterable[PageSection], at: datetime) -> str:
    ends = [datetime.fromisoformat(section.expires_at) for section in sections if section.expires_at]
    left = (max(ends) - at).total_seconds() / 3600 if ends else 0
    return (
        f"cron brings the new ones in about {count(round(left), 'hour')}"
        if left >= 1
        else ("cron brings the new ones when it runs next")
    )
