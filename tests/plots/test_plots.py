from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.text import Annotation

from kpibackfill.plots import plot_drift, style
from tests.figures import (
    ATTENDEES,
    NAN,
    NPS,
    RATE,
    STORY,
    cells,
    drift,
    everything_said,
    line,
    panels,
    row,
    title,
    words,
)


def test_titles_state_the_finding() -> None:
    figures = plot_drift(drift(*STORY))
    largest = "Workshop attendees 2018, −31.0 %"
    assert title(figures, "heatmap") == f"3 of 5 stored values differ; the largest drift: {largest}"
    assert title(figures, "series") == "All 3 KPIs differ from what is stored, each in one value"
    below = figures["heatmap"].figure.texts[1].get_text()
    assert "1 new" in below
    assert "1 stored, but nothing to compute from" in below
    assert "1 differing only in period" in below
    assert "1 without data" in below
    assert "1 withheld (< 5 people)" in below


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(ATTENDEES, 2020, 5, 5), row(ATTENDEES, 2021, 6, 6)], "Both stored values agree with the computed ones"),
        ([row(ATTENDEES, 2020, 5, 5)], "The one stored value agrees"),
        ([row(ATTENDEES, 2020, 5, 4)], "The one stored value differs: Workshop attendees 2020, +25.0 %"),
        ([row(ATTENDEES, 2020, 5, 0)], "The one stored value differs: Workshop attendees 2020, 0 → 5"),
        ([row(ATTENDEES, 2020, 5), row(NPS, 2020, 6)], "Nothing is stored yet: 2 new values"),
        ([row(ATTENDEES, 2020)], "No value is both stored and computed: nothing to compare"),
        ([], "No snapshots in these years: nothing to compare"),
    ],
)
def test_the_title_suits_the_values(rows: list[dict[str, Any]], expected: str) -> None:
    figures = plot_drift(drift(*rows))
    assert title(figures, "series") == expected
    assert expected in figures["series"].alt


def test_the_lines_run_through_the_values() -> None:
    attendees, nps, rate = panels(plot_drift(drift(*STORY)))
    assert line(attendees, "computed") == pytest.approx(
        {2017: 60, 2018: 69, 2019: NAN, 2020: NAN, 2021: 82}, nan_ok=True
    )
    assert line(attendees, "stored") == pytest.approx(
        {2017: 60, 2018: 100, 2019: NAN, 2020: NAN, 2021: NAN}, nan_ok=True
    )
    assert line(nps, "stored") == pytest.approx({2017: NAN, 2018: 0, 2019: NAN, 2020: NAN, 2021: 30}, nan_ok=True)
    assert line(rate, "computed")[2018] == 0.51


def test_missing_years_are_gaps_on_gray() -> None:
    attendees, nps, _ = panels(plot_drift(drift(*STORY)))
    for axes, years in ((attendees, [2019, 2020]), (nps, [2017, 2019, 2020])):
        bands = [patch.get_x() + patch.get_width() / 2 for patch in axes.patches]
        assert bands == years


def test_unsupported_values_are_crossed() -> None:
    attendees, nps, _ = panels(plot_drift(drift(*STORY)))
    assert line(nps, "unsupported") == {2018: 0}
    assert line(attendees, "unsupported") == {}


def test_an_axis_of_nothing_but_zero_has_one_tick() -> None:
    figures = plot_drift(drift(row(NPS, 2018, stored=0.0)))
    FigureCanvasAgg(figures["series"].figure).draw()
    assert [tick.get_text() for tick in panels(figures)[0].get_yticklabels()] == ["0"]


def test_stored_and_computed_differ_in_color_gray_and_shape() -> None:
    axes = panels(plot_drift(drift(*STORY)))[0]
    lines = {line.get_label(): line for line in axes.lines}
    stored, computed = lines["stored"], lines["computed"]
    assert (stored.get_color(), computed.get_color()) == (style.STORED, style.COMPUTED)
    assert stored.get_linestyle() != computed.get_linestyle()
    gray = [float(np.dot(to_rgb(color), (0.2126, 0.7152, 0.0722))) for color in (style.STORED, style.COMPUTED)]
    assert abs(gray[0] - gray[1]) > 0.1


def test_the_last_values_are_labeled() -> None:
    attendees, nps, _ = panels(plot_drift(drift(*STORY)))
    assert {"82\ncomputed", "100\nstored 2018", "−31.0 %"} <= set(words(attendees))
    assert {"34.1\ncomputed", "30.0\nstored", "+4.1 points"} <= set(words(nps))


@pytest.mark.parametrize("kind", ["annually", "monthly"])
def test_a_last_value_of_an_earlier_period_is_labeled_in_legible_letters(kind: str) -> None:
    kpis = {f"kpi_{n}": {"label": f"KPI {n}", "unit": "count"} for n in range(6)}
    rows = [row(kpi_id, 2024, 1_234_567.25, 1_000_000, date="2024-03-01", kind=kind) for kpi_id in kpis]
    axes = panels(plot_drift(drift(*rows, row("kpi_0", 2025, kind=kind), kpis=kpis)))[3]
    assert any(text.startswith("1,234,567.25\ncomputed\n2024") for text in words(axes))
    assert all(text.get_size() >= 6.5 for text in axes.texts)


@pytest.mark.parametrize(
    ("years", "stored", "said"),
    [
        ((2020,), NAN, "Dot: computed."),
        ((2020, 2021), NAN, "Dot, solid line: computed."),
        ((2020,), 4, "Ring: stored. Dot: computed."),
        ((2020,), 5, "Ring: stored. Dot: computed. Dot in a ring: they agree."),
    ],
)
def test_the_note_explains_only_the_marks_that_are_drawn(years: tuple[int, ...], stored: float, said: str) -> None:
    figures = plot_drift(drift(*(row(ATTENDEES, year, 5, stored) for year in years)))
    assert figures["series"].figure.texts[2].get_text() == said


def test_the_heat_map_shows_each_drift_in_the_measure_of_its_kpi() -> None:
    rows = [row(ATTENDEES, 2013 + year, 1, 1) for year in range(4)]
    said = cells(plot_drift(drift(*rows, *STORY)))
    last = {line: {text for (at, _), text in said.items() if at == line} for line in range(3)}
    assert "−31.0" in last[0]
    assert "+4.1" in last[1]
    assert "+1.0" in last[2]


def test_a_drift_that_rounds_to_nothing_is_still_shown() -> None:
    figures = plot_drift(drift(*(row(RATE, year, 0.4, 0.4001) for year in range(2010, 2020))))
    assert cells(figures)[0, 0] == "≈ 0"
    assert title(figures, "heatmap").endswith("2010, under 0.1 points")


def test_long_names_that_differ_at_the_end_stay_distinct() -> None:
    kpis = {
        f"kpi_{n}": {"label": f"Workshop participants who are BIPOC, cohort {n}", "unit": "count"} for n in range(50)
    }
    figures = plot_drift(drift(*(row(kpi_id, 2020, 5, 4) for kpi_id in kpis), kpis=kpis))
    names = [text for text in words(panels(figures, "heatmap")[0]) if "…" in text]
    assert len(set(names)) == 50
    assert names[7].startswith("Workshop")
    assert names[7].endswith("cohort 7")


def test_kinds_of_cells_differ_in_word_and_pattern() -> None:
    figures = plot_drift(drift(*STORY))
    said = cells(figures)
    assert said[0, 0] == "= 60"
    assert said[0, 1] == "100 → 69\n−31.0 %"
    assert said[0, 4] == "new: 82"
    assert said[1, 0] == "no data"
    assert said[1, 1] == "0.0 unsupported"
    assert said[2, 0] == "50.0 % period"
    assert said[2, 4] == "< 5"
    looks = {
        str((kind.get_hatch(), kind.get_linestyle(), kind.get_facecolor(), kind.get_linewidth()))
        for kind in panels(figures, "heatmap")[0].collections
        if isinstance(kind, PatchCollection)
    }
    assert len(looks) == 6


def test_many_months_are_colors_below_their_years() -> None:
    months = [(year, month) for year in range(2015, 2026) for month in range(1, 13)]
    dated = {(year, month): f"{year}-{month:02}-01" for year, month in months}
    figures = plot_drift(
        drift(
            *(
                row(ATTENDEES, year, 10 + month, 10, date=date, snapshot_id=year * 100 + month, kind="monthly")
                for (year, month), date in dated.items()
            )
        )
    )
    assert cells(figures) == {}
    said = words(panels(figures, "heatmap")[0])
    assert [text for text in said if text.isdigit()] == [str(year) for year in range(2015, 2026)]
    assert not any("-" in text for text in said)


def test_more_snapshots_than_fit_are_counted_and_one_of_each_period_is_drawn() -> None:
    rows = [
        row(ATTENDEES, year, 11, 10, snapshot_id=year * 1000 + number, source=f"source {number}")
        for year in range(2015, 2026)
        for number in range(50)
    ]
    figures = plot_drift(drift(*rows))
    assert title(figures, "heatmap").startswith("550 of 550 stored values differ")
    assert len(cells(figures)) == 11
    for drawing in figures:
        assert "11 of 550 snapshots are drawn" in drawing.figure.texts[-1].get_text()


def test_colors_are_centered_at_zero_and_scaled_per_measure() -> None:
    figures = plot_drift(drift(*STORY, row(ATTENDEES, 2022, 115.5, 100), row(NPS, 2022, 40, 48.2)))
    (mesh,) = panels(figures, "heatmap")[0].findobj(QuadMesh)
    colors = np.ma.filled(mesh.get_array(), NAN).reshape(3, 6)
    assert mesh.get_clim() == (-1, 1)
    assert colors[0, 1] == -1  # the largest of the counts
    assert colors[0, 5] == pytest.approx(0.5)
    assert colors[1, 5] == -1  # the largest of the scores
    assert colors[1, 4] == pytest.approx(0.5)
    assert colors[2, 1] == pytest.approx(0.2, abs=1e-3)  # one point is not a deep color, though the largest rate
    assert np.isnan(colors[0, 0])


def test_a_drift_from_a_stored_zero_has_the_deepest_color() -> None:
    figures = plot_drift(drift(row(ATTENDEES, 2020, 31, 0), row(ATTENDEES, 2021, 11, 10)))
    (mesh,) = panels(figures, "heatmap")[0].findobj(QuadMesh)
    assert mesh.get_array().ravel().tolist() == [1.0, 1.0]
    assert cells(figures)[0, 0] == "0 → 31"
    assert title(figures, "heatmap").endswith("the largest drift: Workshop attendees 2021, +10.0 %")


@pytest.mark.parametrize("stored", [0.75, 0.26, 0.25])
def test_a_rate_of_fewer_than_five_people_is_shown_nowhere(stored: float) -> None:
    figures = plot_drift(drift(row(RATE, 2020, 0.5, 0.5, basis=5), row(RATE, 2021, 0.25, stored, basis=4)))
    axes = panels(figures, "series")[0]
    assert "< 5" in words(axes)
    assert cells(figures)[0, 1] == "< 5"
    assert math.isnan(line(axes, "computed")[2021])
    computed = [list(line.get_ydata()) for line in axes.lines if line.get_color() == style.COMPUTED]
    assert not any(0.25 in values for values in computed)
    (mesh,) = panels(figures, "heatmap")[0].findobj(QuadMesh)
    assert mesh.get_array().mask.all()
    said = everything_said(figures)
    assert "stored value agrees" in said  # the one based on enough people
    if stored != 0.25:
        assert "25.0 %" not in re.sub(r"\b25 %", "", said)
    assert f"{25 - stored * 100:+.1f}".replace("-", "−") not in said
    assert "Withheld, fewer than five people" in figures["series"].alt


def test_few_is_written_once_where_two_would_overlap() -> None:
    rows = [row(RATE, 2021, 0.25, basis=4, snapshot_id=number, source=f"source {number}") for number in range(1, 4)]
    axes = panels(plot_drift(drift(*rows, *(row(RATE, year, 0.5, 0.5) for year in range(2010, 2021)))))[0]
    assert words(axes).count("< 5") == 1


def test_ticks_of_one_axis_are_all_in_thousands_or_none() -> None:
    figures = plot_drift(drift(row(ATTENDEES, 2020, 9_999, 9_000)))
    FigureCanvasAgg(figures["series"].figure).draw()
    assert [tick.get_text() for tick in panels(figures)[0].get_yticklabels()] == ["0", "2.5 k", "5 k", "7.5 k", "10 k"]


def test_a_cell_too_small_for_a_word_has_a_sign_that_is_explained() -> None:
    figures = plot_drift(drift(*(row(ATTENDEES, year, 5) for year in range(1996, 2026))))
    assert set(cells(figures).values()) == {"+"}
    assert "+: computed, but no stored row" in everything_said(figures)


def test_thirty_years_of_drift_are_numbers_that_fit_their_cells() -> None:
    drifts = [199.5, 49.5, 2_000, 101_000, 95]
    rows = [row(ATTENDEES, 1996 + year, drifts[year % 5], 100 if year else 0) for year in range(30)]
    figures = plot_drift(drift(*rows))
    FigureCanvasAgg(figures["heatmap"].figure).draw()
    axes = panels(figures, "heatmap")[0]
    assert {"+100", "−51", "×20", "≫", "−5.0"} <= set(cells(figures).values())
    for text in axes.texts:
        if not isinstance(text, Annotation):
            assert text.get_size() >= 6
            box, at = text.get_window_extent(), text.get_position()
            (left, bottom), (right, top) = axes.transData.transform(
                [(at[0] - 0.5, at[1] + 0.5), (at[0] + 0.5, at[1] - 0.5)]
            )
            assert left < box.x0 < box.x1 < right
            assert bottom < box.y0 < box.y1 < top


def test_the_color_scale_is_stated_with_the_digits_of_the_largest_drift() -> None:
    figures = plot_drift(drift(row(ATTENDEES, 2020, 199.499, 100), row(NPS, 2020, 30, 20)))
    assert title(figures, "heatmap").endswith("+99.5 %")
    assert "mean 99.5 percent, 10 points" in everything_said(figures)


def test_a_count_of_fewer_than_five_is_no_secret() -> None:
    assert "< 5" not in everything_said(plot_drift(drift(row(ATTENDEES, 2020, 3, 4, basis=3))))


def test_two_snapshots_of_a_year_are_both_shown() -> None:
    figures = plot_drift(
        drift(
            row(ATTENDEES, 2022, 9, 9),
            row(ATTENDEES, 2023, 10, 12, source="manual_import", snapshot_id=9),
            row(ATTENDEES, 2023, 10, 10, source="system", snapshot_id=10),
        )
    )
    axes = panels(figures, "series")[0]
    assert line(axes, "stored") == {2022: 9, 2023: 10}  # through the source that covers most years
    (further,) = line(axes, "stored values of additional snapshots").items()
    assert 2023 < further[0] < 2024
    assert further[1] == 12
    assert "additional snapshots of 2023 (manual_import)" in figures["series"].figure.texts[2].get_text()
    assert cells(figures) == {(0, 0): "= 9", (0, 1): "12 → 10   −16.7 %", (0, 2): "= 10"}  # as in tables
    above = words(panels(figures, "heatmap")[0])
    assert above.count("2023") == 2
    assert "manual import" in " ".join(above).replace("\n", " ")


def test_monthly_snapshots_are_drawn_at_their_month() -> None:
    rows = [
        row(ATTENDEES, 2023, 9, 9, date="2023-11-01", kind="monthly", snapshot_id=1),
        row(ATTENDEES, 2024, 8, 9, date="2024-02-01", kind="monthly", snapshot_id=2),
    ]
    figures = plot_drift(drift(*rows))
    stored = line(panels(figures, "series")[0], "stored")
    assert list(stored) == pytest.approx([2023 + 10 / 12, 2023 + 11 / 12, 2024, 2024 + 1 / 12])
    assert list(stored.values()) == pytest.approx([9, NAN, NAN, 9], nan_ok=True)
    assert {"2023-11", "2023-12", "2024-01", "2024-02"} <= set(words(panels(figures, "heatmap")[0]))
