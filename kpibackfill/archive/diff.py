"""What differs between two runs, and why: the data, the KPI's definition, the code, or what was requested.

The reason follows from the fingerprints of what the queries returned. If the same SQL with the same bound values
returned another result, the data differ, and the definition or the code may differ too. If the SQL differs, nothing
can be said about the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from kpibackfill.archive.models import DriftRow, Keyed, KpiRecord, Number, Receipt, Record
from kpibackfill.archive.run_record import open_record
from kpibackfill.archive.runs import resolve_run
from kpibackfill.database.image import RowKey
from kpibackfill.numbers import Unit, same

# Why a row's computed value differs.
DATA, DEFINITION, CODE, SETTINGS, UNKNOWN = "source data", "definition", "code", "parameters or settings", "cannot tell"
# Parameters that do not change what a run computes.
_MARGINAL = ("apply", "approved_plan", "reason", "operator")
Same = Literal["same", "other"]
Pairs = dict[str, tuple[Any, Any]]


class CodeDifference(Record):
    """Whether both runs used the same code; commits, digests of the sources and modified files as pairs."""

    same: bool
    git_commit: tuple[str | None, str | None]
    sources_sha256: tuple[str, str]
    modified: tuple[tuple[str, ...], tuple[str, ...]]


class KpiDifference(Record):
    """Which parts of a KPI are the same in both runs, and why its values may differ."""

    definition: Same
    sql: Same
    bound_values: Same
    result: Literal["same", "other", "unknown"]
    """``unknown`` if the queries differ."""
    why: str


class RowDifference(Keyed):
    """A row that the two runs read or computed differently."""

    year: int
    computed: tuple[Number | None, Number | None]
    stored: tuple[Number | None, Number | None]
    status: tuple[str, str]
    basis: tuple[int | None, int | None]
    why: str


class RunDifference(Record):
    """What differs between two runs; pairs are by name, and only those that differ."""

    runs: tuple[str, str]
    parameters: Pairs
    settings: Pairs
    """Those of the site, and the target's time zone."""
    packages: Pairs
    databases: Pairs
    code: CodeDifference
    kpis: dict[str, KpiDifference]
    compared: int
    """How many rows both runs have."""
    rows: tuple[RowDifference, ...]
    only: tuple[tuple[Keyed, ...], tuple[Keyed, ...]]
    """The rows that only one of the runs has."""
    units: dict[str, Unit] = Field(exclude=True)


def compare_runs(runs_dir: Path, one: str, other: str) -> RunDifference:
    """Compare two runs, each named by its id, the beginning or end of it, or ``latest``.

    Raises
    ------
    Refused : a name fits no run or several, or a receipt was altered since it was archived.
    """
    first, second = (open_record(runs_dir, resolve_run(runs_dir, text)) for text in (one, other))
    for record in (first, second):
        if record.sealed:
            record.require_unaltered()
    return compare_receipts(first.receipt, second.receipt)


def compare_receipts(one: Receipt, other: Receipt) -> RunDifference:
    """Compare two runs by their receipts."""
    parameters = _pairs(dict(one.parameters), dict(other.parameters))
    settings = _pairs(_settings(one), _settings(other))
    same_code = one.code.sources_sha256 == other.code.sources_sha256
    asked_same = not settings and all(name in _MARGINAL for name in parameters)
    theirs = {kpi.kpi_id: kpi for kpi in other.kpis}
    shared_kpis = [kpi for kpi in one.kpis if kpi.kpi_id in theirs]
    kpis = {kpi.kpi_id: _kpi(kpi, theirs[kpi.kpi_id], same_code, asked_same) for kpi in shared_kpis}
    rows = [{row.key: row for row in receipt.rows} for receipt in (one, other)]
    shared = [key for key in rows[0] if key in rows[1]]
    return RunDifference(
        runs=(one.run_id, other.run_id),
        parameters=parameters,
        settings=settings,
        packages=_pairs(one.versions, other.versions),
        databases=_pairs(_databases(one), _databases(other)),
        code=CodeDifference(same=same_code, **_both(one.code, other.code, "git_commit", "sources_sha256", "modified")),
        kpis=kpis,
        compared=len(shared),
        rows=tuple(row for key in shared if (row := _row(rows[0][key], rows[1][key], kpis))),
        only=(_only(rows[0], rows[1]), _only(rows[1], rows[0])),
        units=one.units | other.units,
    )


def _only(mine: Mapping[RowKey, DriftRow], theirs: Mapping[RowKey, DriftRow]) -> tuple[Keyed, ...]:
    return tuple(Keyed(snapshot_id=key[0], kpi_id=key[1]) for key in mine if key not in theirs)


def _both(one: Record, other: Record, *names: str) -> Pairs:
    return {name: (getattr(one, name), getattr(other, name)) for name in names}


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> Pairs:
    names = [*one, *(name for name in other if name not in one)]
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def _settings(receipt: Receipt) -> dict[str, Any]:
    return {**receipt.site, "target.timezone": receipt.target.timezone}


def _databases(receipt: Receipt) -> dict[str, Any]:
    if receipt.databases is None:
        return {}
    sides = {"store": receipt.databases.store, "sources": receipt.databases.sources}
    return {f"{side} {name}": getattr(read, name) for side, read in sides.items() for name in ("url", "server")}


def _kpi(one: KpiRecord, other: KpiRecord, same_code: bool, asked_same: bool) -> KpiDifference:
    definition = one.source_sha256 == other.source_sha256
    sql, bound, result = (
        [getattr(query, name) for query in one.queries] == [getattr(query, name) for query in other.queries]
        for name in ("sql", "parameters", "fingerprint")
    )
    ours = DEFINITION if not definition else "" if same_code else CODE
    if sql and bound:
        # Both runs sent the same query, so its result shows whether the data are the same.
        why = " and ".join(filter(None, ["" if result else DATA, ours])) or (UNKNOWN if asked_same else SETTINGS)
    else:
        why = UNKNOWN if ours or asked_same else SETTINGS
    words = {"definition": definition, "sql": sql, "bound_values": bound, "result": result}
    same_or_other: dict[str, Any] = {name: "same" if equal else "other" for name, equal in words.items()}
    return KpiDifference(**same_or_other | ({} if sql and bound else {"result": "unknown"}), why=why)


def _row(one: DriftRow, other: DriftRow, kpis: Mapping[str, KpiDifference]) -> RowDifference | None:
    """What differs between the two readings of a row; ``None`` if nothing does."""
    computed = _equal(one.computed, other.computed)
    stored = _equal(one.stored, other.stored)
    if computed and stored and one.status == other.status:
        return None
    why = [] if computed else [kpis[one.kpi_id].why]
    if not stored:
        why.append("the stored row")
    return RowDifference(
        snapshot_id=one.snapshot_id,
        kpi_id=one.kpi_id,
        year=one.year,
        **_both(one, other, "computed", "stored", "status", "basis"),
        why=" and ".join(why) or "the stored row's period",
    )


def _equal(one: float | None, other: float | None) -> bool:
    return one is other if one is None or other is None else same(one, other)
