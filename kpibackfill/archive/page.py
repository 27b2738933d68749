"""Where a section of the dashboard still shows other numbers than the rows: as long as it may, or longer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Literal

from kpibackfill.archive.history import RecordedChange
from kpibackfill.archive.verify import IntegrityFinding
from kpibackfill.database.image import RowKey
from kpibackfill.page.annual_tables import AnnualTables, StaleCell
from kpibackfill.text import count, some

_Why = Literal["due", "expired", "recomputed"]


def behind(
    tables: AnnualTables, kpi_ids: Iterable[str], last: Mapping[RowKey, RecordedChange], now: datetime
) -> Iterator[tuple[IntegrityFinding, bool]]:
    """A line per section that shows other numbers than the rows, and whether it is only a note.

    It is one until the section expires, unless the section was computed after the rows were written.

    Parameters
    ----------
    kpi_ids : of all KPIs; those of recorded rows are added.
    last : the last recorded change of each row, by its key as stored.
    """
    every = tables.prefix.removed(stored_id for _, stored_id in last).union(kpi_ids)
    deleted: dict[tuple[str, int], list[RecordedChange]] = {}
    for change in last.values():
        if change.after is None:
            deleted.setdefault((change.kpi_id, change.year), []).append(change)
    found: dict[tuple[str, _Why], list[StaleCell]] = {}
    for stale in tables.stale(sorted(every)):
        stored_id = tables.prefix.text + stale.kpi_id
        changes = [*deleted.get((stored_id, stale.year), ())]
        changes += [last[key] for snapshot_id, _ in stale.keys if (key := (snapshot_id, stored_id)) in last]
        found.setdefault((stale.section.name, _why(stale, changes, now)), []).append(stale)
    for (section, why), cells in sorted(found.items()):
        named = some((f"{cell.year} {cell.kpi_id}" for cell in cells), 3)
        others = f"other numbers than the rows in {count(len(cells), 'cell')} ({named})"
        warm = f"drush msd:kpi-warm {section}"
        problem = {
            "due": f"still shows {others}; {warm} shows them at once",
            "expired": f"still shows {others}, although it has expired; {warm} shows them at once",
            "recomputed": f"shows {others}, although it was computed after they were written; "
            f"run drush cache:rebuild, then {warm}",
        }[why]
        yield IntegrityFinding(f"dashboard section {section}", problem), why == "due"
    for note in tables.payload.notes:
        yield IntegrityFinding("dashboard", note), True


def _why(stale: StaleCell, changes: Iterable[RecordedChange], now: datetime) -> _Why:
    computed, expires = stale.section.computed_at, stale.section.expires_at
    written = max((datetime.fromisoformat(change.at) for change in changes), default=None)
    if written and computed and computed > written:
        return "recomputed"
    # Where nobody can say until when it may be behind, it may not.
    return "due" if expires and now < expires else "expired"
