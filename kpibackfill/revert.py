"""How a run is undone: each row that it wrote is restored, unless someone has changed it since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from kpibackfill.archive.changes import after_image
from kpibackfill.archive.models import PlanRow, Receipt
from kpibackfill.archive.plan_file import read_plan
from kpibackfill.archive.run_record import PLAN, RunRecord
from kpibackfill.config import Config
from kpibackfill.database import fact_table
from kpibackfill.database.image import Image, RowKey
from kpibackfill.errors import Refused
from kpibackfill.lifecycle import settle
from kpibackfill.parameters import DEFAULTS

# A revert covers the years and KPIs of the run that it reverts.
INHERITED = ("from_year", "to_year", "snapshot_types", "kpis", "include_risky")


@dataclass(frozen=True, repr=False)
class Reverted:
    """The rows that a run wrote, each with the image that it left, and what is stored under their keys now."""

    written: tuple[tuple[PlanRow, Image | None], ...]
    current: Mapping[RowKey, Image]
    snapshots: frozenset[int]


def inherit(values: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The parameters of a revert, with years, types and KPIs of the run to revert.

    Raises
    ------
    Refused : there is no such run, it wrote nothing or to another target, or a parameter contradicts it.
    """
    run_id = values["revert_of"]
    archived = dict(written_by(config, run_id).parameters)
    target = values.get("target", DEFAULTS["target"])
    if archived["target"] != target:
        raise Refused(
            f"{run_id} wrote to {archived['target']}, not to {target}; nothing was written. "
            f"Set target to {archived['target']}.",
            code="revert",
        )
    for name in INHERITED:
        value = values.get(name, DEFAULTS[name])
        if isinstance(value, (list, tuple)):
            value = ",".join(map(str, value))
        if value not in (DEFAULTS[name], archived[name]):
            raise Refused(
                f"A revert of {run_id} uses that run's {name}, {archived[name]!r}, not {value!r}; nothing was written. "
                f"Leave {name} out.",
                code="revert",
            )
    return {**values, **{name: archived[name] for name in INHERITED}}


def written_by(config: Config, run_id: Any) -> Receipt:
    """The receipt of a run that wrote something, as it says itself or as it was settled."""
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
            f"Nobody can tell whether {run_id} wrote: its rows have changed since. Nothing was written; set values "
            "with a decisions file.",
            code="revert",
        )
    if state == "applied":
        record.require_unaltered()  # its before-images are what a revert restores
    if state != "applied" or not (receipt.plan and receipt.plan.rows):
        raise Refused(f"{run_id} wrote nothing, so there is nothing to revert; nothing was written.", code="revert")
    return receipt


def read(connection: Connection, fact: fact_table.Layout, config: Config, run_id: str) -> Reverted:
    """What the run to revert wrote, and what is stored now."""
    document = read_plan(RunRecord(config.runs_dir, run_id).folder / PLAN)
    rows = document.rows
    return Reverted(
        tuple((row, after_image(row, run_id, document.fingerprint)) for row in rows),
        fact_table.locked_rows(connection, fact, [row.key for row in rows], hold=False),
        frozenset(fact_table.present_snapshots(connection, {row.snapshot_id for row in rows}, hold=False)),
    )
