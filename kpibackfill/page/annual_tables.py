"""Which stored rows the page's annual tables show, and what each cell shows now and after a change.

The page reads the annual rows of snapshots of any definition and source, in the order of their dates, and labels them
with the year of the date: a later one replaces an earlier one of the same year. Rows of test snapshots are skipped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from kpibackfill.database.image import RowKey
from kpibackfill.numbers import same

Shown = Literal["shown", "behind", "test", "outside", "live"]
"""What becomes of a row: it shows, or it is behind a later snapshot of its year, in a test snapshot, outside the page's
years, or replaced by live numbers."""
Period = tuple[int | None, int | None]
"""The year and the month that a row is stored with."""
NowFrom = Literal["payload", "target", "rows", "live"]


@dataclass(frozen=True, slots=True)
class Showing:
    """A value in an annual table, and whether it is ``actual``, ``actual_ytd`` or a ``target``."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Section:
    """A section's page: when it was computed and expires (aware; ``None`` if unknown), and its annual values by year.

    An expired section is still shown, until cron or ``drush msd:kpi-warm`` computes it again.
    """

    name: str
    computed_at: datetime | None
    expires_at: datetime | None
    annual: Mapping[str, Mapping[int, Showing]]
    """By the KPI's id as the page reads it."""


@dataclass(frozen=True, slots=True)
class Payload:
    """The sections that could be read, and notes about those that could not."""

    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def kpi_ids(self) -> frozenset[str]:
        return frozenset(name for section in self.sections for name in section.annual)

    def of(self, stored_id: str) -> list[Section]:
        """The sections with that KPI, the most recently computed first."""
        found = [section for section in self.sections if stored_id in section.annual]
        return sorted(found, key=lambda section: section.computed_at or datetime.min.replace(tzinfo=UTC), reverse=True)


@dataclass(frozen=True, slots=True)
class IdPrefix:
    """The prefix, and the sentence that says what tells it.

    `known` is off where nothing does, and the prefix is assumed for reading only. `shown` is the prefix of these KPIs
    in the dashboard's payload, ``None`` where it has none of them: rows under other ids show on no page.
    """

    text: str
    evidence: str
    known: bool = True
    shown: str | None = None

    @property
    def is_read(self) -> bool:
        return self.shown in (None, self.text)

    def removed(self, stored_ids: Iterable[str]) -> set[str]:
        """The registry's ids of those stored ids that begin with the prefix."""
        return {name.removeprefix(self.text) for name in stored_ids if name.startswith(self.text)}


@dataclass(frozen=True, slots=True)
class AnnualRow:
    """A row of the fact table, by the registry's KPI id, and what of its snapshot the page goes by."""

    snapshot_id: int
    kpi_id: str
    date: str
    annual: bool
    test: bool
    value: float

    @property
    def key(self) -> RowKey:
        return self.snapshot_id, self.kpi_id

    @property
    def cell(self) -> tuple[str, int]:
        return self.kpi_id, int(self.date[:4])


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of an annual table, as it is now and as it will be.

    `now` and `after` have no value, one, or several where rows of the same date differ: the page shows one of those.
    """

    kpi_id: str
    year: int
    now: tuple[float, ...]
    now_from: NowFrom
    after: tuple[float, ...]
    snapshots: tuple[int, ...]
    """Whose row shows after the change."""

    @property
    def changes(self) -> bool:
        return self.now_from != "live" and not _agree(self.now, self.after)


@dataclass(frozen=True, slots=True)
class StaleCell:
    """A cell in which a section's payload shows another number than the rows that win, if any."""

    kpi_id: str
    year: int
    section: Section
    keys: tuple[RowKey, ...]


@dataclass(frozen=True)
class AnnualTables:
    """The rows that the annual tables choose from, by snapshot and KPI id, with what else decides what they show.

    `live` has the years that a KPI is counted live in; `snapshots` are those that rows may be added to.
    """

    years: range
    live: Mapping[str, range]
    prefix: IdPrefix
    payload: Payload
    rows: Mapping[RowKey, AnnualRow]
    snapshots: Mapping[int, tuple[str, bool, bool]]

    def changed(self, rows: Iterable[tuple[RowKey, float | None, Period]]) -> AnnualTables:
        """The tables once these values are stored in the `snapshots`, or once rows without a value are deleted.

        A row with a year and no month is annual, whatever its snapshot is.
        """
        after = dict(self.rows)
        for key, value, (year, month) in rows:
            if value is None or key[0] not in self.snapshots:
                after.pop(key, None)
            else:
                date, annual, test = self.snapshots[key[0]]
                after[key] = AnnualRow(*key, date, annual or bool(year and not month), test, value)
        return replace(self, rows=after)

    @cached_property
    def winning(self) -> Mapping[tuple[str, int], Sequence[AnnualRow]]:
        """The rows that win each cell: several where their dates are the same, of which the page shows one."""
        found: dict[tuple[str, int], list[AnnualRow]] = {}
        for row in self.rows.values():
            if not row.annual or row.test or not self.prefix.is_read:
                continue
            others = found.setdefault(row.cell, [])
            if others and row.date > others[0].date:
                others.clear()
            if not others or row.date == others[0].date:
                others.append(row)
        return found

    def sections(self, kpi_id: str) -> list[Section]:
        """The sections with that KPI, the most recently computed first."""
        return self.payload.of(self.prefix.text + kpi_id)

    def is_live(self, kpi_id: str, year: int) -> bool:
        return year in self.live.get(kpi_id, ())

    def shown(self, key: RowKey) -> Shown | None:
        """What becomes of a row; ``None`` if there is no such row, or none that an annual table reads."""
        row = self.rows.get(key)
        if row is None or not row.annual or not self.prefix.is_read:
            return None
        _, year = row.cell
        if row.test:
            return "test"
        if year not in self.years:
            return "outside"
        if self.is_live(row.kpi_id, year):
            return "live"
        return "shown" if row.date == self.winning[row.cell][0].date else "behind"

    def others_shown(self, key: RowKey) -> list[int]:
        """The other snapshots whose rows win, or may win, the cell of a row."""
        row = self.rows[key]
        return [other.snapshot_id for other in self.winning.get(row.cell, ()) if other.key != key]

    def cells(self, kpi_ids: Iterable[str], years: Iterable[int], after: AnnualTables) -> Iterator[Cell]:
        """The cells that show anything, now or `after` a change, in the order of the KPIs."""
        within = [year for year in years if year in self.years]
        for kpi_id in kpi_ids:
            sections = self.sections(kpi_id)
            for year in within:
                rows = after.winning.get((kpi_id, year), ())
                now, now_from = self._now(kpi_id, year, sections)
                cell = Cell(kpi_id, year, now, now_from, _values(rows), tuple(row.snapshot_id for row in rows))
                if cell.now_from == "live":
                    cell = replace(cell, after=cell.now, snapshots=())
                elif cell.now_from == "target" and not rows:
                    cell = replace(cell, after=cell.now)
                if cell.now or cell.after:
                    yield cell

    def _now(self, kpi_id: str, year: int, sections: Sequence[Section]) -> tuple[tuple[float, ...], NowFrom]:
        showing = sections[0].annual[self.prefix.text + kpi_id].get(year) if sections else None
        now = () if showing is None else (showing.value,)
        if self.is_live(kpi_id, year):
            return now, "live"
        if showing is not None and showing.source == "target":
            return now, "target"
        return (now, "payload") if sections else (_values(self.winning.get((kpi_id, year), ())), "rows")

    def stale(self, kpi_ids: Iterable[str]) -> Iterator[StaleCell]:
        """The cells in which the payload of a section shows other numbers than the rows."""
        for kpi_id in kpi_ids:
            for section in self.sections(kpi_id):
                for year in self.years:
                    showing = section.annual[self.prefix.text + kpi_id].get(year)
                    rows = self.winning.get((kpi_id, year), ())
                    # Without a row, a year may show a target or a number of the year so far, which no row is behind.
                    expected = bool(rows) or (showing is not None and showing.source == "actual")
                    shown = () if showing is None else (showing.value,)
                    if expected and not self.is_live(kpi_id, year) and not _agree(shown, _values(rows)):
                        yield StaleCell(kpi_id, year, section, tuple(row.key for row in rows))


def is_annual(snapshot_type: str) -> bool:
    """Whether the page takes a snapshot's rows for annual ones."""
    return "annual" in snapshot_type.lower()


def _values(rows: Iterable[AnnualRow]) -> tuple[float, ...]:
    """The different values of these rows."""
    return tuple(dict.fromkeys(row.value for row in rows))


def _agree(one: Collection[float], other: Collection[float]) -> bool:
    """Whether a cell looks the same: PHP reads a 4-byte number as its first six digits."""
    if not one or not other:
        return not one and not other
    return any(same(a, b) or f"{a:.6g}" == f"{b:.6g}" for a in one for b in other)
