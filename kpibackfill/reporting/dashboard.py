"""The dashboard's page next to the stored rows, as a value of a notebook, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd

from kpibackfill.archive import files
from kpibackfill.archive.models import PageAfter, PageSection
from kpibackfill.kpis.registry import Kpi
from kpibackfill.numbers import FEW, NONE, amount
from kpibackfill.page.annual_tables import AnnualTables, Section
from kpibackfill.reporting import markup
from kpibackfill.reporting.page_table import ago, page_after_sentence
from kpibackfill.reporting.terminal import table

DIFFERS, MISSING = "computed differs", "nothing stored"
MARKS = ("≠", "+")
"""Of a cell whose numbers differ, and of one that lacks a row."""
_SOURCES = {"actual_ytd": " (so far)", "target": " (target)", "live": " (live)"}


class Cell(NamedTuple):
    """A KPI in a column of the page, as `Dashboard.frame` documents it."""

    kpi_id: str
    year: int
    page: float | None
    page_source: str
    stored: float | None
    snapshot_id: int | None
    computed: float | None
    agrees: bool | None
    section: str
    withheld: bool
    remark: str

    @property
    def mark(self) -> str:
        return MARKS[self.remark == MISSING] if self.remark else ""

    @property
    def only_target(self) -> bool:
        return self.page_source == "target" and not self.remark and self.stored is self.computed is None


@dataclass(frozen=True, repr=False, eq=False)
class Dashboard:
    """What ``dashboard`` returns; as the last expression of a notebook's cell, a table.

    Attributes
    ----------
    target, as_of : what was requested.
    cells : by KPI and year, what is on the page, stored and computed.
    state : in how many cells the page shows other numbers than the rows, and the sections concerned.
    sentence, notes : about the page as a whole.
    commands : what to do next, in this order; empty where everything agrees.
    """

    target: str
    as_of: datetime
    cells: tuple[Cell, ...]
    state: PageAfter
    sentence: str
    notes: tuple[str, ...]
    commands: tuple[str, ...]
    _kpis: Mapping[str, Kpi]
    _computed: bool

    @property
    def agrees(self) -> bool:
        """Whether the page shows the rows wherever it is known what it shows."""
        return not self.state.stale

    def frame(self) -> pd.DataFrame:
        """The cells that show or lack anything, in the order of the KPIs.

        Returns
        -------
        DataFrame, a row per KPI and year, or several where rows of the same date may show: `kpi_id` (as in the
        registry), `year` (int: the page's column), `page` (float: what the page shows, NaN for nothing), `page_source`
        (``actual``, ``actual_ytd``, ``target``, ``live`` or empty), `stored` (float: the row that shows, NaN for none),
        `snapshot_id` (Int64: whose row that is), `computed` (float, NaN for none or if it was not asked for), `agrees`
        (boolean: whether the page shows the row; missing where that is not known or the page counts live), `section`
        (where `page` was read), `withheld` (bool: a rate of fewer than five people, whose numbers are left out),
        `remark` (such as ``education is behind``, ``computed differs``, ``nothing stored``; or empty).
        """
        frame = pd.DataFrame(self.cells, columns=list(Cell._fields))
        types = {"year": "int64", "snapshot_id": "Int64", "agrees": "boolean", "withheld": "bool"}
        return frame.astype(types | dict.fromkeys(("page", "stored", "computed"), "float64"))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        cells = [
            cell._asdict() | {name: files.number(getattr(cell, name)) for name in ("page", "stored", "computed")}
            for cell in self.cells
        ]
        return {
            "target": self.target,
            "as_of": self.as_of.isoformat(),
            "agrees": self.agrees,
            "sections": [section.as_json() for section in self.state.sections],
            "cells": cells,
            "notes": [self.sentence, *self.notes],
            "next": list(self.commands),
        }

    def __repr__(self) -> str:
        rows = [(mark, *texts) for mark, texts in self._rows()]
        heads = ["", *self._heads()]
        lines = ["", *table(heads, rows, right=range(3, len(heads) - 1)), ""] if rows else []
        where = {True: "Next", False: "Next, where the site is"}
        commands = [f"{where[command.startswith('kpibackfill')]}: {command}" for command in self.commands]
        return "\n".join([self.sentence, *lines, *self.notes, *commands])

    def _repr_html_(self) -> str:
        return markup.render(
            "dashboard",
            sentence=self.sentence,
            heads=self._heads(),
            rows=self._rows(),
            notes=self.notes,
            commands=self.commands,
        )

    def _heads(self) -> list[str]:
        return ["KPI", "Year", "On the page", "Stored", "Snapshot", *(["Computed"] if self._computed else []), ""]

    def _rows(self) -> list[tuple[str, list[str]]]:
        """Marks and texts, those that need attention first; years that have only targets are put together."""
        groups = groupby(self.cells, lambda cell: (cell.kpi_id, cell.only_target or (cell.year, cell.snapshot_id)))
        rows = [self._row(list(group)) for _, group in groups]
        return sorted(rows, key=lambda row: (*MARKS, "").index(row[0]))

    def _row(self, cells: Sequence[Cell]) -> tuple[str, list[str]]:
        first, last = cells[0], cells[-1]
        kpi = self._kpis.get(first.kpi_id)

        def text(value: float | None, there: bool = True) -> str:
            return FEW if first.withheld and there else amount(value, kpi.unit if kpi else None)

        page = dict.fromkeys(text(cell.page, cell.page_source != "") for cell in (first, last))
        return first.mark, [
            kpi.label if kpi else first.kpi_id,
            "–".join(dict.fromkeys((str(first.year), str(last.year)))),
            " to ".join(page) + _SOURCES.get(first.page_source, ""),
            text(first.stored, first.snapshot_id is not None),
            NONE if first.snapshot_id is None else str(first.snapshot_id),
            *([text(first.computed)] if self._computed else []),
            first.remark,
        ]


def page_sentence(tables: AnnualTables, state: PageAfter, now: datetime) -> str:
    """Whether the page shows the rows, and how old it is."""
    if not tables.years:
        return "The annual tables have no columns for these years."
    if not state.sections and tables.payload.notes:
        return "What the page shows now is not known."
    if not state.sections and tables.payload.sections:
        return "The page that the dashboard stores has none of these KPIs."
    ages: dict[str, list[str]] = {}
    for section in state.sections:
        ages.setdefault(_age(section, now), []).append(section.name)
    listed = "; ".join(f"{', '.join(names)}: {age}" for age, names in ages.items())
    return f"{page_after_sentence(state, now)}{f' {listed}.' if listed else ''}"


def behind_remark(sections: Sequence[Section]) -> str:
    """``education is behind``; empty without sections."""
    names = [section.name for section in sections]
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} behind" if names else ""


def _age(section: PageSection, now: datetime) -> str:
    computed, expires = (at and datetime.fromisoformat(at) for at in (section.computed_at, section.expires_at))
    since = f"computed {ago(now - computed)}" if computed else "computed at an unknown time"
    return f"{since}, expired" if expires and expires <= now else since
