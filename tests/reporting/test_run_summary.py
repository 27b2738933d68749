"""What `run` and `show` print of a run for people."""

from __future__ import annotations

import json
import re
from typing import Any

import kpibackfill as kb
from kpibackfill.archive.models import Receipt, read
from kpibackfill.reporting.run_summary import run_summary
from tests.databases import on
from tests.reporting.test_report import page
from tests.workbench import Workbench


def printed(bench: Workbench, receipt: dict[str, Any]) -> tuple[str, str]:
    """The texts of `run` and of `show`."""
    folder = bench.config.runs_dir / receipt["run_id"]
    return run_summary(read(Receipt, json.dumps(receipt)), folder), bench.command("show", receipt["run_id"]).stdout


@on("sqlite")
def test_the_most_important_rows_come_first_and_the_reports_warnings_below(bench: Workbench) -> None:
    receipt = bench.finish()
    warnings = {sentence for row in receipt["rows"] for sentence in row["warnings"]}
    assert warnings
    words = page(bench.runs[-1]).words.replace(" : ", ": ")
    for text in printed(bench, receipt):
        lines = text.splitlines()
        at = next(number for number, line in enumerate(lines) if line.startswith("period "))
        # In a terminal a column begins where its heading does.
        status = lines[at].index("status")
        found = [line[status:].split("  ")[0] for line in lines[at + 1 : lines.index("", at)]]
        assert found[0] == "unsupported"
        assert found == sorted(found, key=["unsupported", "changed", "new"].index)
        printed_warnings = lines[lines.index("Warnings") + 1 : lines.index("", lines.index("Warnings"))]
        assert {line.partition(": ")[2] for line in printed_warnings if line.startswith("    ")} == warnings
        assert all(line.strip() in words for line in printed_warnings)


@on("sqlite")
def test_decisions_are_listed_with_who_and_why_also_in_a_revert(bench: Workbench) -> None:
    years: dict[str, Any] = {"from_year": 2018, "to_year": 2018, "kpis": "workshop_attendees"}
    path = kb.review(bench.steps(**years).plan, bench.folder / "d.csv").path
    snapshot_id = int(kb.review(bench.steps(**years).plan).frame["snapshot_id"][0])
    kb.decide(path, "workshop_attendees", "set", snapshot_id=snapshot_id, value=7, reason="the log", reviewer="Ann")
    applied = bench.finish(**years, decisions=str(path), apply=True)
    row = ["2018", str(snapshot_id), "workshop_attendees", "set", "7", "Ann", "the", "log"]
    for text in printed(bench, applied):
        assert "Decisions in d.csv: 1 set" in text
        lines = text.splitlines()
        assert lines[lines.index("Decisions") + 2].split() == row
    back = kb.review(bench.steps(**years, revert_of=applied["run_id"]).plan, bench.folder / "back.csv").path
    kb.decide(back, "workshop_attendees", "reject", snapshot_id=snapshot_id, reason="it stays", reviewer="Bea")
    reverted = bench.finish(**years, revert_of=applied["run_id"], decisions=str(back))
    lines = printed(bench, reverted)[0].splitlines()
    assert lines[lines.index("Decisions") + 2].split()[3:] == ["reject", "Bea", "it", "stays"]
    assert lines[-2] == "Dry run: nothing was written. The plan is empty."


@on("sqlite")
def test_a_run_ends_with_what_to_do_next_also_where_that_is_nothing(bench: Workbench) -> None:
    years: dict[str, Any] = {"from_year": 2018, "to_year": 2018, "kpis": "workshop_attendees"}
    summary, shown = printed(bench, bench.finish(**years, apply=True))
    assert summary.splitlines()[-1] == "Next: kpibackfill verify --target test"
    steps = bench.steps(**years)
    things = (kb.drift_table(steps.drift), kb.review_figures(steps.drift), steps.plan, steps.readings)
    shown_in_cells = [text for thing in things for text in (thing._repr_html_(), repr(thing))]
    listed = [bench.command(*words).stdout for words in (["verify"], ["history"], ["diff", "latest", "latest"])]
    for text in (summary, shown, page(bench.runs[-1]).words, *shown_in_cells, *listed):
        assert not re.search(r"\b1 (grouped )?(KPI )?(rows|years|values|runs|files|snapshots)\b", text)
    for apply, end in ((True, "Applied"), (False, "Dry run")):
        summary, shown = printed(bench, bench.finish(**years, apply=apply))
        nothing = "nothing was written. The stored values equal the computed ones: there is nothing to do."
        assert f"\n{end}: {nothing}\n" in summary
        assert "Next:" not in summary
        assert nothing[1:] in shown
        assert "0 rows" not in summary + shown
    assert "The plan is empty." in printed(bench, bench.finish(from_year=1999, to_year=1999))[0]
