"""Recompute a makerspace's KPIs in a notebook, compare them with the stored rows, and correct them on the record.

Import it as ``import kpibackfill as kb``. Each public name below loads its module when it is first used, so that the
command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kpibackfill.version import __version__ as __version__

if TYPE_CHECKING:
    from kpibackfill.apply import apply_plan as apply_plan
    from kpibackfill.checks import check as check
    from kpibackfill.compute import compute_kpis as compute_kpis
    from kpibackfill.drift import compare as compare
    from kpibackfill.drift import drift_table as drift_table
    from kpibackfill.drift import review_figures as review_figures
    from kpibackfill.errors import KpiBackfillError as KpiBackfillError
    from kpibackfill.explaining.alternatives import compares as compares
    from kpibackfill.explaining.coverage import coverage as coverage
    from kpibackfill.explaining.coverage_figure import plot_coverage as plot_coverage
    from kpibackfill.explaining.detection import detect as detect
    from kpibackfill.explaining.explanation import explain as explain
    from kpibackfill.explaining.parts import Explained as Explained
    from kpibackfill.explaining.parts import Parts as Parts
    from kpibackfill.explaining.parts import explains as explains
    from kpibackfill.kpis.registry import Value as Value
    from kpibackfill.kpis.registry import Window as Window
    from kpibackfill.kpis.registry import kpi as kpi
    from kpibackfill.notebook_api import approve as approve
    from kpibackfill.notebook_api import diff as diff
    from kpibackfill.notebook_api import history as history
    from kpibackfill.notebook_api import replay as replay
    from kpibackfill.notebook_api import runs as runs
    from kpibackfill.notebook_api import settle as settle
    from kpibackfill.notebook_api import show as show
    from kpibackfill.notebook_api import verify as verify
    from kpibackfill.page_view import dashboard as dashboard
    from kpibackfill.planning.plan import make_plan as make_plan
    from kpibackfill.planning.review import check_decisions as check_decisions
    from kpibackfill.planning.review import decide as decide
    from kpibackfill.planning.review import review as review
    from kpibackfill.plots import plot_drift as plot_drift
    from kpibackfill.plots import plot_history as plot_history
    from kpibackfill.reporting.notebook_tables import history_table as history_table
    from kpibackfill.reporting.notebook_tables import list_kpis as list_kpis
    from kpibackfill.reporting.notebook_tables import runs_table as runs_table
    from kpibackfill.run import begin as begin


_PUBLIC = {
    name: f"kpibackfill.{module}"
    for module, names in {
        "apply": "apply_plan",
        "checks": "check",
        "compute": "compute_kpis",
        "drift": "compare drift_table review_figures",
        "errors": "KpiBackfillError",
        "explaining.alternatives": "compares",
        "explaining.coverage": "coverage",
        "explaining.coverage_figure": "plot_coverage",
        "explaining.detection": "detect",
        "explaining.explanation": "explain",
        "explaining.parts": "explains Explained Parts",
        "kpis.registry": "kpi Value Window",
        "notebook_api": "approve settle replay runs show diff history verify",
        "page_view": "dashboard",
        "planning.plan": "make_plan",
        "planning.review": "review decide check_decisions",
        "plots": "plot_drift plot_history",
        "reporting.notebook_tables": "list_kpis runs_table history_table",
        "run": "begin",
    }.items()
    for name in names.split()
}

__all__ = sorted(_PUBLIC)


if not TYPE_CHECKING:  # otherwise type checkers would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'kpibackfill' has no attribute {name!r}")
        return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
