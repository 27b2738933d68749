from __future__ import annotations

import sys

import pytest

from kpibackfill.kpis import registry
from tests.workbench import Workbench

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7 * 7 }}--><svg onload=alert(2)>"
DASHBOARDS = "https://makers.example/makerspace-dashboard"
RATE = 0.314159  # of four people: a number that must not be found
KPI_MODULE = f"""
import kpibackfill as kb

@kb.kpi("odd_count", label={HOSTILE!r}, unit="count", family="odd", description={HOSTILE!r}, sources=[{HOSTILE!r}])
def odd_count(connection, site, windows):
    return [kb.Value(w.window_id, 10.0 + w.window_id, 5, 6, [{HOSTILE!r}]) for w in windows]

@kb.kpi("odd_rate", label="Odd rate", unit="fraction", family="odd", description="A rate.", sources=[])
def odd_rate(connection, site, windows):
    return [kb.Value(w.window_id, {RATE}, 4, 8, []) for w in windows]
"""


@pytest.fixture
def odd_kpis(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A bench with two KPIs of the site's own: one with hostile words, and a rate of four people."""
    (bench.folder / "odd_kpis.py").write_text(KPI_MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(bench.folder)
    monkeypatch.delitem(sys.modules, "odd_kpis", raising=False)
    monkeypatch.setattr(registry, "_registry", registry.load())
    bench.configure(site={"kpi_modules": ["odd_kpis"]}, dashboards=DASHBOARDS)
    return bench
