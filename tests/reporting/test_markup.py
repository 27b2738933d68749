"""What people read: no person, no answer, no before-image's meta, and no rate of fewer than five people."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.apply import ApplyResult
from kpibackfill.numbers import amount, measure, too_few
from kpibackfill.reporting.run_summary import run_summary
from tests.browser import chromium
from tests.databases import Database, connect, on
from tests.workbench import Steps, Workbench

META = "Zyxw-meta-that-is-shown-nowhere"


def private_texts(database: Database) -> set[str]:
    """Names of people and users, and the texts of their answers, as the database holds them."""
    queries = (
        "SELECT display_name FROM civicrm_contact",
        "SELECT name FROM users_field_data",
        "SELECT custom_46 FROM civicrm_value_demographics_15",
        "SELECT value FROM webform_submission_data",
    )
    with connect(database.url) as connection:
        found = {str(value) for query in queries for value in connection.scalars(sa.text(query)) if value}
    # A word of the definitions, a number or a single letter identifies nobody.
    return {text for text in found if len(text) > 5 and not re.fullmatch(r"[\d\s.,:+-]+", text)}


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(errors="replace") for path in folder.iterdir() if path.is_file()}


def shown_by(steps: Steps, receipt: ApplyResult) -> str:
    """All that the notebook's cells show."""
    things: list[Any] = [steps.run, steps.readings, kb.drift_table(steps.drift), steps.plan, receipt]
    things.append(kb.review_figures(steps.drift))
    return "\n".join(text for thing in things for text in (thing._repr_html_(), repr(thing)))


def test_no_person_and_no_answer_is_in_any_file(bench: Workbench) -> None:
    private = private_texts(bench.database)
    assert len(private) > 100
    steps = bench.steps(record=True, apply=True, include_risky=True)
    receipt = kb.apply_plan(steps.run, steps.plan)
    assert isinstance(receipt, ApplyResult)
    assert steps.run.record is not None
    texts = files_of(steps.run.record.folder) | files_of(bench.config.runs_dir)
    texts["shown"] = shown_by(steps, receipt)
    assert {"receipt.json", "plan.json", "drift.csv", "report.html", "ledger.jsonl"} <= texts.keys()
    for name, text in texts.items():
        # Sources of the KPIs and their bound values name the texts that definitions name.
        found = {secret for secret in private if secret in text} - _words_of_definitions(texts["receipt.json"])
        assert not found, (name, found)


def _words_of_definitions(receipt: str) -> set[str]:
    entries = json.loads(receipt)["kpis"]
    words = json.dumps([(entry["source_text"], entry["queries"], entry["label"]) for entry in entries])
    return {word for form in (r"[\w/ ]+", r"\w+") for word in re.findall(form, words)} | {"Decline", "decline"}


@on("sqlite")
def test_meta_is_kept_in_the_plan_and_rendered_nowhere(bench: Workbench) -> None:
    with connect(bench.database.url) as connection:
        connection.execute(sa.text("UPDATE ms_fact_kpi_snapshot SET meta = :meta"), {"meta": META})
    steps = bench.steps(record=True, apply=True)
    receipt = kb.apply_plan(steps.run, steps.plan)
    assert isinstance(receipt, ApplyResult)
    assert steps.run.record is not None
    folder = steps.run.record.folder
    kept = [row["before"]["meta"] for row in json.loads((folder / "plan.json").read_text())["rows"] if row["before"]]
    assert kept
    assert {meta["type"] for meta in kept} == {"text"}
    for name, text in (files_of(folder) | {"shown": shown_by(steps, receipt)}).items():
        assert META not in text, name
        assert (kept[0]["base64"] in text) == (name == "plan.json"), name


@on("sqlite")
@pytest.mark.parametrize("stored", ["other", "same"])
def test_a_rate_of_fewer_than_five_people_is_in_the_json_alone(bench: Workbench, stored: str) -> None:
    with connect(bench.database.url) as connection:
        people = connection.scalars(sa.text("SELECT entity_id FROM civicrm_value_demographics_15")).all()
        connection.execute(sa.text("UPDATE civicrm_value_demographics_15 SET custom_46 = ''"))
        years = bench.steps(from_year=2021, to_year=2021, kpis="workshop_participants_bipoc")
        assert years.drift["basis"].tolist() == [0] * len(years.drift)
        # One person after the other reports, until three of that year's have: 2 of 3.
        for answered, person in enumerate(people):
            connection.execute(
                sa.text("UPDATE civicrm_value_demographics_15 SET custom_46 = :answer WHERE entity_id = :person"),
                {"answer": "white" if answered % 3 == 0 else "asian", "person": person},
            )
            drift = bench.steps(from_year=2021, to_year=2021, kpis="workshop_participants_bipoc").drift
            if drift.loc[0, "basis"] == 3:
                break
        rate = float(drift.loc[0, "computed"])
        value = rate if stored == "same" else 0.87654321
        connection.execute(
            sa.text(
                "UPDATE ms_fact_kpi_snapshot SET metric_value = :value WHERE kpi_id = 'workshop_participants_bipoc'"
            ),
            {"value": value},
        )
    steps = bench.steps(record=True, from_year=2021, to_year=2021, kpis="workshop_participants_bipoc")
    receipt = kb.apply_plan(steps.run, steps.plan)
    assert isinstance(receipt, ApplyResult)
    assert steps.run.record is not None
    document, folder = steps.run.record.receipt, steps.run.record.folder
    assert document.rows[0].computed == rate
    assert document.rows[0].basis == 3
    files = files_of(folder)
    read = {
        "drift.csv": files["drift.csv"],
        "report.html": files["report.html"],
        "summary": run_summary(document, folder),
        "shown": shown_by(steps, receipt),
    }
    for name, text in read.items():
        plain = re.sub(r"data:image/[^\"']+", "", text)
        assert "&lt; 5" in plain or "< 5" in plain, name
        for number in (repr(rate), f"{rate:.4f}"[:6], amount(rate, "fraction"), f"{rate * 100:.1f}"):
            assert number not in plain, (name, number)
    for name in ("drift.csv", "shown", "report.html"):
        assert "not for publication" in read[name].lower(), name


@on("sqlite")
def test_drift_csv_opens_in_a_spreadsheet_as_it_is(bench: Workbench) -> None:
    with connect(bench.database.url) as connection:
        for snapshot_id, source in ((269, "=1+2"), (268, "\ufeff=1+2"), (270, "＝1+2"), (271, "a\u202eb")):
            table = sa.table("ms_snapshot", sa.column("id"), sa.column("source"))
            connection.execute(sa.update(table).where(table.c.id == snapshot_id).values(source=source))
    steps = bench.steps(record=True)
    assert steps.run.record is not None
    data = (steps.run.record.folder / "drift.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert len(rows) == len(steps.drift)
    found = {row["snapshot_id"]: row["source"] for row in rows}
    assert [found.get(snapshot_id) for snapshot_id in ("269", "268", "270", "271")] == [
        "'=1+2", r"\xfeff=1+2", "'＝1+2", r"a\x202eb"
    ]  # fmt: skip
    for row, computed in zip(rows, steps.drift["computed"], strict=True):
        if row["computed"] not in ("", "not for publication"):
            assert float(row["computed"]) == computed


@pytest.mark.browser
@on("sqlite")
def test_the_tables_of_a_notebook_fit_on_a_printed_page(bench: Workbench) -> None:
    steps = bench.steps()
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 620, "height": 900})  # A4 less its margins and the cells' prompts
        page.emulate_media(media="print")
        for shown in (
            steps.run,
            steps.readings,
            kb.drift_table(steps.drift),
            steps.plan,
            steps.plan.page,
            kb.review(steps.plan),
        ):
            page.set_content(f"<body style='margin: 0'>{shown._repr_html_()}")
            widths = page.evaluate("[...document.querySelectorAll('.kb-box')].map(box => box.scrollWidth)")
            assert widths, shown
            assert max(widths) <= 620, shown


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1234.0, "count", "1,234"), (0.5, "count", "0.50"), (-33.34, "points", "−33.3"),
        (0.57612, "fraction", "57.6 %"),
        (None, "count", "–"), (float("nan"), "points", "–"), (float("inf"), "count", "∞"),
        (float("-inf"), "fraction", "−∞"), (0.0, "points", "0.0"),
        # The shortest text of the 4-byte value, where there is no unit.
        (0.41, None, "0.41"), (0.4099999964237213, None, "0.41"), (-12.5, None, "−12.5"), (700, None, "700"),
        (16777216.0, None, "16,777,216"), (3.4028234663852886e38, None, "3.4028235e+38"), (1e39, None, "∞"),
        (1e-7, None, "1e−07"), (0.0, None, "0"), (None, None, "–"),
    ],
)  # fmt: skip
def test_an_amount_is_read_in_its_unit(value: float | None, unit: Any, text: str) -> None:
    assert amount(value, unit) == text


def test_drift_is_read_in_the_own_measure_of_a_kpi() -> None:
    assert measure(5.0, 0.05, "count") == "+5.0 %"
    assert measure(-5.0, -0.05, "points") == "−5.0 points"
    assert measure(0.05, 0.5, "fraction") == "+5.0 points"
    assert measure(5.0, float("nan"), "count") == "–"
    assert measure(float("inf"), None, "points") == "+∞ points"
    assert measure(float("-inf"), float("-inf"), "count") == "−∞ %"


def test_a_rate_of_one_to_four_people_is_too_few() -> None:
    assert [basis for basis in (None, 0, 1, 4, 5, 100) if too_few("fraction", basis)] == [1, 4]
    assert not too_few("points", 2)
