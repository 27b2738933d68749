from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from typing import Any

import matplotlib
import matplotlib.text
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from kpibackfill.errors import Refused
from kpibackfill.kpis import registry
from kpibackfill.kpis.registry import as_dict
from kpibackfill.plots import Figures, plot_drift, plot_history, style
from tests.figures import (
    ATTENDEES,
    KPIS,
    NAN,
    RATE,
    STORY,
    drift,
    everything_said,
    line,
    panels,
    row,
    title,
    words,
)

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


def shown(figures: Figures) -> list[tuple[str, str]]:
    """The SVG element and the alternative text of each drawing."""
    return [(drawing.svg(), drawing.alt) for drawing in figures]


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("years", [1, 30])
def test_any_label_can_be_drawn(label: str, years: int) -> None:
    rows = [row("some_kpi", 1996 + year, 5, 4) for year in range(years)]
    kpis = {"some_kpi": {"label": label, "unit": "count"}}
    for drawing in plot_drift(drift(*rows, kpis=kpis)):
        assert drawing.png().startswith(b"\x89PNG")
        element = ElementTree.fromstring(drawing.svg())
        assert element.attrib["aria-label"] == drawing.alt


def test_texts_are_made_drawable() -> None:
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
def test_texts_stay_within_the_sheet(panels: int, years: int) -> None:
    units = ("count", "points", "fraction")
    kpis = {f"kpi_{number}": {"label": f"KPI {number}", "unit": units[number % 3]} for number in range(panels)}
    rows = [
        row(kpi_id, 2000 + year, 0.5 + year, 0.25 * (1 + number % 4))
        for number, kpi_id in enumerate(kpis)
        for year in range(years)
    ]
    rows += [row("kpi_0", 2000 + years)]  # so that the last values of the others carry their year
    for drawing in plot_drift(drift(*rows, kpis=kpis)):
        FigureCanvasAgg(drawing.figure).draw()
        sheet = drawing.figure.bbox
        for text in drawing.figure.findobj(matplotlib.text.Text):
            if text.get_text() and text.get_visible():
                box = text.get_window_extent()
                assert box.x0 >= sheet.x0 - 1, text
                assert box.x1 <= sheet.x1 + 1, text
                assert box.y1 <= sheet.y1 + 1, text


def test_the_names_of_the_standard_kpis_are_never_cut() -> None:
    registered = {kpi_id: as_dict(entry) for kpi_id, entry in registry.load().items()}
    every = {f"{kpi_id}_{number}": words for number in range(5) for kpi_id, words in registered.items()}
    figures = plot_drift(drift(*(row(kpi_id, 2020, 0.5, 0.25) for kpi_id in every), kpis=every))
    assert len(panels(figures)) > 24
    assert "…" not in everything_said(figures)


def test_values_that_are_not_numbers_are_drawn_as_none() -> None:
    frame = drift(row(ATTENDEES, 2020, 5, 4), row(ATTENDEES, 2021, 5, 4))
    frame.loc[1, ["stored", "delta", "change"]] = [math.inf, -math.inf, NAN]
    for drawing in plot_drift(frame):
        assert drawing.png()


def test_an_empty_drift_is_one_sentence() -> None:
    figures = plot_drift(drift())
    assert [drawing.name for drawing in figures] == ["series"]
    assert figures["series"].alt == "An empty figure. No snapshots in these years: nothing to compare."
    assert figures["series"].png()


def test_alternative_texts_state_the_finding_and_the_gaps() -> None:
    figures = plot_drift(drift(*STORY))
    series, heatmap = figures["series"].alt, figures["heatmap"].alt
    assert series.startswith("3 panels, one per KPI: stored and computed values, 2017 to 2021. All 3 KPIs differ")
    assert "No stored value – Workshop attendees: 2019–2021; Education NPS: 2017, 2019, 2020;" in series
    assert "No computed value – Workshop attendees, Workshop participants who are BIPOC: 2019, 2020;" in series
    assert "Stored, but nothing to compute from – Education NPS: 2018." in series
    assert "3 of 5 stored values differ" in heatmap
    assert "Education NPS 2021, +4.1 points; Workshop participants who are BIPOC 2018, +1.0 points" in heatmap
    assert repr(figures) == f"{series}\n{heatmap}"


def test_svg_is_the_same_each_time_and_carries_no_date() -> None:
    first, second = (shown(plot_drift(drift(*STORY))) for _ in range(2))
    assert first == second
    figures = plot_drift(drift(*STORY))
    assert shown(figures) == first  # also after it was drawn once
    assert shown(figures) == first
    for svg, alt in first:
        assert svg.startswith('<svg role="img" aria-label="')
        assert ElementTree.fromstring(svg).attrib["aria-label"] == alt
        assert "<dc:date>" not in svg
        assert "matplotlib" not in svg.lower().split("<g ")[0]
    ids = [re.findall(r' id="([^"]+)"', svg) for svg, _ in first]
    assert all(len(one) == len(set(one)) for one in ids)


def test_a_users_style_is_not_changed_and_has_no_effect() -> None:
    plain = shown(plot_drift(drift(*STORY)))
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        assert shown(plot_drift(drift(*STORY))) == plain
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


def test_the_drift_is_not_changed() -> None:
    frame = drift(*STORY)
    before = frame.copy(deep=True)
    plot_drift(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert frame.attrs == before.attrs


def history(*writes: tuple[Any, ...], kpi_id: str = ATTENDEES) -> pd.DataFrame:
    columns = ["snapshot_id", "year", "when", "before", "value", "basis_before", "basis"]
    frame = pd.DataFrame(list(writes), columns=columns).assign(kpi_id=kpi_id, reason="as the board $ decided")
    frame["run_id"] = frame["when"]
    frame["when"] = pd.to_datetime(frame["when"], utc=True)
    frame.attrs["kpis"] = KPIS
    return frame


def test_a_history_shows_what_was_found_and_what_was_written() -> None:
    figures = plot_history(
        history(
            (1, 2018, "2026-01-10", 160, 94, None, 40),
            (1, 2018, "2026-03-10", 97, NAN, None, None),
            (2, 2019, "2026-01-10", NAN, 40, None, 40),
        )
    )
    assert title(figures, "history") == "Workshop attendees 2018 was written 2 times: 160 → 94 → deleted"
    first, second = panels(figures, "history")
    assert list(line(first, "before").values()) == [160, 97]
    assert list(line(first, "value").values()) == pytest.approx([94, NAN], nan_ok=True)
    assert list(line(first, "changed in between").values()) == [94, 97]
    assert {"2018", "160 → 94", "97 → deleted", "deleted"} <= set(words(first))
    assert {"2019", "no row → 40", "40"} <= set(words(second))
    assert "2 runs · 2 rows · 2026-01-10 to 2026-03-10" in figures["history"].alt
    assert "2026-03-10: as the board $ decided" in everything_said(figures)
    assert shown(figures) == shown(figures)


def test_a_history_explains_only_what_is_drawn_and_dates_a_single_write() -> None:
    def notes(*writes: tuple[Any, ...]) -> str:
        figures = plot_history(history(*writes))
        FigureCanvasAgg(figures["history"].figure).draw()
        labels = [tick.get_text() for tick in panels(figures, "history")[-1].get_xticklabels()]
        assert labels
        assert not any(":" in label for label in labels)
        return everything_said(figures)

    new = notes((1, 2018, "2026-01-10 14:30", NAN, 94, None, 40))
    assert "Dot: what it wrote. Dashed: kept." in new
    assert "Ring" not in new
    assert "Dotted" not in new
    both = notes((1, 2018, "2026-01-10", 160, 94, None, 40), (1, 2018, "2026-03-10", 97, 94, None, 40))
    assert "Ring: what the run found. Dot: what it wrote. Dashed: kept. Dotted: changed in between" in both


def test_writes_minutes_apart_are_separate_marks_with_their_times() -> None:
    def dates(figures: Figures) -> list[str]:
        FigureCanvasAgg(figures["history"].figure).draw()
        return [tick.get_text() for tick in panels(figures, "history")[-1].get_xticklabels()]

    today = [(1, 2018, f"2026-01-10 15:3{minute}", 100 + minute, 101 + minute, None, 40) for minute in (1, 4)]
    figures = plot_history(history(*today))
    axes = panels(figures, "history")[0]
    (first, last), (low, high) = line(axes, "value"), axes.get_xlim()
    assert 0.8 < (last - first) / (high - low) < 1
    assert any(":" in label for label in dates(figures))
    figures = plot_history(history((1, 2018, "2025-01-10 00:00", 160, 94, None, 40), *today))
    axes = panels(figures, "history")[0]
    assert list(line(axes, "value")) == [1, 2, 3]
    assert dates(figures) == ["2025-01-10\n00:00", "2026-01-10\n15:31", "2026-01-10\n15:34"]
    assert "Runs are in order" in everything_said(figures)


def test_a_history_withholds_rates_of_fewer_than_five_people() -> None:
    writes = (1, 2018, "2026-01-10", 0.5, 0.25, 40, 4), (1, 2018, "2026-02-10", 0.25, 0.6, 4, 40)
    figures = plot_history(history(*writes, kpi_id=RATE))
    axes = panels(figures, "history")[0]
    assert not any(0.25 in list(line.get_ydata()) for line in axes.lines)
    assert "25.0 %" not in everything_said(figures)
    assert "50.0 % → < 5 → 60.0 %" in figures["history"].alt


@pytest.mark.parametrize(("column", "argument", "noun"), [("kpi_id", "kpi", "KPI"), ("target", "target", "target")])
def test_a_history_of_several_kpis_or_targets_is_not_drawn_under_the_name_of_one(
    column: str, argument: str, noun: str
) -> None:
    frame = history((1, 2018, "2026-01-10", 160, 94, None, 40), (1, 2018, "2026-02-10", 5, 6, None, 40))
    frame[column] = ["one", "other"]
    with pytest.raises(Refused, match=rf'shows one {noun}, .* of 2: one, other\. .*{argument}="one"\)'):
        plot_history(frame)


def test_an_empty_history_is_one_sentence() -> None:
    figures = plot_history(history())
    assert figures["history"].alt == "No run has written a value."
    assert figures["history"].png()


def test_drawing_needs_no_pyplot() -> None:
    code = "import sys, kpibackfill.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
