"""Recompute a makerspace's KPIs in a notebook, compare them with the stored rows, and correct those on the record.

Import it as ``import kpibackfill as kb``; every public name below loads its module when it is first used,
so that the command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "KpiBackfillError": "kpibackfill.errors",
    "check": "kpibackfill.checks",
    "begin": "kpibackfill.beginning",
    "compute_kpis": "kpibackfill.compute",
    "compare": "kpibackfill.drift",
    "drift_table": "kpibackfill.drift",
    "review_figures": "kpibackfill.drift",
    "plot_drift": "kpibackfill.plots",
    "make_plan": "kpibackfill.plan",
    "apply_plan": "kpibackfill.apply",
    "review": "kpibackfill.reviewing",
    "decide": "kpibackfill.reviewing",
    "check_decisions": "kpibackfill.reviewing",
    "approve": "kpibackfill.record.actions",
    "settle": "kpibackfill.record.actions",
    "replay": "kpibackfill.record.actions",
    "runs": "kpibackfill.record.tables",
    "show": "kpibackfill.record.tables",
    "diff": "kpibackfill.record.tables",
    "history": "kpibackfill.record.tables",
    "list_kpis": "kpibackfill.listing",
    "runs_table": "kpibackfill.listing",
    "history_table": "kpibackfill.listing",
    "verify": "kpibackfill.record.tables",
    "plot_history": "kpibackfill.plots",
    "kpi": "kpibackfill.kpis.registry",
    "Value": "kpibackfill.kpis.registry",
    "Window": "kpibackfill.kpis.registry",
    "explain": "kpibackfill.explaining.explanation",
    "detect": "kpibackfill.explaining.detection",
    "coverage": "kpibackfill.explaining.coverage",
    "plot_coverage": "kpibackfill.plots.coverage",
    "explains": "kpibackfill.explaining.parts",
    "Explained": "kpibackfill.explaining.parts",
    "Parts": "kpibackfill.explaining.parts",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kpibackfill' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
