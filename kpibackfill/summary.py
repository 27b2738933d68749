"""What ``kpibackfill run`` prints for people, from a run's receipt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kpibackfill.numbers import FEW, amount, measure, too_few


def run_summary(receipt: Mapping[str, Any], folder: Path) -> str:
    """Counts by year, what differs, what was written, where the record is, and the next command."""
    units = {entry["kpi_id"]: entry["unit"] for entry in receipt["kpis"]}
    lines = [*receipt["notes"], "", "year  snapshots  KPI rows"]
    lines += [f"{year}  {counts['snapshots']:9}  {counts['kpi_rows']:8}" for year, counts in receipt["years"].items()]
    lines += [f"total {sum(c['snapshots'] for c in receipt['years'].values()):9}  {receipt['total_kpi_rows']:8}", ""]
    differing = [row for row in receipt["rows"] if row["status"] in ("unsupported", "changed", "new")]
    if differing:
        width = max(len(row["kpi_id"]) for row in differing)
        lines.append(
            f"{'year':4}  {'snapshot':>8}  {'KPI':{width}}  {'stored':>10}  {'computed':>10}  {'drift':>14}  status"
        )
    for row in differing:
        unit = units[row["kpi_id"]]
        few = too_few(unit, row["basis"])
        stored, computed, delta, change = (
            None if row[name] is None else float(row[name]) for name in ("stored", "computed", "delta", "change")
        )
        lines.append(
            f"{row['year']}  {row['snapshot_id']:8}  {row['kpi_id']:{width}}  {amount(stored, unit):>10}  "
            f"{FEW if few else amount(computed, unit):>10}  {FEW if few else measure(delta, change, unit):>14}  "
            f"{row['status'].replace('_', ' ')}"
        )
    return "\n".join([*lines, "", *_ending(receipt, folder)]).lstrip("\n")


def _ending(receipt: Mapping[str, Any], folder: Path) -> list[str]:
    rows = receipt["plan"]["rows"]
    planned = f"{rows} row{'s' * (rows != 1)}"
    if receipt["state"] == "dry_run":
        lines = [f"Dry run: nothing was written. The plan has {planned}."]
    else:
        lines = [f"Applied: {planned} written."]
    lines.append(f"Record: {folder}")
    if receipt["state"] == "dry_run" and rows:
        lines.append(f"Next: look at {folder / 'report.html'}, then apply exactly this plan:")
        lines.append(f"  {_apply_command(receipt)}")
    return lines


def _apply_command(receipt: Mapping[str, Any]) -> str:
    import shlex

    from kpibackfill.parameters import command_options

    return shlex.join(
        [
            "kpibackfill",
            "run",
            *command_options(
                receipt["parameters"] | {"apply": True, "operator": "", "approved_plan": receipt["run_id"]}
            ),
        ]
    )
