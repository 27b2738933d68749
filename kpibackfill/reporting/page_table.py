"""The dashboard's annual tables as people read them: on the page now, and after a plan or an apply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kpibackfill.archive.models import Fate, PageAfter, PageCell, PageRecord, PageSection
from kpibackfill.numbers import FEW, NONE, Unit, amount
from kpibackfill.reporting.rows import Kpis
from kpibackfill.reporting.terminal import table
from kpibackfill.text import count

_MARKS = {
    "live": "live: the page counts these itself, whatever is stored.",
    "target": "target: from the strategic plan, as long as no value is stored.",
}
_HIDDEN: Mapping[Fate, str] = {
    "outside": "outside the page's years",
    "behind": "behind a later snapshot of the year",
    "live": "in a year that the page counts live",
    "test": "in a test snapshot",
    "none": "in no annual table",
}


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
    """The cells by KPI and year, and sentences on what they are and what stays hidden; no rows where nothing shows."""

    sentences: tuple[str, ...]
    years: tuple[int, ...]
    rows: tuple[tuple[str, tuple[ReadableCell, ...]], ...]
    legend: tuple[str, ...]
    """What the marks mean that occur."""

    def lines(self) -> list[str]:
        """As a table in a terminal."""
        if not self.rows:
            return [*self.sentences]
        heads = ["KPI", *map(str, self.years)]
        rows = [(label, *cells) for label, cells in self.rows]
        first, *others = self.sentences
        return [first, *table(heads, rows, right=range(1, len(heads))), *self.legend, *others]


def page_table(page: PageRecord, kpis: Kpis, at: datetime | None = None, *, applied: bool = False) -> ReadablePage:
    """The cells of a plan's page, with the age that the payload has `at` an instant, or else its time."""
    years = tuple(sorted({cell.year for cell in page.cells}))
    found: dict[str, dict[int, ReadableCell]] = {}
    for cell in page.cells:
        kpi = kpis.get(cell.kpi_id)
        label = kpi.label if kpi else cell.kpi_id
        found.setdefault(label, {})[cell.year] = _readable(cell, kpi.unit if kpi else None)
    rows = tuple((label, tuple(cells.get(year, ReadableCell()) for year in years)) for label, cells in found.items())
    marks = {cell.mark for cells in found.values() for cell in cells.values()}
    sentences = tuple(filter(None, (_sentence(page, at, applied), hidden_sentence(page.planned))))
    return ReadablePage(sentences, years, rows, tuple(text for mark, text in _MARKS.items() if mark in marks))


def hidden_sentence(planned: Mapping[Fate, int]) -> str:
    """How many of a plan's rows will not show, and why not; empty where all will."""
    hidden = {word: planned[word] for word in _HIDDEN if planned.get(word)}
    total = planned.get("shown", 0) + sum(hidden.values())
    if not hidden:
        return ""
    if total == 1:
        return f"The row will not show: it is {_HIDDEN[next(iter(hidden))]}."
    reasons = ", ".join(f"{number:,} {_HIDDEN[word]}" for word, number in hidden.items())
    number = sum(hidden.values())
    none = f"None of the {total:,} rows will show" if number == total else ""
    return f"{none or f'{number:,} of the {total:,} rows will not show'}: {reasons}."


def page_after_sentence(page: PageAfter | None, at: datetime) -> str:
    """What the page shows after an apply, and when cron would bring the rest; empty without an apply."""
    if page is None:
        return ""
    if page.note:
        return page.note
    if not page.sections:
        return "The dashboard stores no page yet: the next view computes it from the rows."
    if not page.stale:
        return "The page shows the stored rows."
    cells = count(page.stale, "cell")
    return f"The page still shows other numbers than the rows in {cells}; {_cron(page.sections, at)}."


def warm_commands(page: PageAfter | None) -> list[str]:
    """What makes the page show the rows at once; to be run where the site is."""
    if page is None:
        return []
    if page.stale is None:
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


def _sentence(page: PageRecord, at: datetime | None, applied: bool) -> str:
    if not page.cells:
        return "The page's annual tables show none of these KPIs in these years, neither now nor after this plan."
    computed = [datetime.fromisoformat(section.computed_at) for section in page.sections if section.computed_at]
    when = _when(min(computed), at) if computed else "as the stored rows say"
    changing = sum(cell.changes for cell in page.cells)
    cells = count(changing, "cell") if changing else "no cell"
    if applied and page.planned:
        return f"On the page before ({when}) → with this run's rows: {cells} change{'s' * (changing < 2)}."
    then = "after this plan" if page.planned else "once the dashboard computes it again"
    return f"On the page now ({when}) → {then}: {cells} would change."


def _when(computed: datetime, at: datetime | None) -> str:
    if at is None:
        return f"computed {computed.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"computed {ago(at - computed)}"


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
        else "cron brings the new ones when it runs next"
    )
