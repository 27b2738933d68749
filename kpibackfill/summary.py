"""What ``kpibackfill run`` prints for people, from a run's receipt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kpibackfill.views import apply_command, drift_rows


def run_summary(receipt: Mapping[str, Any], folder: Path) -> str:
    """Counts by year, what differs, what was written, where the record is, and the next command."""
    return "\n".join([*findings(receipt), "", *_ending(receipt, folder)]).lstrip("\n")


def findings(receipt: Mapping[str, Any]) -> list[str]:
    """Notes, counts by year and the rows that differ, as lines."""
    lines = [*receipt["notes"], "", "year  snapshots  KPI rows"]
    lines += [f"{year}  {counts['snapshots']:9}  {counts['kpi_rows']:8}" for year, counts in receipt["years"].items()]
    lines += [f"total {sum(c['snapshots'] for c in receipt['years'].values()):9}  {receipt['total_kpi_rows']:8}", ""]
    differing = [row for row in receipt["rows"] if row["status"] in ("unsupported", "changed", "new")]
    if differing:
        width = max(len(row["kpi_id"]) for row in differing)
        lines.append(
            f"{'period':7}  {'snapshot':>8}  {'KPI':{width}}  {'stored':>10}  {'computed':>10}  {'drift':>14}  status"
        )
    for row in drift_rows(differing, {entry["kpi_id"]: entry for entry in receipt["kpis"]}):
        lines.append(
            f"{row['period']:7}  {row['snapshot_id']:8}  {row['kpi_id']:{width}}  {row['stored_text']:>10}  "
            f"{row['computed_text']:>10}  {row['drift_text']:>14}  {row['status'].replace('_', ' ')}"
        )
    return lines


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
        lines.append(f"  {apply_command(receipt['parameters'], receipt['run_id'])}")
    return lines
