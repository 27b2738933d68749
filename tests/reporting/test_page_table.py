"""What people read about the dashboard: the page now and after, which rows stay hidden, and what is left to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import kpibackfill as kb
from kpibackfill.archive.models import Fate, PageAfter, PageCell, PageRecord, PageSection, Receipt, read
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.execution.papermill import HandedOver
from kpibackfill.reporting.page_table import hidden_sentence, page_after_sentence, page_table, warm_commands
from kpibackfill.reporting.report import closing_page
from kpibackfill.reporting.run_summary import run_summary
from tests.browser import chromium
from tests.databases import add_payload, connect, on
from tests.reporting.conftest import DASHBOARDS, RATE
from tests.reporting.test_report import Page, page
from tests.workbench import Workbench

FOLDER = Path("runs")
AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECTIONS = (
    PageSection(name="education", computed_at="2026-11-22T10:00:00+00:00", expires_at="2026-11-22T16:00:00+00:00"),
    PageSection(name="outreach", computed_at="2026-11-22T11:30:00+00:00", expires_at=None),
)


def cell(kpi_id: str, year: int, now: Any = (), after: Any = (), now_from: Any = "payload", **more: Any) -> PageCell:
    changes = now != after and now_from != "live"
    return PageCell(
        kpi_id=kpi_id, year=year, now=now, now_from=now_from, after=after, snapshots=(), changes=changes, **more
    )


def test_the_table_is_of_one_line_a_kpi_and_names_only_the_marks_that_occur() -> None:
    cells = (
        cell("odd", 2023, (0.5,), (0.5,)),
        cell("odd", 2025, (0.5,), (0.25,)),
        cell("rate", 2024, (), (), withheld=True),
        cell("even", 2024, (3.0,), (3.0,), "target"),
        cell("even", 2025, (), (2.0, 3.0), "rows"),
    )
    record = PageRecord(cells=cells, sections=SECTIONS, planned={"shown": 2})
    table = page_table(record, {}, AT)
    assert table.lines() == [
        "On the page now (computed 2 hours ago) → after this plan: 2 cells would change.",
        "KPI   2023        2024        2025",
        "odd    0.5              0.5 → 0.25",
        "rate               < 5",
        "even        3 (target)  – → 2 or 3",
        "target: from the strategic plan, as long as no value is stored.",
    ]
    assert page_table(record, {}, applied=True).sentences == (
        "On the page before (computed 2026-11-22 10:00 UTC) → with this run's rows: 2 cells change.",
    )
    nothing = page_table(PageRecord(cells=(), sections=(), planned={"outside": 3}), {}, AT)
    assert nothing.lines() == [
        "The page's annual tables show none of these KPIs in these years, neither now nor after this plan.",
        "None of the 3 rows will show: 3 outside the page's years.",
    ]


@pytest.mark.parametrize(
    ("planned", "sentence"),
    [
        ({}, ""),
        ({"shown": 4}, ""),
        ({"removed": 4}, ""),
        ({"removed": 4, "live": 1}, "The row will not show: it is in a year that the page counts live."),
        ({"outside": 1}, "The row will not show: it is outside the page's years."),
        (
            {"behind": 5, "outside": 18, "live": 1, "shown": 6},
            "24 of the 30 rows will not show: 18 outside the page's years, 5 behind a later snapshot of the year, "
            "1 in a year that the page counts live.",
        ),
        (
            {"test": 2, "none": 1_200},
            "None of the 1,202 rows will show: 2 in a test snapshot, 1,200 in no annual table.",
        ),
    ],
)
def test_hidden_rows_are_counted_with_their_reasons(planned: dict[Fate, int], sentence: str) -> None:
    assert hidden_sentence(planned) == sentence


@pytest.mark.parametrize(
    ("after", "sentence", "commands"),
    [
        (None, "", []),
        (PageAfter(stale=0, sections=SECTIONS), "The page shows the stored rows.", []),
        (
            PageAfter(stale=1, sections=SECTIONS[:1]),
            "The page still shows other numbers than the rows in 1 cell; cron brings the new ones in about 4 hours.",
            ["drush msd:kpi-warm education"],
        ),
        (
            PageAfter(stale=2, sections=SECTIONS[1:]),
            "The page still shows other numbers than the rows in 2 cells; cron brings the new ones when it runs next.",
            ["drush msd:kpi-warm outreach"],
        ),
        (
            PageAfter(stale=0, sections=()),
            "The dashboard stores no page yet: the next view computes it from the rows.",
            [],
        ),
        (PageAfter(stale=None, sections=(), note="It is not known."), "It is not known.", ["drush msd:kpi-warm"]),
        (PageAfter(stale=0, sections=(), note="It reads other ids."), "It reads other ids.", []),
    ],
)
def test_after_an_apply_it_says_what_is_left_to_do(after: PageAfter | None, sentence: str, commands: list[str]) -> None:
    assert page_after_sentence(after, AT) == sentence
    assert warm_commands(after) == commands
    outcome = {"run_id": "RUN", "state": "applied", "plan": {"rows": 2}, "target": "live"}
    handed = HandedOver({**outcome, "page_after": json.loads(after.model_dump_json()) if after else None}, FOLDER)
    said = sentence.partition(";")[0]  # what follows depends on the time
    assert repr(handed).startswith(f"applied: RUN. {said}".rstrip())
    assert all(text in Page(handed._repr_html_()).words for text in (said, *commands))


@on("sqlite")
def test_every_surface_says_what_people_will_see_and_what_is_left_to_do(bench: Workbench) -> None:
    bench.configure(dashboards=DASHBOARDS)
    add_payload(bench.database, education={"education_nps": {2024: 1.5}}, outreach={"workshop_attendees": {2023: 7}})
    asked: dict[str, Any] = {"from_year": 2021, "to_year": 2024, "kpis": "education_nps,workshop_attendees"}
    steps = bench.steps(**asked)
    dry_run = bench.finish(**asked)
    changed = [cell for cell in dry_run["page"]["cells"] if cell["changes"]]
    assert {("education_nps", 2024), ("workshop_attendees", 2023)} <= {(c["kpi_id"], c["year"]) for c in changed}
    would = f"{len(changed)} cells would change."
    hidden = hidden_sentence(dry_run["page"]["planned"])
    assert "outside the page's years" in hidden
    summary = run_summary(read(Receipt, json.dumps(dry_run)), bench.runs[-1])
    report = page(bench.runs[-1])
    shown = bench.command("show", "latest").stdout
    for text in (summary, repr(steps.plan.page), Page(steps.plan.page._repr_html_()).words, report.words, shown):
        assert would in text
        assert hidden in text
    assert report.words.index(" rows: ") < report.words.index("On the dashboard") < report.words.index("Stored and")
    assert "1.5 → " in report.words
    assert report.all("a")[0]["href"] == f"{DASHBOARDS}/overview"
    assert summary.index(would) < summary.index("Dry run: nothing was written.")

    applied = bench.finish(**asked, apply=True)
    commands = ["drush msd:kpi-warm education", "drush msd:kpi-warm outreach"]
    assert [f"drush msd:kpi-warm {section['name']}" for section in applied["page_after"]["sections"]] == commands
    summary = run_summary(read(Receipt, json.dumps(applied)), bench.runs[-1])
    still = f"The page still shows other numbers than the rows in {applied['page_after']['stale']} cells"
    for text in (summary, page(bench.runs[-1]).words):
        assert still in text
        assert all(command in text for command in commands)
    assert f"Right after the apply: {still[:1].lower()}{still[1:]}" in bench.command("show", "latest").stdout
    outcome = bench.command("run", "--target", "test", "--from-year", "2024", "--json")
    assert {"page", "page_after", "kpi_id_prefix"} <= json.loads(outcome.stdout).keys()


@on("sqlite")
def test_a_revert_that_only_deletes_is_a_plan_like_any_other(bench: Workbench) -> None:
    asked: dict[str, Any] = {"from_year": 2024, "to_year": 2024, "kpis": "education_nps"}
    with connect(bench.database.url) as connection:
        connection.exec_driver_sql("DELETE FROM ms_fact_kpi_snapshot")
    applied = bench.finish(**asked, apply=True)
    assert applied["page"]["planned"] == {"shown": 1}
    back = bench.finish(**asked, revert_of=applied["run_id"])
    assert back["page"]["planned"] == {"removed": 1}
    summary = run_summary(read(Receipt, json.dumps(back)), bench.runs[-1])
    assert "→ after this plan: 1 cell would change." in summary
    assert "will not show" not in summary


@on("sqlite")
def test_a_rate_of_too_few_people_is_withheld_also_where_its_row_is_to_go(
    odd_kpis: Workbench,
) -> None:
    asked: dict[str, Any] = {"from_year": 2024, "to_year": 2024, "kpis": "odd_rate"}
    applied = odd_kpis.finish(**asked, apply=True)
    add_payload(odd_kpis.database, dei={"odd_rate": {2024: RATE}})
    for receipt in (applied, odd_kpis.finish(**asked), odd_kpis.finish(**asked, revert_of=applied["run_id"])):
        [found] = receipt["page"]["cells"]
        assert (found["withheld"], found["now"], found["after"]) == (True, [], [])


@on("sqlite")
def test_a_rate_of_too_few_people_is_withheld_also_where_another_snapshot_shows_it(
    odd_kpis: Workbench,
) -> None:
    with connect(odd_kpis.database.url) as connection:
        connection.exec_driver_sql(
            "INSERT INTO ms_snapshot (id, definition, snapshot_type, snapshot_date, source) "
            "VALUES (9000, 'donation_metrics', 'annually', '2024-12-31', 'frozen')"
        )
        connection.exec_driver_sql("UPDATE ms_snapshot SET snapshot_date = '2024-11-30' WHERE id = 283")
        fact = "INSERT INTO ms_fact_kpi_snapshot (snapshot_id, kpi_id, metric_value) VALUES (9000, 'odd_rate', ?)"
        connection.exec_driver_sql(fact, (RATE,))
    [found] = odd_kpis.finish(from_year=2024, to_year=2024, kpis="odd_rate")["page"]["cells"]
    assert (found["snapshots"], found["withheld"], found["now"], found["after"]) == ([9000], True, [], [])


@on("sqlite")
def test_an_applys_cell_says_what_is_left_to_do(bench: Workbench) -> None:
    add_payload(bench.database, education={"education_nps": {2024: 1.5}})
    steps = bench.steps(record=True, from_year=2024, to_year=2024, apply=True)
    result = kb.apply_plan(steps.run, steps.plan)
    assert "The page still shows other numbers than the rows in 1 cell" in repr(result)
    assert "drush msd:kpi-warm education" in Page(result._repr_html_()).words


@on("sqlite")
def test_a_page_that_reads_other_ids_shows_none_of_the_rows_whatever_is_warmed(bench: Workbench) -> None:
    add_payload(bench.database, education={"kpi_education_nps": {2024: 1.5}})
    applied = bench.finish(from_year=2024, to_year=2024, apply=True)
    assert applied["page"]["planned"] == {"none": applied["plan"]["rows"]}
    assert applied["page_after"]["stale"] == 0
    summary = run_summary(read(Receipt, json.dumps(applied)), bench.runs[-1])
    assert "The page shows none of these rows, since it reads KPI ids with the prefix 'kpi_'." in summary
    assert "drush" not in summary


@pytest.mark.browser
@on("sqlite")
def test_eight_years_of_six_kpis_fit_a_screen_and_paper(bench: Workbench) -> None:
    receipt = read(Receipt, json.dumps(bench.finish(from_year=2024, to_year=2024, include_risky=True)))
    assert receipt.page is not None
    kpis = {entry.kpi_id: entry for entry in receipt.kpis}
    number = {"count": 1234.0, "points": -45.6, "fraction": 0.573}
    cells = tuple(
        cell(kpi_id, year, (number[entry.unit],), (number[entry.unit] * 1.5,))
        for kpi_id, entry in kpis.items()
        for year in range(2023, 2031)
    )
    receipt = receipt.changed(page=receipt.page.changed(cells=cells))
    assert len(kpis) == 6
    folder = RunRecord(bench.config.runs_dir, receipt.run_id).folder
    file = bench.folder / "report.html"
    file.write_text(closing_page(receipt, folder)[0], encoding="utf-8")
    with chromium() as browser:
        opened = browser.new_page()
        opened.goto(file.as_uri())
        for width, media in ((1000, "screen"), (688, "print")):  # A4 less its margins
            opened.set_viewport_size({"width": width, "height": 900})
            opened.emulate_media(media=media)
            box = opened.locator(".kb-box", has_text="2030")
            assert box.evaluate("box => box.scrollWidth <= box.clientWidth"), media
            style = box.locator(".kb-changes").first.evaluate("cell => getComputedStyle(cell).outlineStyle")
            assert style == "solid"
