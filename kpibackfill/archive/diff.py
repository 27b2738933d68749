"""What differs between two runs, and why: the data, the KPI's definition, the code, or what was asked for.

The reason is taken from the fingerprints of what the queries returned: the same SQL with the same bound values and
another result is other data, and with another definition or code both; where the SQL is another one, nothing can be
said of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kpibackfill.archive import runs as runs_on_record
from kpibackfill.archive.run_record import open_record
from kpibackfill.archive.vouching import refuse_altered
from kpibackfill.numbers import same

# Why a row's computed value differs.
DATA, DEFINITION, CODE, SETTINGS, UNTOLD = "source data", "definition", "code", "parameters or settings", "cannot tell"
# Parameters that two runs need not share to be the same question.
_MARGINAL = ("apply", "approved_plan", "reason", "operator")


def compare_runs(runs_dir: Path, one: str, other: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `compare_receipts`, of runs by their ids, the beginnings or ends of them, or ``latest``; and each KPI's unit.

    Raises
    ------
    Refused : there is no such run, there are several, or a receipt was altered since it was archived.
    """
    records = [open_record(runs_dir, runs_on_record.resolve_run(runs_dir, text)) for text in (one, other)]
    for record in records:
        if record.sealed:
            refuse_altered(record)
    receipts = [record.receipt for record in records]
    units = {entry["kpi_id"]: entry["unit"] for receipt in receipts for entry in receipt.get("kpis", [])}
    return compare_receipts(*receipts), units


def compare_receipts(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two runs by their receipts.

    Returns
    -------
    A dict with

    - ``runs``: both ids; ``compared``: how many rows are in both
    - ``parameters``, ``settings`` (the site's, and the target's time zone), ``packages``, ``databases``: by name the
      pair of values, differing ones only
    - ``code``: ``same``, and the pairs of commits, sources' digests and lists of modified files
    - ``kpis``: per KPI in both ``definition``, ``sql``, ``bound_values`` and ``result`` as ``same`` or ``other``
      (`result` is ``unknown`` where not the same was asked), and ``why`` its values would differ
    - ``rows``: the differing ones, each with `snapshot_id`, `kpi_id`, `year`, the pairs `computed`, `stored`,
      `status`, `basis`, and `why`; ``only``: the keys of rows in the one run only, and in the other
    """
    both = (one, other)
    parameters = _pairs(one["parameters"], other["parameters"])
    settings = _pairs(_settings(one), _settings(other))
    code = _code(one, other)
    asked_same = not settings and all(name in _MARGINAL for name in parameters)
    definitions = [{entry["kpi_id"]: entry for entry in receipt.get("kpis", [])} for receipt in both]
    kpis = {
        kpi_id: _kpi(entry, definitions[1][kpi_id], code["same"], asked_same)
        for kpi_id, entry in definitions[0].items()
        if kpi_id in definitions[1]
    }
    rows = [{(row["snapshot_id"], row["kpi_id"]): row for row in receipt.get("rows", [])} for receipt in both]
    shared = [key for key in rows[0] if key in rows[1]]
    return {
        "runs": [receipt["run_id"] for receipt in both],
        "parameters": parameters,
        "settings": settings,
        "packages": _pairs(one["versions"], other["versions"]),
        "databases": _pairs(_databases(one), _databases(other)),
        "code": code,
        "kpis": kpis,
        "compared": len(shared),
        "rows": [row for key in shared if (row := _row(rows[0][key], rows[1][key], kpis))],
        "only": [
            [{"snapshot_id": key[0], "kpi_id": key[1]} for key in mine if key not in theirs]
            for mine, theirs in (rows, rows[::-1])
        ],
    }


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = [*one, *(name for name in other if name not in one)]
    return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}


def _settings(receipt: Mapping[str, Any]) -> dict[str, Any]:
    return {**receipt["site"], "target.timezone": receipt["target"]["timezone"]}


def _databases(receipt: Mapping[str, Any]) -> dict[str, Any]:
    found = receipt.get("databases") or {}
    return {
        f"{side} {name}": value
        for side in ("store", "sources")
        for name, value in found.get(side, {}).items()
        if name in ("url", "server")
    }


def _code(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    sides = [receipt["code"] for receipt in (one, other)]
    return {
        "same": sides[0]["sources_sha256"] == sides[1]["sources_sha256"],
        "git_commit": [side["git_commit"] for side in sides],
        "sources_sha256": [side["sources_sha256"] for side in sides],
        "modified": [side["modified"] for side in sides],
    }


def _kpi(one: Mapping[str, Any], other: Mapping[str, Any], same_code: bool, asked_same: bool) -> dict[str, str]:
    definition = one["source_sha256"] == other["source_sha256"]
    sql = _each(one, "sql") == _each(other, "sql")
    bound = _each(one, "parameters") == _each(other, "parameters")
    result = _each(one, "fingerprint") == _each(other, "fingerprint")
    ours = DEFINITION if not definition else "" if same_code else CODE
    if sql and bound:
        # What was asked of the database is the same, so that it tells whether the data are.
        why = " and ".join(filter(None, ["" if result else DATA, ours])) or (UNTOLD if asked_same else SETTINGS)
    else:
        why = UNTOLD if ours or asked_same else SETTINGS
    return {
        "definition": _word(definition),
        "sql": _word(sql),
        "bound_values": _word(bound),
        "result": _word(result) if sql and bound else "unknown",
        "why": why,
    }


def _each(entry: Mapping[str, Any], name: str) -> Sequence[Any]:
    return [query[name] for query in entry["queries"]]


def _word(equal: bool) -> str:
    return "same" if equal else "other"


def _row(one: Mapping[str, Any], other: Mapping[str, Any], kpis: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What differs between the two readings of a row; empty where nothing does."""
    computed = _equal(one["computed"], other["computed"])
    stored = _equal(one["stored"], other["stored"])
    if computed and stored and one["status"] == other["status"]:
        return {}
    why = [] if computed else [kpis[one["kpi_id"]]["why"]]
    if not stored:
        why.append("the stored row")
    return {
        "snapshot_id": one["snapshot_id"],
        "kpi_id": one["kpi_id"],
        "year": one["year"],
        **{name: [one[name], other[name]] for name in ("computed", "stored", "status", "basis")},
        "why": " and ".join(why) or "the stored row's period",
    }


def _equal(one: float | str | None, other: float | str | None) -> bool:
    if one is None or other is None:
        return one is other
    return same(float(one), float(other))
