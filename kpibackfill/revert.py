"""How a run is undone: what it wrote, put back row by row as it was before, where nobody changed it since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection

from kpibackfill.database import store
from kpibackfill.database.store import Image
from kpibackfill.errors import Refused
from kpibackfill.record import settle
from kpibackfill.record.receipt import PLAN, RunRecord

if TYPE_CHECKING:
    from kpibackfill.config import Config
    from kpibackfill.deciding import Proposal, Proposed
    from kpibackfill.plan import PlanRow
    from kpibackfill.run import Run

Key = tuple[int, str]
# A revert shows the years and KPIs of the run that it reverts.
INHERITED = ("from_year", "to_year", "snapshot_types", "kpis", "include_risky")


@dataclass(frozen=True, repr=False)
class Reverted:
    """The rows that a run wrote, each with the image that it left, and what is stored at their keys now."""

    written: tuple[tuple[PlanRow, Image | None], ...]
    current: Mapping[Key, Image]
    snapshots: frozenset[int]


def inherit(values: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The parameters of a revert: years, types and KPIs are those of the run to revert.

    Raises
    ------
    Refused : there is no such run, it wrote nothing, or to another target; or a parameter says something else.
    """
    from kpibackfill.parameters import DEFAULTS

    run_id = values["revert_of"]
    receipt = written_by(config, run_id)
    archived = receipt["parameters"]
    target = values.get("target", DEFAULTS["target"])
    if archived["target"] != target:
        raise Refused(
            f"{run_id} wrote to {archived['target']}, not to {target}; nothing was written. "
            f"Give target {archived['target']}.",
            code="revert",
        )
    for name in INHERITED:
        value = values.get(name, DEFAULTS[name])
        if isinstance(value, (list, tuple)):
            value = ",".join(map(str, value))
        if value not in (DEFAULTS[name], archived[name]):
            raise Refused(
                f"A revert of {run_id} takes its {name}, {archived[name]!r}, not {value!r}; nothing was written. "
                f"Leave {name} out.",
                code="revert",
            )
    return {**values, **{name: archived[name] for name in INHERITED}}


def written_by(config: Config, run_id: Any) -> dict[str, Any]:
    """The receipt of a run that wrote something, by its own word or as it was settled."""
    if not isinstance(run_id, str):
        raise Refused(f"revert_of must be a run id, not {run_id!r}. Nothing was read or written.", code="parameter")
    record = RunRecord(config.runs_dir, run_id.strip())
    receipt = record.receipt
    state = settle.state_of(record)
    if state == "applying":
        raise Refused(
            f"It is unknown whether {run_id} wrote; nothing was written now. `kpibackfill settle {run_id}` finds out.",
            code="unsettled",
        )
    if state == "changed_since":
        raise Refused(
            f"Nobody can tell whether {run_id} wrote: its rows were changed since. Nothing was written; "
            "set values by a decisions file.",
            code="revert",
        )
    if state != "applied" or not receipt["plan"]["rows"]:
        raise Refused(f"{run_id} wrote nothing, so there is nothing to revert; nothing was written.", code="revert")
    return receipt


def read(connection: Connection, fact: store.Layout, run: Run) -> Reverted | None:
    """What the run to revert wrote, and what is there now; ``None`` where the run is no revert."""
    from kpibackfill.apply import after_image
    from kpibackfill.plan import read_plan, row_of

    run_id = run.parameters.revert_of
    if not run_id:
        return None
    document = read_plan(RunRecord(run.config.runs_dir, run_id).folder / PLAN)
    rows = [row_of(row) for row in document["rows"]]
    return Reverted(
        tuple((row, after_image(row, run_id, document["fingerprint"])) for row in rows),
        store.locked_rows(connection, fact, [(row.snapshot_id, row.kpi_id) for row in rows], hold=False),
        frozenset(store.present_snapshots(connection, {row.snapshot_id for row in rows}, hold=False)),
    )


def proposed(run: Run, reverted: Reverted) -> Proposed:
    """The rows to put back; those that somebody changed since are left alone unless a decision names them."""
    from kpibackfill.deciding import Proposed

    proposals: list[Proposal] = []
    settled: set[Key] = set()
    gone, changed = [], []
    for row, left in reverted.written:
        key = (row.snapshot_id, row.kpi_id)
        found = reverted.current.get(key)
        if is_image(found, row.before):
            settled.add((row.snapshot_id, row.kpi_id.removeprefix(run.site.kpi_id_prefix)))
        elif row.snapshot_id not in reverted.snapshots:
            gone.append(key)
        else:
            untouched = is_image(found, left)
            if not untouched:
                changed.append(key)
            proposals.append(_proposal(run, row, found, untouched))
    notes = []
    if changed:
        notes.append(
            f"Changed by somebody since {run.parameters.revert_of}, so left alone: {_some(changed)}. "
            "A decision “accept” puts a row back all the same."
        )
    if gone:
        notes.append(f"Left alone, since their snapshot is gone: {_some(gone)}.")
    if settled:
        notes.append(f"{len(settled)} row{'s are' if len(settled) > 1 else ' is'} as before that run already.")
    return Proposed(tuple(proposals), frozenset(settled), tuple(notes))


def is_image(found: Image | None, image: Image | None) -> bool:
    """Whether what is stored is that image; a surrogate id that the database chose may be any."""
    if found is None or image is None:
        return found is image
    return found.equals(image if image.row_id is not None else replace(image, row_id=found.row_id))


def _proposal(run: Run, row: PlanRow, found: Image | None, untouched: bool) -> Proposal:
    from kpibackfill.deciding import Proposal, numbers_of
    from kpibackfill.plan import PlanRow

    restore = row.before
    if restore is not None and found is not None:
        restore = replace(restore, row_id=found.row_id)  # a row that is there keeps its own surrogate id
    back = PlanRow(
        snapshot_id=row.snapshot_id,
        kpi_id=row.kpi_id,
        action="delete" if restore is None else "insert" if found is None else "update",
        value=None if restore is None else restore.metric_value,
        period_year=None if restore is None else restore.period_year,
        period_month=None if restore is None else restore.period_month,
        year=row.year,
        basis=row.basis,
        population=row.population,
        before=found,
        restore=restore,
        origin="revert",
    )
    kpi_id = row.kpi_id.removeprefix(run.site.kpi_id_prefix)
    status = "put back" if untouched else "changed since"
    return Proposal(back, kpi_id, status, "", untouched, numbers_of(run, back))


def _some(keys: Iterable[Key]) -> str:
    named = [f"({snapshot_id}, {kpi_id})" for snapshot_id, kpi_id in keys]
    return ", ".join(named[:20]) + (f" and {len(named) - 20} more" if len(named) > 20 else "")
