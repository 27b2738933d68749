from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from kpibackfill.plots import Figures, plot_drift, style

KPIS = {
    "workshop_attendees": {"label": "Workshop attendees", "unit": "count"},
    "education_nps": {"label": "Education NPS", "unit": "points"},
    "workshop_participants_bipoc": {"label": "Workshop participants who are BIPOC", "unit": "fraction"},
}
ATTENDEES, NPS, RATE = KPIS
NAN = math.nan


def drift(*rows: dict[str, Any], kpis: dict[str, dict[str, str]] | None = None) -> pd.DataFrame:
    """A drift frame of rows that name what is special about them."""
    records = [_record(**row) for row in rows]
    columns = list(_record(ATTENDEES, 2020))
    frame = pd.DataFrame(records, columns=columns).astype(
        {"basis": "Int64", "population": "Int64", "computed": float, "stored": float, "delta": float, "change": float}
    )
    frame.attrs["kpis"] = kpis or KPIS
    return frame


def _record(
    kpi_id: str,
    year: int,
    computed: float = NAN,
    stored: float = NAN,
    *,
    basis: int | None = 40,
    source: str = "system",
    snapshot_id: int | None = None,
    date: str | None = None,
    kind: str = "annually",
    stored_month: int = 12,
) -> dict[str, Any]:
    date = date or f"{year}-12-31"
    computed_f4, stored_f4 = np.float32(computed), np.float32(stored)
    delta = float(computed_f4) - float(stored_f4)
    if math.isnan(computed):
        status = "no_data" if math.isnan(stored) else "unsupported"
    elif math.isnan(stored):
        status = "new"
    else:
        status = "unchanged" if delta == 0 and stored_month == 12 else "changed"
    return {
        "snapshot_id": snapshot_id or year,
        "snapshot_date": date,
        "snapshot_type": kind,
        "source": source,
        "year": year,
        "period": {"monthly": date[:7], "quarterly": f"{year} Q{(int(date[5:7]) + 2) // 3}"}.get(kind, str(year)),
        "kpi_id": kpi_id,
        "computed": computed,
        "basis": basis,
        "population": basis,
        "warnings": (),
        "period_year": year,
        "period_month": 12,
        "stored": stored,
        "computed_f4": computed_f4,
        "stored_f4": stored_f4,
        "stored_period_year": pd.NA if math.isnan(stored) else year,
        "stored_period_month": pd.NA if math.isnan(stored) else stored_month,
        "delta": delta,
        "change": delta / abs(stored) if stored else NAN,
        "status": status,
    }


def row(*values: Any, **special: Any) -> dict[str, Any]:
    names = ("kpi_id", "year", "computed", "stored")
    return {**dict(zip(names, values, strict=False)), **special}


STORY = (
    row(ATTENDEES, 2017, 60, 60),
    row(ATTENDEES, 2018, 69, 100),
    row(ATTENDEES, 2021, 82, NAN),
    row(NPS, 2017, NAN, NAN),
    row(NPS, 2018, NAN, 0),
    row(NPS, 2021, 34.1, 30),
    row(RATE, 2017, 0.5, 0.5, stored_month=4),
    row(RATE, 2018, 0.51, 0.5),
    row(RATE, 2021, 0.25, 0.75, basis=4),
)


def title(figures: Figures, name: str) -> str:
    return figures[name].figure.texts[0].get_text().replace("\n", " ")


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def everything_said(figures: Figures) -> str:
    drawn = [text.get_text() for drawing in figures for text in drawing.figure.findobj(matplotlib.text.Text)]
    return "\n".join([*drawn, *(drawing.alt for drawing in figures)])


def line(axes: Axes, label: str) -> dict[float, float]:
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return dict(zip(map(float, found.get_xdata()), map(float, found.get_ydata()), strict=True))


def cells(figures: Figures) -> dict[tuple[int, int], str]:
    """What the cells of the heat map say, by row and column."""
    axes = figures["heatmap"].figure.axes[0]
    inside = [text for text in axes.texts if isinstance(text, matplotlib.text.Text) and not hasattr(text, "xy")]
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in inside}


def test_titles_state_the_finding() -> None:
    figures = plot_drift(drift(*STORY))
    assert title(figures, "heatmap") == "3 of 5 stored values differ; the largest: Workshop attendees 2018, −31.0 %"
    assert title(figures, "series") == "All 3 KPIs differ from what is stored, each in one value"
    below = figures["heatmap"].figure.texts[1].get_text()
    assert "1 new" in below
    assert "1 stored with nothing to compute from" in below
    assert "1 with a different period only" in below
    assert "1 without data" in below
    assert "1 withheld (< 5 people)" in below


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(ATTENDEES, 2020, 5, 5), row(ATTENDEES, 2021, 6, 6)], "All 2 stored values agree with the computed ones"),
        ([row(ATTENDEES, 2020, 5, 5)], "The one stored value agrees"),
        ([row(ATTENDEES, 2020, 5, 4)], "The one stored value differs: Workshop attendees 2020, +25.0 %"),
        ([row(ATTENDEES, 2020, 5, 0)], "The one stored value differs: Workshop attendees 2020, 0 → 5"),
        ([row(ATTENDEES, 2020, 5), row(NPS, 2020, 6)], "Nothing is stored yet: 2 new values"),
        ([row(ATTENDEES, 2020)], "No value is both stored and computed: nothing to compare"),
        ([], "No snapshots in these years: nothing to compare"),
    ],
)
def test_a_title_fits_what_there_is(rows: list[dict[str, Any]], expected: str) -> None:
    figures = plot_drift(drift(*rows))
    assert title(figures, "series") == expected
    assert expected in figures["series"].alt


def test_the_lines_run_through_the_values() -> None:
    attendees, nps, rate = plot_drift(drift(*STORY))["series"].figure.axes
    assert line(attendees, "computed") == pytest.approx(
        {2017: 60, 2018: 69, 2019: NAN, 2020: NAN, 2021: 82}, nan_ok=True
    )
    assert line(attendees, "stored") == pytest.approx(
        {2017: 60, 2018: 100, 2019: NAN, 2020: NAN, 2021: NAN}, nan_ok=True
    )
    assert line(nps, "stored") == pytest.approx({2017: NAN, 2018: 0, 2019: NAN, 2020: NAN, 2021: 30}, nan_ok=True)
    assert line(rate, "computed")[2018] == 0.51


def test_missing_years_are_gaps_on_grey() -> None:
    attendees, nps, _ = plot_drift(drift(*STORY))["series"].figure.axes
    for axes, years in ((attendees, [2019, 2020]), (nps, [2017, 2019, 2020])):
        bands = [patch.get_x() + patch.get_width() / 2 for patch in axes.patches]
        assert bands == years


def test_unsupported_values_are_crossed() -> None:
    attendees, nps, _ = plot_drift(drift(*STORY))["series"].figure.axes
    assert line(nps, "unsupported") == {2018: 0}
    assert line(attendees, "unsupported") == {}


def test_stored_and_computed_differ_in_colour_grey_and_shape() -> None:
    axes = plot_drift(drift(*STORY))["series"].figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    stored, computed = lines["stored"], lines["computed"]
    assert (stored.get_color(), computed.get_color()) == (style.STORED, style.COMPUTED)
    assert stored.get_linestyle() != computed.get_linestyle()
    grey = [float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722))) for colour in (style.STORED, style.COMPUTED)]
    assert abs(grey[0] - grey[1]) > 0.1


def test_the_last_values_are_labelled_in_words() -> None:
    attendees, nps, _ = plot_drift(drift(*STORY))["series"].figure.axes
    assert {"82\ncomputed", "100\nstored 2018", "−31.0 %"} <= set(words(attendees))
    assert {"34.1\ncomputed", "30.0\nstored", "+4.1 points"} <= set(words(nps))


def test_the_heat_map_says_each_drift_in_the_measure_of_its_kpi() -> None:
    rows = [row(ATTENDEES, 2013 + year, 1, 1) for year in range(4)]
    said = cells(plot_drift(drift(*rows, *STORY)))
    last = {line: {text for (at, _), text in said.items() if at == line} for line in range(3)}
    assert "−31.0" in last[0]
    assert "+4.1" in last[1]
    assert "+1.0" in last[2]


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
        (patch.get_hatch(), patch.get_linestyle(), patch.get_facecolor(), patch.get_linewidth())
        for patch in figures["heatmap"].figure.axes[0].patches
    }
    assert len(looks) == 6


def test_colours_are_centred_at_zero_and_scaled_per_measure() -> None:
    figures = plot_drift(drift(*STORY, row(ATTENDEES, 2022, 115.5, 100), row(NPS, 2022, 40, 48.2)))
    (mesh,) = figures["heatmap"].figure.axes[0].collections
    colours = np.ma.filled(mesh.get_array(), NAN).reshape(3, 6)
    assert mesh.get_clim() == (-1, 1)
    assert colours[0, 1] == -1  # the largest of the counts
    assert colours[0, 5] == pytest.approx(0.5)
    assert colours[1, 5] == -1  # the largest of the scores
    assert colours[1, 4] == pytest.approx(0.5)
    assert colours[2, 1] == pytest.approx(0.2, abs=1e-3)  # one point is no deep colour, though the largest of the rates
    assert np.isnan(colours[0, 0])


def test_a_drift_from_a_stored_zero_has_the_deepest_colour() -> None:
    figures = plot_drift(drift(row(ATTENDEES, 2020, 31, 0), row(ATTENDEES, 2021, 11, 10)))
    (mesh,) = figures["heatmap"].figure.axes[0].collections
    assert mesh.get_array().ravel().tolist() == [1.0, 1.0]
    assert cells(figures)[0, 0] == "0 → 31"
    assert title(figures, "heatmap").endswith("the largest: Workshop attendees 2021, +10.0 %")


@pytest.mark.parametrize("stored", [0.75, 0.26, 0.25])
def test_a_rate_of_fewer_than_five_people_is_shown_nowhere(stored: float) -> None:
    figures = plot_drift(drift(row(RATE, 2020, 0.5, 0.5, basis=5), row(RATE, 2021, 0.25, stored, basis=4)))
    axes = figures["series"].figure.axes[0]
    assert "< 5" in words(axes)
    assert cells(figures)[0, 1] == "< 5"
    assert math.isnan(line(axes, "computed")[2021])
    computed = [list(line.get_ydata()) for line in axes.lines if line.get_color() == style.COMPUTED]
    assert not any(0.25 in values for values in computed)
    (mesh,) = figures["heatmap"].figure.axes[0].collections
    assert mesh.get_array().mask.all()
    said = everything_said(figures)
    assert "stored value agrees" in said  # the one that rests on enough people
    if stored != 0.25:
        assert "25.0 %" not in re.sub(r"\b25 %", "", said)
    assert f"{25 - stored * 100:+.1f}".replace("-", "−") not in said
    assert "Withheld, fewer than five people" in figures["series"].alt


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
    axes = figures["series"].figure.axes[0]
    assert line(axes, "stored") == {2022: 9, 2023: 10}  # through the source that covers most years
    (further,) = line(axes, "stored values of further snapshots").items()
    assert 2023 < further[0] < 2024
    assert further[1] == 12
    assert "further snapshots of 2023 (manual_import)" in figures["series"].figure.texts[2].get_text()
    assert cells(figures) == {(0, 0): "= 9", (0, 1): "= 10", (0, 2): "12 → 10   −16.7 %"}
    above = words(figures["heatmap"].figure.axes[0])
    assert above.count("2023") == 2
    assert "manual import" in " ".join(above).replace("\n", " ")


def test_monthly_snapshots_stand_at_their_month() -> None:
    rows = [
        row(ATTENDEES, 2023, 9, 9, date="2023-11-01", kind="monthly", snapshot_id=1),
        row(ATTENDEES, 2024, 8, 9, date="2024-02-01", kind="monthly", snapshot_id=2),
    ]
    figures = plot_drift(drift(*rows))
    stored = line(figures["series"].figure.axes[0], "stored")
    assert list(stored) == pytest.approx([2023 + 10 / 12, 2023 + 11 / 12, 2024, 2024 + 1 / 12])
    assert list(stored.values()) == pytest.approx([9, NAN, NAN, 9], nan_ok=True)
    assert {"2023-11", "2023-12", "2024-01", "2024-02"} <= set(words(figures["heatmap"].figure.axes[0]))


LABELS = [
    "Revenue $x^2$ in $\\frac$ US$\nsecond line",
    "🎓 Workshop 🛠️ graduates",
    "عدد المشاركين في ورش العمل",
    "工作坊参加者",
    "\u202e evil \ud800 \x00 <b>&\"'",
    "long " * 60,
    "Donaudampfschifffahrtsgesellschaft" * 5,
    "",
]


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("years", [1, 30])
def test_any_label_can_be_drawn(label: str, years: int) -> None:
    rows = [row("some_kpi", 1996 + year, 5, 4) for year in range(years)]
    kpis = {"some_kpi": {"label": label, "unit": "count"}}
    for drawing in plot_drift(drift(*rows, kpis=kpis)):
        assert drawing.png().startswith(b"\x89PNG")
        element = ElementTree.fromstring(drawing.svg())
        assert element.attrib["aria-label"] == drawing.alt


def test_words_are_made_fit_to_draw() -> None:
    assert style.drawable(LABELS[0]) == "Revenue $x^2$ in $\\frac$ US$ second line"
    assert style.drawable(LABELS[1]) == "Workshop graduates"
    assert style.drawable(LABELS[3], instead="some_kpi") == "some_kpi"
    assert style.drawable("🎓", instead="some_kpi") == "some_kpi"
    assert style.clean("a\u202eb\x00c") == "a b c"
    for width in (0.3, 1.0, 4.0):
        for lines in (1, 2):
            rows = style.fit(LABELS[5].strip(), width, 8, lines=lines).split("\n")
            assert len(rows) == lines
            assert all(style.extent(row, 8) <= width for row in rows)
            assert rows[-1].endswith("…")
    assert style.fit("short", 4, 8, lines=2) == "short"


@pytest.mark.parametrize(("panels", "years"), [(1, 1), (1, 30), (6, 1), (6, 11), (25, 2)])
def test_words_keep_within_the_sheet(panels: int, years: int) -> None:
    units = ("count", "points", "fraction")
    kpis = {f"kpi_{number}": {"label": f"KPI {number}", "unit": units[number % 3]} for number in range(panels)}
    rows = [
        row(kpi_id, 2000 + year, 0.5 + year, 0.25 * (1 + number % 4))
        for number, kpi_id in enumerate(kpis)
        for year in range(years)
    ]
    for drawing in plot_drift(drift(*rows, kpis=kpis)):
        FigureCanvasAgg(drawing.figure).draw()
        sheet = drawing.figure.bbox
        for text in drawing.figure.findobj(matplotlib.text.Text):
            if text.get_text() and text.get_visible():
                box = text.get_window_extent()
                assert box.x0 >= sheet.x0 - 1, text
                assert box.x1 <= sheet.x1 + 1, text
                assert box.y1 <= sheet.y1 + 1, text


def test_values_that_are_no_numbers_are_drawn_as_none() -> None:
    frame = drift(row(ATTENDEES, 2020, 5, 4), row(ATTENDEES, 2021, 5, 4))
    frame.loc[1, ["stored", "delta", "change"]] = [math.inf, -math.inf, NAN]
    for drawing in plot_drift(frame):
        assert drawing.png()


def test_an_empty_drift_is_one_sentence() -> None:
    figures = plot_drift(drift())
    assert [drawing.name for drawing in figures] == ["series"]
    assert figures["series"].alt == "An empty figure. No snapshots in these years: nothing to compare."
    assert figures["series"].png()


def test_alternative_texts_tell_the_finding_and_the_gaps() -> None:
    figures = plot_drift(drift(*STORY))
    series, heatmap = figures["series"].alt, figures["heatmap"].alt
    assert series.startswith("3 panels, one a KPI: stored and computed values, 2017 to 2021. All 3 KPIs differ")
    assert "No stored value – Workshop attendees: 2019–2021; Education NPS: 2017, 2019, 2020;" in series
    assert "No computed value – Workshop attendees, Workshop participants who are BIPOC: 2019, 2020;" in series
    assert "Stored with nothing to compute from – Education NPS: 2018." in series
    assert "3 of 5 stored values differ" in heatmap
    assert "Education NPS 2021, +4.1 points; Workshop participants who are BIPOC 2018, +1.0 points" in heatmap
    assert repr(figures) == f"{series}\n{heatmap}"


def test_svg_is_the_same_each_time_and_carries_no_date() -> None:
    first, second = (plot_drift(drift(*STORY)).items() for _ in range(2))
    assert first == second
    figures = plot_drift(drift(*STORY))
    assert figures.items() == first  # also after it was drawn once
    assert figures.items() == first
    for svg, alt in first:
        assert svg.startswith('<svg role="img" aria-label="')
        assert ElementTree.fromstring(svg).attrib["aria-label"] == alt
        assert "<dc:date>" not in svg
        assert "matplotlib" not in svg.lower().split("<g ")[0]
    ids = [re.findall(r' id="([^"]+)"', svg) for svg, _ in first]
    assert all(len(one) == len(set(one)) for one in ids)


def test_a_users_style_is_left_alone_and_has_no_say() -> None:
    plain = plot_drift(drift(*STORY)).items()
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        assert plot_drift(drift(*STORY)).items() == plain
        assert dict(matplotlib.rcParams) == before


def test_a_notebook_shows_pictures_with_alternative_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[dict[str, Any], dict[str, Any]]] = []
    monkeypatch.setattr("IPython.display.publish_display_data", lambda data, metadata: shown.append((data, metadata)))
    figures = plot_drift(drift(*STORY))
    figures._ipython_display_()
    assert [data["text/plain"] for data, _ in shown] == [drawing.alt for drawing in figures]
    for (data, metadata), drawing in zip(shown, figures, strict=True):
        assert data["image/png"] == drawing.png()
        assert metadata == {"image/png": {"width": 900, "alt": drawing.alt}}


def test_the_drift_is_left_as_it_was() -> None:
    frame = drift(*STORY)
    before = frame.copy(deep=True)
    plot_drift(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert frame.attrs == before.attrs


def test_drawing_needs_no_pyplot() -> None:
    code = "import sys, kpibackfill.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
