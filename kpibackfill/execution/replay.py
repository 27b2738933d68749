"""A run asked again: the archived parameters at the archived instant, as a dry run, and what came out otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kpibackfill.archive.diff import DATA, DEFINITION, SETTINGS, UNTOLD, compare_receipts
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.archive.vouching import refuse_altered
from kpibackfill.errors import Refused
from kpibackfill.numbers import FEW, amount, too_few
from kpibackfill.text import one_line

if TYPE_CHECKING:
    import pandas as pd

    from kpibackfill.config import Config

NUMBERS = ("computed", "basis", "population")
# The settings by which a run finds its snapshots.
_FINDING = ("definition", "dated")


@dataclass(frozen=True, repr=False)
class Replay:
    """What a replay gave.

    `rows` are those whose numbers differ, each a dict with `snapshot_id`, `kpi_id`, `year`, the pairs `computed`,
    `basis`, `population` (then and now; ``None`` for none), and `why`: ``source data``, ``definition``, ``code`` (or
    ``source data and`` one of these), ``parameters or settings`` or ``cannot tell``. `document` is all that differs
    between the two runs.
    """

    run_id: str
    replayed_by: str
    compared: int
    rows: tuple[Mapping[str, Any], ...]
    document: Mapping[str, Any]
    units: Mapping[str, Any]

    @property
    def same(self) -> bool:
        return not self.rows

    def frame(self) -> pd.DataFrame:
        """The differing rows: `snapshot_id`, `kpi_id`, `year`, `then` and `now` (float), `why`."""
        import pandas as pd

        told = [(r["snapshot_id"], r["kpi_id"], r["year"], *r["computed"], r["why"]) for r in self.rows]
        columns = ["snapshot_id", "kpi_id", "year", "then", "now", "why"]
        return pd.DataFrame(told, columns=columns).astype({"then": "float64", "now": "float64"})

    def __repr__(self) -> str:
        if self.same:
            return f"Same numbers: all {self.compared} are those of {self.run_id}."
        why = ", ".join(dict.fromkeys(str(row["why"]) for row in self.rows))
        return f"{len(self.rows)} of {self.compared} rows differ from those of {self.run_id}: {why}."


def replay(config: Config, run_id: str, progress: Callable[[str], None] | None = None) -> Replay:
    """Execute a run's archived parameters as a dry run, as of its own instant, and compare the numbers.

    Raises
    ------
    Refused : there is no such run, it computed nothing, or its files were altered.
    """
    from kpibackfill.execution.papermill import run_notebook

    record = RunRecord(config.runs_dir, run_id)
    before = record.receipt
    if "rows" not in before:
        raise Refused(f"{run_id} ended before it computed anything; there is nothing to replay.", code="replay")
    refuse_altered(record)
    values = before["parameters"] | {
        "apply": False,
        "approved_plan": "",
        # Neither bears on what is computed, and decisions on numbers that differ by now would be refused.
        "decisions": "",
        "revert_of": "",
        "reason": f"Replay of {run_id}",
        "operator": "",
    }
    return compare(before, run_notebook(values, config, progress).receipt)


def text(found: Replay) -> str:
    """What a replay found, for people; a rate that rests on too few is withheld."""
    from kpibackfill.reporting.run_summary import table

    rows = [
        (
            row["year"],
            row["snapshot_id"],
            row["kpi_id"],
            *(
                FEW if too_few(found.units[row["kpi_id"]], basis) else amount(value, found.units[row["kpi_id"]])
                for value, basis in zip(row["computed"], row["basis"], strict=True)
            ),
            row["why"],
        )
        for row in found.rows
    ]
    heads = ["year", "snapshot", "KPI", "then", "now", "why"]
    lines = ["", *table(heads, rows, right=(1, 3, 4))] if rows else []
    if rows and found.document["settings"]:
        named = (f"{name}, {then} then and {now} now" for name, (then, now) in found.document["settings"].items())
        lines += ["", one_line(f"Settings that differ: {'; '.join(named)}.")]
    return "\n".join([repr(found), *lines])


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Replay:
    """Two receipts of the same question, held against each other number by number, to the last digit."""
    document = compare_receipts({**before, "parameters": after["parameters"]}, after)
    sides = [{(row["snapshot_id"], row["kpi_id"]): row for row in receipt["rows"]} for receipt in (before, after)]
    keys = list(dict.fromkeys([*sides[0], *sides[1]]))
    rows = tuple(_differing(keys, sides, document))
    units = {entry["kpi_id"]: entry["unit"] for receipt in (after, before) for entry in receipt["kpis"]}
    return Replay(before["run_id"], after["run_id"], len(keys), rows, document, units)


def _differing(
    keys: list[tuple[int, str]],
    sides: list[dict[tuple[int, str], Mapping[str, Any]]],
    document: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    for key in keys:
        then, now = (side.get(key) for side in sides)
        row = then or now
        assert row is not None
        pairs = {name: [None if one is None else one[name] for one in (then, now)] for name in NUMBERS}
        if then and now and all(one == other for one, other in pairs.values()):
            continue
        if key[1] not in document["kpis"]:
            why = DEFINITION  # a KPI that only one has is another question
        else:
            why = document["kpis"][key[1]]["why"] if then and now else _why_one_sided(document)
        yield {"snapshot_id": key[0], "kpi_id": key[1], "year": row["year"], **pairs, "why": why}


def _why_one_sided(document: Mapping[str, Any]) -> str:
    """Why only one of the runs found a snapshot: other data, where nothing else can be it."""
    if any(name in document["settings"] for name in _FINDING):
        return SETTINGS
    return UNTOLD if document["settings"] or not document["code"]["same"] else DATA
