"""`verify --target` says where the dashboard is behind the rows: a note for a while, and then a finding."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

import kpibackfill as kb
from kpibackfill.archive.verify import Verdict
from kpibackfill.database.php_serialize import dumps
from tests.databases import add_payload, dump, on, put_payload
from tests.workbench import Workbench

HOUR = 3600
ATTENDEES, NPS = "workshop_attendees", "education_nps"
YEARS: dict[str, Any] = {"from_year": 2023, "to_year": 2025, "kpis": f"{ATTENDEES},{NPS}"}


def about_the_page(verdict: Verdict) -> tuple[list[str], list[str]]:
    """Findings and notes about the dashboard."""
    found, notes = (
        [str(line) for line in lines if line.what.startswith("dashboard")]
        for lines in (verdict.findings, verdict.notes)
    )
    return found, notes


def verified(bench: Workbench) -> tuple[list[str], list[str]]:
    return about_the_page(kb.verify(target="test"))


def written(bench: Workbench) -> dict[str, dict[int, float]]:
    """What the page would show of the rows that a run has written."""
    bench.finish(**YEARS, apply=True)
    frame = kb.dashboard("test", kpis=YEARS["kpis"]).frame().dropna(subset="stored")
    values = {kpi_id: dict(zip(rows["year"], rows["stored"], strict=True)) for kpi_id, rows in frame.groupby("kpi_id")}
    assert all(2024 in shown for shown in values.values())
    return values


def test_a_section_that_is_behind_is_a_note_until_it_expires(bench: Workbench) -> None:
    values, now = written(bench), int(time.time())
    assert verified(bench) == ([], [])
    add_payload(bench.database, computed_at=now, expires_at=now + 6 * HOUR, education=values)
    assert verified(bench) == ([], [])

    old = {ATTENDEES: values[ATTENDEES], NPS: values[NPS] | {2024: 17.0}}
    add_payload(bench.database, computed_at=now - HOUR, expires_at=now + 5 * HOUR, education=old)
    before, still = dump(bench.database), "still shows other numbers than the rows in 1 cell (2024 education_nps)"
    note = f"dashboard section education: {still}; drush msd:kpi-warm education shows them at once"
    assert verified(bench) == ([], [note])
    assert dump(bench.database) == before
    done = bench.command("verify", "--target", "test")
    assert (done.exit_code, f"note     {note}\n" in done.stdout) == (0, True)

    add_payload(bench.database, computed_at=now - 7 * HOUR, expires_at=now - HOUR, education=old)
    (finding,), notes = verified(bench)
    assert (still in finding, "although it has expired" in finding, notes) == (True, True, [])
    done = bench.command("verify", "--target", "test", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["ok"]) == (2, False)
    assert [f"{line['what']}: {line['problem']}" for line in document["findings"]] == [finding]


@on("sqlite")
def test_a_section_computed_after_the_apply_has_no_excuse(bench: Workbench) -> None:
    values, now = written(bench), int(time.time())
    old = {NPS: values[NPS] | {2024: 17.0}}
    add_payload(bench.database, computed_at=now + 60, expires_at=now + 6 * HOUR, education=old)
    (finding,), notes = verified(bench)
    assert "although it was computed after they were written; run drush cache:rebuild, then" in finding
    assert notes == []


@on("sqlite")
def test_what_no_run_wrote_is_a_note_until_the_section_expires(bench: Workbench) -> None:
    bench.finish(**YEARS)
    now = int(time.time())
    add_payload(
        bench.database, computed_at=now + 60, expires_at=now + 6 * HOUR, overview={"total_active_members": {2025: 1}}
    )
    bench.configure(site={"manual_kpis": ["total_active_members"]})
    found, notes = verified(bench)
    assert (found, len(notes)) == ([], 1)


@on("sqlite")
def test_what_a_run_deleted_may_show_until_the_section_expires(bench: Workbench) -> None:
    values = written(bench)
    bench.finish(**YEARS, revert_of=bench.runs[-1].name, apply=True)
    now = int(time.time())
    for computed_at, expected in ((now - HOUR, (0, 1)), (now + 60, (1, 0))):
        add_payload(bench.database, computed_at=computed_at, expires_at=now + 5 * HOUR, education={NPS: values[NPS]})
        found, notes = verified(bench)
        assert (len(found), len(notes)) == expected


@on("sqlite")
def test_there_is_one_line_for_each_section_however_many_cells_differ(bench: Workbench) -> None:
    values, now = written(bench), int(time.time())
    old = {kpi_id: {year: value + 1 for year, value in shown.items()} for kpi_id, shown in values.items()}
    add_payload(bench.database, computed_at=now - HOUR, expires_at=now + 5 * HOUR, education=old, overview=old)
    cells = sum(map(len, values.values()))
    found, notes = verified(bench)
    assert (found, len(notes)) == ([], 2)
    for section, note in zip(("education", "overview"), notes, strict=True):
        assert note.startswith(
            f"dashboard section {section}: still shows other numbers than the rows in {cells} cells (20"
        )
        assert f" and {cells - 3} more)" in note


@on("sqlite")
def test_recorded_rows_of_a_kpi_that_is_no_longer_registered_count_too(bench: Workbench) -> None:
    bench.configure(site={"manual_kpis": ["tours"]})
    path = bench.folder / "decisions.csv"
    path.write_text("snapshot_id,kpi_id,decision,value,reason,reviewer\n283,tours,set,12,counted,ann\n")
    bench.finish(from_year=2024, to_year=2024, decisions=str(path), apply=True)
    bench.configure()
    now = int(time.time())
    page = {"tours": {2024: 11.0}, "never_recorded": {2024: 3.0}, NPS: {}}
    add_payload(bench.database, computed_at=now - HOUR, expires_at=now + HOUR, overview=page)
    found, (note,) = verified(bench)
    assert (found, "in 1 cell (2024 tours)" in note) == ([], True)


@on("sqlite")
@pytest.mark.parametrize(
    "times",
    [{}, {"computed_at": "soon", "expires_at": None}, {"computed_at": 1e300, "expires_at": -1e300}, {"expires_at": -1}],
)
def test_where_it_is_not_known_when_a_section_expires_it_has(bench: Workbench, times: dict[str, Any]) -> None:
    values = written(bench)
    entry: dict[str, Any] = {
        "annual_values": {"2024": values[NPS][2024] + 1},
        "annual_value_sources": {"2024": "actual"},
    }
    put_payload(bench.database, "education", dumps({"data": {NPS: entry}, **times}))
    (finding,), notes = verified(bench)
    assert ("although it has expired" in finding, notes) == (True, [])


@on("sqlite")
@pytest.mark.parametrize("value", [b"Array", dumps({"data": {}})[:-3], b'O:8:"stdClass":0:{}', b"x" * 20_000_000])
def test_a_payload_that_cannot_be_read_is_a_note(bench: Workbench, value: bytes) -> None:
    written(bench)
    put_payload(bench.database, "education", value)
    found, (note,) = verified(bench)
    assert (found, "What the dashboard shows in education is not known" in note) == ([], True)
    assert bench.command("verify", "--target", "test").exit_code == 0


@on("sqlite")
def test_a_page_that_reads_other_ids_is_not_compared(bench: Workbench) -> None:
    written(bench)
    add_payload(bench.database, education={f"kpi_{NPS}": {2024: 1.0}})
    assert verified(bench) == ([], [])
