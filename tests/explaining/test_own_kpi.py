"""A site's own KPI, as written on the page on adding one: explained by month and compared with what is stored."""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd
import pytest

import kpibackfill as kb
from kpibackfill.errors import Refused
from kpibackfill.explaining import alternatives, parts
from kpibackfill.explaining.alternatives import DECEMBER, UNTIL
from kpibackfill.kpis import registry
from tests.databases import on
from tests.explaining.test_documents import blocks
from tests.kpis.makerspace import Makerspace
from tests.workbench import Workbench

KPI, EXPLAINED, COMPARED = (text for _, name, text in blocks("adding-a-kpi.md") if name == "our_kpis.py")
AS_OF = "2026-11-22T12:00:00"
# Three events in each January, five in each June, one inactive in each March, and those of December.
DECEMBERS = {2018: 1, 2019: 4, 2020: 2, 2021: 6, 2022: 7}
STORED = {2019: 12, 2020: 12, 2021: 15, 2022: 8}
EVENTS = [
    {"start_date": f"{year}-{month}-10 18:00:00", "event_type_id": 6, "is_active": active}
    for year, december in DECEMBERS.items()
    for month, active, number in (("01", 1, 3), ("03", 0, 1), ("06", 1, 5), ("12", 1, december))
    for _ in range(number)
]


@pytest.fixture
def site(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the site's module; stored are the own value, December to November, all events, and up to June."""
    monkeypatch.syspath_prepend(bench.folder)
    monkeypatch.setattr(registry, "_registry", dict(registry.load()))
    parts.load_built_in()
    monkeypatch.setattr(parts, "_explains", dict(parts._explains))
    monkeypatch.setattr(alternatives, "_compares", dict(alternatives._compares))
    Makerspace(bench.database).fill(
        {
            "civicrm_event": [{"id": number, **event} for number, event in enumerate(EVENTS, 1)],
            "ms_snapshot": [
                {
                    "id": year, "definition": "membership_totals", "snapshot_type": "annual", "source": "system",
                    "snapshot_date": f"{year}-12-31",
                }
                for year in STORED
            ],
            "ms_fact_kpi_snapshot": [
                {
                    "snapshot_id": year, "kpi_id": "events_held", "metric_value": value, "period_year": year,
                    "period_month": 12, "meta": None,
                }
                for year, value in STORED.items()
            ],
        }
    )  # fmt: skip

    def write(*texts: str) -> None:
        (bench.folder / "our_kpis.py").write_text("\n\n".join(texts), "utf-8")
        monkeypatch.delitem(sys.modules, "our_kpis", raising=False)
        bench.configure(site={"kpi_modules": ["our_kpis"]})

    return write


def detect() -> Any:
    return kb.detect(target="test", kpis="events_held", as_of=AS_OF)


def values(matrix: pd.DataFrame, definition: str) -> dict[int, float]:
    rows = matrix[matrix["definition"] == definition]
    return dict(zip(rows["year"], rows["value"], strict=True))


@on("sqlite")
def test_a_sites_kpi_is_compared_over_other_months_without_a_line_of_code(site: Any) -> None:
    site(KPI)
    found = detect()
    assert found.sentences["events_held"] == (
        "2019 follows *the KPI's own definition*, as computed here; 2020 follows *December to November*; 2021 follows "
        "no known definition; 2022 follows *up to the end of a month* (June)."
    )
    assert values(found.matrix, DECEMBER) == {2019: 9, 2020: 12, 2021: 10, 2022: 14}
    assert found.figure()["events_held"].png()
    assert "events_held" in kb.detect(target="test", as_of=AS_OF).sentences  # as every KPI is, unless some are named


@on("sqlite")
def test_a_sites_kpi_brings_its_own_alternatives(site: Any) -> None:
    site(KPI, COMPARED)
    found = detect()
    assert found.sentences["events_held"] == (
        "2019 follows *active events*, as computed here; 2020 follows *December to November*; 2021 follows *inactive "
        "events too*; 2022 follows *up to the end of a month* (June)."
    )
    assert values(found.matrix, "inactive events too") == {2019: 13, 2020: 11, 2021: 15, 2022: 16}
    assert set(found.matrix["definition"]) == {"active events", "inactive events too", DECEMBER, UNTIL}


@on("sqlite")
@pytest.mark.parametrize(
    "body", ["raise ValueError('an answer')", "return 'an answer'", "return {'x': {2019: 'an answer'}}"]
)
def test_where_alternatives_break_is_said_without_a_text(site: Any, body: str) -> None:
    site(KPI, f"@kb.compares('events_held')\ndef broken(connection, site, windows):\n    {body}\n")
    with pytest.raises(Refused, match="events_held") as raised:
        detect()
    assert "an answer" not in raised.value.message


@on("sqlite")
def test_a_kpi_that_knows_years_only_is_compared_by_its_own_value(site: Any) -> None:
    site(KPI.replace("    spans = [", "    assert all(window.start.month == 1 for window in windows)\n    spans = ["))
    assert set(detect().matrix["definition"]) == {"the KPI's own definition"}


@on("sqlite")
def test_a_sites_kpi_is_explained_by_month_until_its_module_says_more(site: Any) -> None:
    site(KPI)
    found = kb.explain("events_held", year=2020, target="test", as_of=AS_OF)
    by_month = dict(zip(found.parts["label"], found.parts["value"], strict=True))
    assert {month: value for month, value in by_month.items() if value} == {"2020-01": 3, "2020-06": 5, "2020-12": 2}
    assert found.problems == ()
    assert "by month" in repr(found)
    assert found.figure()["waterfall"].png()
    site(KPI, EXPLAINED)
    assert kb.explain("events_held", year=2020, target="test", as_of=AS_OF).left_out["count"].tolist() == [1]


@on("sqlite")
@pytest.mark.parametrize("unit", ["points", "fraction"])
def test_months_that_do_not_add_up_to_the_value_are_not_shown_as_its_parts(site: Any, unit: str) -> None:
    mean = KPI.replace('unit="count"', f'unit="{unit}"').replace("value=float(held)", "value=held / max(every, 1)")
    site(mean)
    found = kb.explain("events_held", year=2020, target="test", as_of=AS_OF)
    assert found.problems == ()
    shown = found.explained.parts if found.explained else []
    assert [(part.by, part.of) for part in shown] == ([("month", "basis")] if unit == "points" else [])
