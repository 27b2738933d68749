"""The figures of an explanation: what they say, at every size, and what they withhold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import matplotlib.text
import numpy as np
import pandas as pd
import pytest

import kpibackfill as kb
from kpibackfill.explaining.detection import COLUMNS, Detection
from kpibackfill.explaining.explanation import Explanation
from kpibackfill.explaining.parts import Explained, Parts
from kpibackfill.explaining.sentences import sentence
from kpibackfill.kpis import registry
from kpibackfill.plots import Figures

KPIS = registry.load()
AS_OF = datetime(2026, 11, 22, tzinfo=UTC)


def detection(
    kpi_id: str, years: range, definitions: int, *, without: tuple[int, ...] = (), few: bool = False
) -> Detection:
    """The first half of the years follows the second definition, the others the KPI's own."""
    rows: list[dict[str, Any]] = []
    for year in years:
        for number in range(definitions if year not in without else 0):
            follows = number == (1 if year < years[len(years) // 2] else 0)
            rows.append(
                {
                    "kpi_id": kpi_id, "year": year, "snapshot_id": year, "snapshot_date": f"{year}-12-31",
                    "source": "system", "stored": 0.5 if few else 1234.0,
                    "definition": f"definition {number} $x^2$ <b>",
                    "own": number == 0, "value": (0.5 if few else 1234.0) + 0.125 * (not follows), "detail": "",
                    "match": "exact" if follows else "", "withheld": few,
                }
            )  # fmt: skip
    matrix = pd.DataFrame(rows, columns=COLUMNS)
    return Detection((KPIS[kpi_id],), matrix, {kpi_id: sentence(matrix)}, "demo", AS_OF)


def explanation(kpi_id: str, explained: Explained | None, computed: float | None, basis: int | None) -> Explanation:
    stored = pd.DataFrame(
        [(7, "2024-12-31", "system", 0.25)], columns=["snapshot_id", "snapshot_date", "source", "value"]
    )
    problems = explained.problems(kb.Value(0, computed, basis)) if explained else []
    return Explanation(
        KPIS[kpi_id], "demo", 2024, AS_OF, computed, basis, basis, (), stored, explained, tuple(problems)
    )


def said(figures: Figures) -> str:
    drawn = [text.get_text() for drawing in figures for text in drawing.figure.findobj(matplotlib.text.Text)]
    return "\n".join([*drawn, *(drawing.alt for drawing in figures)])


def inside(figures: Figures) -> None:
    """Nothing is drawn beyond the edge of the page."""
    for drawing in figures:
        assert drawing.png().startswith(b"\x89PNG")
        assert drawing.svg() == drawing.svg()
        width, height = drawing.figure.bbox.size
        for text in drawing.figure.findobj(matplotlib.text.Text):
            if text.get_text().strip() and text.get_visible():
                box = text.get_window_extent()
                assert box.x0 >= -1, text
                assert box.x1 <= width + 1, text
                assert box.y1 <= height + 1, text
                assert box.y0 >= -1, text


@pytest.mark.parametrize("years", [1, 3, 11, 30])
@pytest.mark.parametrize("definitions", [1, 3, 12])
def test_the_matrix_has_room_at_every_size(years: int, definitions: int) -> None:
    inside(detection("workshop_attendees", range(2026 - years, 2026), definitions, without=(2019,)).figure())


def test_the_title_of_the_matrix_is_the_finding() -> None:
    figures = detection("workshop_attendees", range(2015, 2025), 3).figure()
    title = figures["workshop_attendees"].figure.texts[0].get_text().replace("\n", " ")
    assert title.startswith("Workshop attendees: 2015–2019 follow “definition 1")
    assert "2020 onward follow “definition 0" in title
    assert "Exact matches" in figures["workshop_attendees"].alt


def test_a_rate_of_few_people_shows_no_number() -> None:
    figures = detection("workshop_participants_bipoc", range(2020, 2025), 4, few=True).figure()
    assert "< 5" in said(figures)
    assert "50" not in said(figures)
    parts = Explained([Parts("ethnicity", {"BIPOC": 1, "other reported": 2}, result=1 / 3)], {"not reported": 4})
    withheld = explanation("workshop_participants_bipoc", parts, 1 / 3, 3).figure()
    assert "not for publication" in said(withheld)
    assert "33" not in said(withheld)
    assert "25" not in said(withheld)
    inside(withheld)


@pytest.mark.parametrize("months", [12, 5, 0])
@pytest.mark.parametrize("types", [1, 2, 40])
def test_the_waterfall_has_room_at_every_size(months: int, types: int) -> None:
    parts = [
        Parts("month", {f"2024-{month:02}": 1000.0 for month in range(1, months + 1)}),
        Parts(
            "event type", {f"Workshop with a label that is far too long for its place, {n}": 1e6 for n in range(types)}
        ),
    ]
    left_out = {f"event type: {number} with a label that is far too long for its place": number for number in range(9)}
    inside(
        explanation(
            "workshop_attendees", Explained(parts, left_out, considered=5_000_000, what="registrations"), 4e6, 9
        ).figure()
    )
    inside(explanation("workshop_attendees", Explained(parts), None, None).figure())
    inside(explanation("workshop_attendees", None, 12.0, 12).figure())


def test_a_month_without_a_part_is_drawn_as_missing() -> None:
    parts = [Parts("month", {"2024-01": 5.0, "2024-12": 7.0})]
    assert said(explanation("total_new_member_signups", Explained(parts), 12.0, 2).figure()).count("none") == 10


def test_months_alone_take_the_width_of_the_page() -> None:
    parts = [Parts("month", {f"2024-{month:02}": 20.0 for month in range(1, 13)})]
    figures = explanation("total_new_member_signups", Explained(parts), 240.0, 12).figure()
    inside(figures)
    (axes,) = figures["waterfall"].figure.axes
    assert axes.get_position().width > 0.8


@pytest.mark.parametrize("years", [1, 2, 11, 30])
def test_coverage_has_room_and_names_its_gaps(years: int) -> None:
    months = [f"{year}-{month:02}" for year in range(2026 - years, 2026) for month in range(1, 13)]
    frame = pd.DataFrame({"month": months, "registrations": 1200, "submissions": 30, "snapshots": 1})
    frame.loc[3:5, "snapshots"] = 0
    frame.loc[7, "snapshots"] = 2
    figures = kb.plot_coverage(frame)
    inside(figures)
    assert f"{months[3]} to {months[5]}" in figures["coverage"].alt
    assert "3 without" in figures["coverage"].figure.texts[0].get_text().replace("\n", " ")


def test_empty_years_are_one_line_labeled_with_the_years() -> None:
    months = [f"{year}-{month:02}" for year in range(1996, 2026) for month in range(1, 13)]
    frame = pd.DataFrame({"month": months, "registrations": 1200, "submissions": 30, "snapshots": 1})
    frame.loc[: 19 * 12 - 1, "registrations"] = 0
    frame.loc[: 19 * 12, "submissions"] = 0
    frame.loc[240, "snapshots"] = 0
    figures = kb.plot_coverage(frame)
    inside(figures)
    registrations, submissions, snapshots = figures["coverage"].figure.axes
    (line,) = [line for line in registrations.lines if line.get_label() == "none"]
    assert np.asarray(line.get_xdata()).round().tolist() == [0, 19 * 12 - 1]
    assert "none 1996–2014" in {text.get_text() for text in registrations.texts}
    assert "none 1996-01 to 2015-01" in {text.get_text() for text in submissions.texts}
    assert [len(np.asarray(axes.collections[0].get_offsets())) for axes in (registrations, submissions, snapshots)] == [
        0,
        0,
        1,
    ]
