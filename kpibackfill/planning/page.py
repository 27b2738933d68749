"""What a plan does to the dashboard: the cells of its annual tables, before and after, for the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from kpibackfill.archive.models import DecisionLine, DriftRow, Fate, PageAfter, PageCell, PageRecord, PageSection
from kpibackfill.database.engine import reading
from kpibackfill.database.image import RowKey
from kpibackfill.numbers import too_few
from kpibackfill.page.annual_tables import AnnualTables, IdPrefix, Section
from kpibackfill.page.id_prefix import spelled
from kpibackfill.page.reading import read_page
from kpibackfill.run import Run
from kpibackfill.text import some


def page_record(
    run: Run,
    drifted: Sequence[DriftRow],
    tables: AnnualTables,
    after: AnnualTables,
    planned: Mapping[RowKey, float | None],
) -> PageRecord:
    """The cells of the plan's KPIs in the years of the target snapshots' dates, and what becomes of the `planned` rows.

    A cell of a year whose rate rests on too few people is withheld with both its numbers, whichever row it shows: the
    site may have stored the same rate in another snapshot of that year.
    """
    units = {entry.kpi_id: entry.unit for entry in run.kpis}
    kpi_ids = dict.fromkeys([*units, *(kpi_id for _, kpi_id in after.rows)])
    # A snapshot of another type may have rows that are annual, before or after.
    rows = (row for each in (tables, after) for row in each.rows.values() if row.snapshot_id in tables.snapshots)
    annual = {
        *(snapshot_id for snapshot_id, (_, annual, _) in tables.snapshots.items() if annual),
        *(row.snapshot_id for row in rows if row.annual),
    }
    years = sorted({int(tables.snapshots[snapshot_id][0][:4]) for snapshot_id in annual})
    few = {
        (row.kpi_id, int(row.snapshot_date[:4]))
        for row in drifted
        if row.snapshot_id in annual and row.computed is not None and too_few(units[row.kpi_id], row.basis)
    }
    cells = []
    for cell in tables.cells(kpi_ids, years, after):
        withheld = (cell.kpi_id, cell.year) in few
        cells.append(
            PageCell(
                kpi_id=cell.kpi_id,
                year=cell.year,
                now=() if withheld else cell.now,
                now_from=cell.now_from,
                after=() if withheld else cell.after,
                snapshots=cell.snapshots,
                changes=cell.changes,
                withheld=withheld or None,
            )
        )
    sections = {section.name: section for kpi_id in kpi_ids for section in tables.sections(kpi_id)}

    def fate(key: RowKey) -> Fate:
        return "removed" if planned[key] is None else after.shown(key) or "none"

    return PageRecord(
        cells=tuple(cells),
        sections=tuple(section_record(sections[name]) for name in sorted(sections)),
        planned=dict(sorted(Counter(map(fate, planned)).items())),
    )


def section_record(section: Section) -> PageSection:
    computed, expires = (
        None if at is None else at.isoformat(timespec="seconds") for at in (section.computed_at, section.expires_at)
    )
    return PageSection(name=section.name, computed_at=computed, expires_at=expires)


def hidden_decisions(decided: Iterable[DecisionLine], after: AnnualTables) -> Iterator[str]:
    """A note for each accepted or set row that is one of several of its year: which of them people will see."""
    for line in decided:
        shown = after.shown(line.key) if line.decision in ("accept", "set") else None
        others = some(after.others_shown(line.key)) if shown in ("shown", "behind") else ""
        row = f"The row of snapshot {line.snapshot_id} for {line.kpi_id} ({line.year})"
        if shown == "behind":
            yield f"{row} is behind a later one: people will see that of snapshot {others}."
        elif others:
            yield f"{row} has the date of another: people will see it, or that of snapshot {others}."


def page_after(run: Run, kpi_ids: Collection[str], prefix: IdPrefix) -> PageAfter:
    """Whether the page shows the rows of these KPIs; it never raises, since what is written stays so."""
    try:
        with reading(run.target.store_url, run.site) as connection:
            tables = read_page(connection, run.site, datetime.now(run.target.zone), kpi_ids, prefix)
    except Exception as error:  # noqa: BLE001 - see above
        note = f"What the page shows now could not be read ({type(error).__name__})."
        return PageAfter(stale=None, sections=(), note=note)
    if not prefix.is_read:
        note = f"The page shows none of these rows, since it reads KPI ids {spelled(prefix.shown or '')}."
        return PageAfter(stale=0, sections=(), note=note)
    state = page_state(tables, kpi_ids)
    if not state.sections and tables.payload.sections:
        return state.changed(note="The page that the dashboard stores has none of these KPIs.")
    return state.changed(stale=None) if state.note else state


def page_state(tables: AnnualTables, kpi_ids: Collection[str]) -> PageAfter:
    """Whether the page shows the rows of these KPIs, as far as its payload could be read."""
    stale = list(tables.stale(kpi_ids))
    found = [cell.section for cell in stale] or [each for kpi_id in kpi_ids for each in tables.sections(kpi_id)]
    sections = {section.name: section for section in found}
    return PageAfter(
        stale=len({(cell.kpi_id, cell.year) for cell in stale}),
        sections=tuple(section_record(sections[name]) for name in sorted(sections)),
        note=" ".join(tables.payload.notes) or None,
    )
