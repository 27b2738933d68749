"""The figures: what is stored next to what was computed, and the drift between the two.

Each function takes a documented DataFrame and returns :class:`Figures`. To add a figure, write a module that prepares
its numbers, opens a :func:`~kpibackfill.plots.style.sheet` and returns a ``Drawing``, and add it here.
"""

from __future__ import annotations

import pandas as pd

from kpibackfill.plots.figures import Drawing, Figures, nothing_drawn
from kpibackfill.plots.heatmap import draw_heatmap
from kpibackfill.plots.history import plot_history
from kpibackfill.plots.layout import arrange
from kpibackfill.plots.series import draw_series

__all__ = ["Drawing", "Figures", "plot_drift", "plot_history"]


def plot_drift(drift: pd.DataFrame) -> Figures:
    """Draw stored and computed values by year, one panel per KPI, and a heat map of the drift.

    Parameters
    ----------
    drift : what ``compare`` returned, one row per snapshot and KPI. It is not changed.

    Returns
    -------
    Figures named ``series`` and, unless the drift is empty, ``heatmap``; a cell that ends with them shows them.
    Drift is in each KPI's own measure: percent of the stored value for counts, points for scores and rates. A rate
    based on fewer than five people shows "< 5" instead of its value and its drift.
    """
    if drift.empty:
        nothing = "No snapshots in these years: nothing to compare"
        return nothing_drawn("series", nothing, f"An empty figure. {nothing}.")
    arranged = arrange(drift)
    return Figures((draw_series(arranged), draw_heatmap(arranged)))
