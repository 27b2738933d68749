"""`runs/index.html` opens on its own, shows what the ledger says, and lets no text out of its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kpibackfill.archive import ledger
from kpibackfill.archive.models import Begun, Change, Closed
from kpibackfill.archive.run_record import INDEX
from kpibackfill.reporting import index
from tests.archives import listed_runs, recorded_changes
from tests.browser import chromium
from tests.workbench import Workbench

BEGUN = Begun(
    run_id="20250101T000000Z-test-2024-apply-00000a",
    target="test",
    years=(2024, 2024),
    apply=True,
    operator="o",
    reason="",
)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    document: dict[str, Any] = json.loads(found[1])
    return document


def test_it_is_there_after_each_run_and_shows_what_the_ledger_says(made_archive: Workbench) -> None:
    runs_dir = made_archive.config.runs_dir
    page = (runs_dir / INDEX).read_text()
    assert page == index.render(runs_dir)
    data = data_of(page)
    assert [row[0] for row in data["runs"]] == [run["run_id"] for run in listed_runs(runs_dir)]
    assert len(data["history"]) == len(recorded_changes(runs_dir)) > 0
    assert (runs_dir / INDEX).stat().st_mode & 0o777 == 0o600


def test_it_needs_no_network(made_archive: Workbench) -> None:
    page = index.render(made_archive.config.runs_dir)
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|//\w|url\(|@import|\bsrc=|<link", page)


def test_no_text_of_a_run_leaves_its_place(runs_dir: Path) -> None:
    nasty = "</script><script>alert(1)</script><!-- & ' \" \u2028"
    begun = BEGUN.changed(operator=nasty, reason=nasty)
    ledger.append(runs_dir, begun)
    page = index.render(runs_dir)
    assert page.count("</script>") == index.render(runs_dir.parent / "nothing").count("</script>") == 2
    assert "alert" in page
    assert nasty in data_of(page)["runs"][-1]


def test_a_rate_of_too_few_people_is_not_in_it(runs_dir: Path) -> None:
    ledger.append(runs_dir, BEGUN)
    change = Change(
        snapshot_id=1,
        kpi_id="workshop_participants_bipoc",
        year=2024,
        action="insert",
        before=None,
        after=0.3125,
        basis=3,
        unit="fraction",
    )
    ledger.append(runs_dir, Closed(run_id=BEGUN.run_id, state="applied", kpis=(), decisions=(), changes=(change,)))
    assert data_of(index.render(runs_dir))["history"][-1][-2] == "< 5"
    assert "0.3125" not in index.render(runs_dir)


@pytest.mark.browser
def test_it_filters_and_sorts_in_a_real_browser_without_a_network(made_archive: Workbench) -> None:
    runs_dir = made_archive.config.runs_dir
    with chromium() as browser:
        page = browser.new_page()
        asked: list[str] = []
        problems: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.goto((runs_dir / INDEX).as_uri())
        assert page.locator("#runs tbody tr").count() == 3
        written = page.locator("#history tbody tr").count()
        assert written == len(recorded_changes(runs_dir))
        page.fill("#find-runs", "APPLIED yearly")
        assert page.locator("#runs tbody tr").count() == 1
        link = page.locator("#runs tbody a").get_attribute("href")
        assert (runs_dir / str(link)).is_file()
        page.fill("#find-history", "nothing like that")
        assert page.locator("#history tbody tr").count() == 0
        page.fill("#find-history", "")

        def years() -> list[str]:
            return [str(text) for text in page.locator("#history tbody td:nth-child(3)").all_inner_texts()]

        for order in (sorted(years()), sorted(years(), reverse=True)):
            page.locator("#history th button").nth(2).press("Enter")
            assert years() == order
        assert page.locator("#history th[aria-sort=descending]").inner_text().startswith("Year")
        page.set_viewport_size({"width": 390, "height": 800})  # a phone: the tables scroll, the page does not
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert asked == [(runs_dir / INDEX).as_uri()]
        assert problems == []


@pytest.mark.browser
def test_it_fits_a_screen_and_paper_and_marks_what_reverts(runs_dir: Path) -> None:
    reverted = next(run["run_id"] for run in listed_runs(runs_dir) if run["state"] == "applied")
    begun = Begun(
        run_id="20300101T000000Z-test-2011-2025-dry-run-00000a",
        target="test",
        years=(2011, 2025),
        apply=False,
        operator="a.person.with.a.long.address@makerspace.example",
        reason="the board decided that the older definition holds",
        revert_of=reverted,
    )
    ledger.append(runs_dir, begun)
    index.write(runs_dir)
    cut = "[...document.querySelectorAll('.box')].map(box => box.scrollWidth > box.clientWidth)"
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto((runs_dir / INDEX).as_uri())
        first = page.locator("#runs tbody tr").first
        assert first.locator(".reason").inner_text().endswith(f"older definition holds; reverts {reverted}")
        assert page.evaluate(cut) == [False, False]
        dates = page.locator("td.started, td.when").evaluate_all(
            "all => all.map(cell => getComputedStyle(cell).whiteSpace)"
        )
        assert set(dates) == {"nowrap"}
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 1030, "height": 700})  # A4, landscape
        assert page.evaluate(cut) == [False, False]
