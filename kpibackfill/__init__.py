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
    "make_plan": "kpibackfill.planning.plan",
    "apply_plan": "kpibackfill.apply",
    "review": "kpibackfill.planning.review",
    "decide": "kpibackfill.planning.review",
    "check_decisions": "kpibackfill.planning.review",
    "approve": "kpibackfill.notebook_actions",
    "settle": "kpibackfill.notebook_actions",
    "replay": "kpibackfill.notebook_actions",
    "runs": "kpibackfill.notebook_api",
    "show": "kpibackfill.notebook_api",
    "diff": "kpibackfill.notebook_api",
    "history": "kpibackfill.notebook_api",
    "list_kpis": "kpibackfill.reporting.notebook_tables",
    "runs_table": "kpibackfill.reporting.notebook_tables",
    "history_table": "kpibackfill.reporting.notebook_tables",
    "verify": "kpibackfill.notebook_api",
    "plot_history": "kpibackfill.plots",
    "kpi": "kpibackfill.kpis.registry",
    "Value": "kpibackfill.kpis.registry",
    "Window": "kpibackfill.kpis.registry",
    "explain": "kpibackfill.explaining.explanation",
    "detect": "kpibackfill.explaining.detection",
    "coverage": "kpibackfill.explaining.coverage",
    "plot_coverage": "kpibackfill.explaining.coverage_figure",
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
