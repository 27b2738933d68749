"""Re-runs a past run: its archived parameters at the archived instant, as a dry run, and which numbers differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from kpibackfill.archive import files
from kpibackfill.archive.diff import DATA, DEFINITION, SETTINGS, UNKNOWN, RunDifference, compare_receipts
from kpibackfill.archive.models import DriftRow, Receipt
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.config import Config
from kpibackfill.database.image import RowKey
from kpibackfill.errors import Refused
from kpibackfill.execution.papermill import run_notebook
from kpibackfill.numbers import FEW, amount, too_few
from kpibackfill.reporting.terminal import table
from kpibackfill.text import count, one_line

# The settings by which a run finds its snapshots.
_FINDING = ("definition", "dated")
Numbers = tuple[float | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class ReplayedRow:
    """A row whose `computed`, `basis` or `population` differs, as pairs of then and now; ``None`` for none.

    `why` is ``source data``, ``definition``, ``code`` (or ``source data and`` one of these), ``parameters or
    settings`` or ``cannot tell``.
    """

    snapshot_id: int
    kpi_id: str
    year: int
    computed: tuple[float | None, float | None]
    basis: tuple[int | None, int | None]
    population: tuple[int | None, int | None]
    why: str


@dataclass(frozen=True, repr=False)
class Replay:
    """What a replay showed: the rows whose numbers differ, and everything that differs between the two runs."""

    run_id: str
    replayed_by: str
    compared: int
    rows: tuple[ReplayedRow, ...]
    difference: RunDifference

    @property
    def same(self) -> bool:
        return not self.rows

    def frame(self) -> pd.DataFrame:
        """The differing rows: `snapshot_id`, `kpi_id`, `year`, `then` and `now` (float), `why`."""
        found = [(row.snapshot_id, row.kpi_id, row.year, *row.computed, row.why) for row in self.rows]
        columns = ["snapshot_id", "kpi_id", "year", "then", "now", "why"]
        return pd.DataFrame(found, columns=columns).astype({"then": "float64", "now": "float64"})

    def rows_as_json(self) -> list[dict[str, Any]]:
        return [asdict(row) | {"computed": [files.number(value) for value in row.computed]} for row in self.rows]

    def __repr__(self) -> str:
        rows = count(self.compared, "row")
        if self.same:
            return f"Same numbers as {self.run_id}: {rows} compared."
        why = ", ".join(dict.fromkeys(row.why for row in self.rows))
        return f"Different numbers from {self.run_id} in {len(self.rows):,} of {rows}: {why}."


def replay(config: Config, run_id: str, progress: Callable[[str], None] | None = None) -> Replay:
    """Execute a run's archived parameters as a dry run, as of its own instant, and compare the numbers.

    Raises
    ------
    Refused : there is no such run, it computed nothing, or its files were altered.
    """
    record = RunRecord(config.runs_dir, run_id)
    before = record.receipt
    if not before.computed:
        raise Refused(f"{run_id} ended before it computed anything; there is nothing to replay.", code="replay")
    record.require_unaltered()
    values = dict(before.parameters) | {
        "apply": False,
        "approved_plan": "",
        # Neither affects what is computed, and decisions on numbers that differ by now would be refused.
        "decisions": "",
        "revert_of": "",
        "reason": f"Replay of {run_id}",
        "operator": "",
    }
    return compare(before, run_notebook(values, config, progress).record.receipt)


def text(found: Replay) -> str:
    """What a replay showed, for people; a rate based on too few people is withheld."""
    units = found.difference.units
    rows = [
        (
            row.year,
            row.snapshot_id,
            row.kpi_id,
            *(
                FEW if too_few(units[row.kpi_id], basis) else amount(value, units[row.kpi_id])
                for value, basis in zip(row.computed, row.basis, strict=True)
            ),
            row.why,
        )
        for row in found.rows
    ]
    heads = ["year", "snapshot", "KPI", "then", "now", "why"]
    lines = ["", *table(heads, rows, right=(1, 3, 4))] if rows else []
    if rows and found.difference.settings:
        pairs = found.difference.settings.items()
        named = (f"{name}, {then} then and {now} now" for name, (then, now) in pairs)
        lines += ["", one_line(f"Settings that differ: {'; '.join(named)}.")]
    return "\n".join([repr(found), *lines])


def compare(before: Receipt, after: Receipt) -> Replay:
    """Compare the receipts of a run and of its replay number by number, to the last digit."""
    difference = compare_receipts(before.changed(parameters=after.parameters), after)
    then, now = ({row.key: row for row in receipt.rows} for receipt in (before, after))
    keys = list(dict.fromkeys([*then, *now]))
    rows = tuple(_differing(keys, then, now, difference))
    return Replay(before.run_id, after.run_id, len(keys), rows, difference)


def _differing(
    keys: Sequence[RowKey], then: dict[RowKey, DriftRow], now: dict[RowKey, DriftRow], difference: RunDifference
) -> Iterator[ReplayedRow]:
    for key in keys:
        earlier, later = then.get(key), now.get(key)
        row = earlier or later
        assert row is not None
        first, second = _numbers(earlier), _numbers(later)
        # NaN does not equal itself; its text does.
        if earlier and later and repr(first) == repr(second):
            continue
        if row.kpi_id not in difference.kpis:
            why = DEFINITION  # only one of the runs has the KPI
        else:
            why = difference.kpis[row.kpi_id].why if earlier and later else _why_one_sided(difference)
        yield ReplayedRow(*key, row.year, (first[0], second[0]), (first[1], second[1]), (first[2], second[2]), why)


def _numbers(row: DriftRow | None) -> Numbers:
    return (None, None, None) if row is None else (row.computed, row.basis, row.population)


def _why_one_sided(difference: RunDifference) -> str:
    """Why only one of the runs found a snapshot: other data, if it can't be anything else."""
    if any(name in difference.settings for name in _FINDING):
        return SETTINGS
    return UNKNOWN if difference.settings or not difference.code.same else DATA
