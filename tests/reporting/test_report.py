"""report.html: what it says, to whom, and that nothing in it can act or give away what is not for publication."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill import plots
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.errors import KpiBackfillError, Refused
from kpibackfill.lifecycle import closing
from kpibackfill.reporting import report
from kpibackfill.reporting.run_summary import run_summary
from tests.browser import chromium
from tests.databases import connect
from tests.reporting.conftest import DASHBOARDS, HOSTILE, RATE
from tests.workbench import Workbench

pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

STEERING = "\u202e\x1b[2J"


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open not in ("script", "style"):
            self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def figures(self) -> list[str]:
        sources = [image["src"] or "" for image in self.all("img")]
        return [base64.b64decode(source.partition(",")[2]).decode() for source in sources]


def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def rendered(record: RunRecord) -> str:
    return report.closing_page(record.receipt, record.folder)[0]


def test_says_first_what_was_asked_and_how_it_ended(bench: Workbench) -> None:
    bench.configure(dashboards=DASHBOARDS + "/")
    receipt = bench.finish(reason="Fill the years that are missing.", operator="ann")
    words = page(bench.runs[-1]).words
    asked = words.index("Requested by ann")
    ended = words.index("Dry run: nothing was written.")
    found = words.index(" rows: ")
    assert words.index("Fill the years that are missing.") < ended < found < words.index("Provenance")
    assert asked < ended
    for text in (receipt["run_id"], receipt["plan"]["fingerprint"], receipt["versions"]["pandas"], "Parameters"):
        assert text in words
    links = [link["href"] for link in page(bench.runs[-1]).all("a")]
    assert links == [f"{DASHBOARDS}/{name}" for name in ("overview", "outreach", "education")]


def test_words_of_the_database_of_people_and_of_kpis_are_text_only(odd_kpis: Workbench) -> None:
    with connect(odd_kpis.database.url) as connection:
        connection.execute(
            sa.text("UPDATE ms_snapshot SET source = :steering || source"), {"steering": STEERING + HOSTILE}
        )
    odd_kpis.finish(kpis="odd_count,workshop_attendees", reason=HOSTILE, operator=HOSTILE)
    found = page(odd_kpis.runs[-1])
    assert found.all("script") == [{}]
    assert len(found.all("img")) == 2
    assert not found.all("svg")
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
    assert found.words.count("<script>alert('x')</script>") > 4
    assert r"\x202e\x1b[2J<script>" in found.words
    assert not set(STEERING[:2]) & set(found.words)
    assert "49" not in re.findall(r"onerror=alert\(1\)>(.{2})", found.words)
    for figure in map(Page, found.figures):
        assert not figure.all("script")
        assert len(figure.all("svg")) == 1
        assert not [name for _, attributes in figure.elements for name in attributes if name.startswith("on")]


def test_opens_without_a_network_and_may_not_ask_for_one(bench: Workbench) -> None:
    bench.configure(dashboards=DASHBOARDS)
    bench.finish()
    text = (bench.runs[-1] / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    [policy] = [meta["content"] for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert (policy or "").startswith("default-src 'none'; img-src data:;")
    for _, attributes in found.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            address = attributes.get(name) or ""
            assert not address or address.startswith(("data:image/svg+xml;base64,", DASHBOARDS))
    assert "@import" not in text
    assert "url(" not in text


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//makers.example", "https://", "http://[", ""],
)
def test_links_to_no_address_but_of_the_web(bench: Workbench, address: str) -> None:
    bench.configure(dashboards=address)
    bench.finish()
    assert not page(bench.runs[-1]).all("a")


def test_a_login_in_the_dashboards_address_is_on_no_record(bench: Workbench) -> None:
    bench.configure(dashboards="https://ann:tops3cret@makers.example/dash?token=tops3cret")
    bench.finish()
    for path in bench.runs[-1].iterdir():
        assert "tops3cret" not in path.read_text(encoding="utf-8")
    assert page(bench.runs[-1]).all("a")[0]["href"] == "https://makers.example/dash/overview"


def test_holds_no_number_of_a_rate_of_fewer_than_five_people(odd_kpis: Workbench) -> None:
    odd_kpis.finish(kpis="odd_rate", apply=True)  # so that the next run finds these numbers stored
    odd_kpis.finish(kpis="odd_rate,workshop_attendees")
    forbidden = re.compile(r"0\.314|31\.4|\.14159")
    for folder in odd_kpis.runs:
        # Only the code of the KPI, folded away on the page, may hold it here.
        text = (folder / "report.html").read_text(encoding="utf-8").replace(repr(RATE), "")
        assert not forbidden.search(re.sub(r'src="data:[^"]*"', "", text))
        found = page(folder)
        assert "< 5" in found.words
        assert "Not for publication." in found.words
        drawn = [words for figure in found.figures for words in re.findall('<!-- (.*?) -->|aria-label="(.*?)"', figure)]
        assert drawn
        assert not forbidden.search(str(drawn))
        assert "4 of 8" not in found.words
    assert json.loads((odd_kpis.runs[-1] / "receipt.json").read_text())["rows"]  # where the numbers are kept


def test_a_value_set_for_a_rate_of_fewer_than_five_people_is_withheld_wherever_people_read(
    odd_kpis: Workbench,
) -> None:
    path = odd_kpis.folder / "d.csv"
    kb.decide(path, "odd_rate", "set", year=2019, value=0.4321, reason="by hand", reviewer="Ann")
    steps = odd_kpis.steps(record=True, kpis="odd_rate", decisions=str(path))
    kb.apply_plan(steps.run, steps.plan)
    assert steps.run.record is not None
    receipt = steps.run.record.receipt
    assert {decision.value for decision in receipt.decisions} == {0.4321}
    folder = odd_kpis.runs[-1]
    summary, shown = run_summary(receipt, folder), odd_kpis.command("show", folder.name).stdout
    for text in (summary, shown, page(folder).words, steps.plan._repr_html_()):
        assert "Ann" in text
        assert "43.2" not in text


def test_figures_tell_their_finding_to_who_can_not_see_them(bench: Workbench) -> None:
    bench.finish()
    found = page(bench.runs[-1])
    assert [len(image["alt"] or "") > 60 for image in found.all("img")] == [True, True]
    assert [figure.startswith("<svg ") for figure in found.figures] == [True, True]


def test_tables_are_for_screen_readers_too(bench: Workbench) -> None:
    bench.finish()
    found = page(bench.runs[-1])
    assert found.all("html")[0]["lang"] == "en"
    assert all(head.get("scope") in ("col", "row") for head in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table")) > 3


def test_code_is_folded_until_somebody_asks(bench: Workbench) -> None:
    bench.finish()
    text = (bench.runs[-1] / "report.html").read_text(encoding="utf-8")
    unfolded = re.sub(r"<details.*?</details>", "", text, flags=re.DOTALL)
    assert "SELECT" in text
    assert "def " in text
    assert "SELECT" not in unfolded
    assert "def " not in unfolded
    assert not [details for details in Page(text).all("details") if "open" in details]


def test_an_applied_run_shows_what_was_written_from_what_to_what(bench: Workbench) -> None:
    reviewed = bench.finish()
    receipt = bench.finish(apply=True, approved_plan=reviewed["run_id"])
    words = page(bench.runs[-1]).words
    assert "Applied." in words
    assert "What was written" in words
    assert f"{receipt['written']['insert']} rows inserted, {receipt['written']['update']} rows updated." in words
    assert f"This plan was reviewed: it is the plan of run {reviewed['run_id']}" in words
    assert "approved by" not in words
    assert receipt["cache_tags"]["outcome"] in words
    assert bench.finish(apply=True)["written"]["rows"] == []
    assert "Nothing was written, since the plan was empty." in page(bench.runs[-1]).words


def test_every_state_has_its_page(bench: Workbench) -> None:
    refused = bench.begin(record=True).record
    assert refused is not None
    assert "has not ended" in Page(rendered(refused)).words
    refused.update(state="applying")
    assert f"kpibackfill settle {refused.run_id} finds out" in Page(rendered(refused)).words
    refused.update(state="planned")
    closing.close(refused, "refused", Refused("2024 has two rows; nothing was written.", code="duplicate"))
    words = page(refused.folder).words
    assert "Refused: a check failed, and nothing was written. 2024 has two rows" in words

    steps = bench.steps(record=True)
    assert steps.run.record is not None
    error = KpiBackfillError("The kernel died; nothing was written.", code="incomplete")
    closing.close(steps.run.record, "failed", error)
    words = page(steps.run.record.folder).words
    assert "Failed: nothing was written. The kernel died" in words
    assert "This run wrote nothing." in words


def test_years_without_snapshots_have_a_page(bench: Workbench) -> None:
    bench.finish(from_year=1990, to_year=1991)
    words = page(bench.runs[-1]).words
    assert "There is nothing to compare." in words
    assert "The plan is empty" in words


def test_is_the_same_each_time_it_is_made(bench: Workbench) -> None:
    bench.finish()
    folder = bench.runs[-1]
    assert rendered(RunRecord(folder.parent, folder.name)) == (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("broken", "said"), [("figures", "could not be drawn"), ("tables", "could not be made")])
def test_a_bug_in_the_report_changes_nothing_about_how_the_run_ended(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, broken: str, said: str
) -> None:
    def bug(*_: Any) -> Any:
        raise ZeroDivisionError(HOSTILE)

    if broken == "figures":
        monkeypatch.setattr(plots, "plot_drift", bug)
    else:
        monkeypatch.setattr(report, "drift_rows", bug)
    receipt = bench.finish(apply=True)
    assert receipt["state"] == "applied"
    assert said in receipt["report"]
    found = page(bench.runs[-1])
    assert "Applied" in found.words
    assert f"{said} (ZeroDivisionError)" in found.words


@pytest.mark.browser
def test_sorts_by_key_and_asks_no_network_in_a_real_browser(bench: Workbench) -> None:
    bench.finish()
    requests, complaints = [], []
    with chromium() as browser:
        opened = browser.new_page()
        opened.on("request", lambda request: requests.append(request.url[:40]))
        opened.on("console", lambda message: complaints.append(message.text))
        opened.goto((bench.runs[-1] / "report.html").as_uri())
        head = opened.get_by_role("columnheader", name="Computed").first
        head.get_by_role("button").press("Enter")
        cells = opened.locator("table.kb-sortable").first.locator("tbody tr td:nth-child(4)")
        up = [float(text) for text in cells.evaluate_all("all => all.map(cell => cell.dataset.sort)") if text]
        assert head.get_attribute("aria-sort") == "ascending"
        assert up == sorted(up)
        assert len(up) > 3
        head.get_by_role("button").press("Enter")
        down = [float(text) for text in cells.evaluate_all("all => all.map(cell => cell.dataset.sort)") if text]
        assert down == up[::-1]
        assert opened.locator("figure img").first.evaluate("image => image.naturalWidth") > 300
        opened.set_viewport_size({"width": 1000, "height": 900})
        assert not opened.evaluate(
            "[...document.querySelectorAll('.kb-box')].some(box => box.scrollWidth > box.clientWidth)"
        )
    assert not complaints
    assert all(url.startswith(("file:", "data:")) for url in requests)


@pytest.mark.browser
def test_fits_a_phone_and_paper_in_a_real_browser(bench: Workbench) -> None:
    dry_run = bench.finish()["run_id"]
    bench.finish(apply=True, approved_plan=dry_run)
    asked, applied = bench.runs
    style = "(element, name) => getComputedStyle(element)[name]"
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": 390, "height": 800})
        opened.goto((applied / "report.html").as_uri())
        assert "Drupal's cache tags" in opened.inner_text("main")
        assert opened.evaluate("document.documentElement.scrollWidth") == 390
        opened.goto((asked / "report.html").as_uri())
        opened.emulate_media(media="print")
        # Chromium repeats a table's header on each page only where nothing in it is a control.
        buttons = opened.locator("th button").evaluate_all(f"all => all.map(one => ({style})(one, 'display'))")
        assert set(buttons) == {"contents"}
        before = opened.locator("p:has(+ pre.command)")
        assert before.inner_text().endswith("and nothing else:")
        assert before.evaluate(f"one => ({style})(one, 'breakAfter')") == "avoid"
