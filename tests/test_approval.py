"""Approval: only an intact dry run is approved, only its plan is applied, and nobody approves their own."""

from __future__ import annotations

import json
import shlex
import shutil
from html import unescape
from typing import Any

import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.archive import ledger
from kpibackfill.errors import Refused
from kpibackfill.reporting.run_summary import run_summary
from tests.archives import ledger_entries
from tests.databases import connect, dump, on
from tests.workbench import Workbench, error_of, refusal

FEW: dict[str, Any] = {"kpis": "education_nps,total_new_member_signups"}
facts = sa.table("ms_fact_kpi_snapshot", *map(sa.column, ("snapshot_id", "kpi_id", "metric_value")))

pytestmark = on("sqlite")


@pytest.fixture
def guarded(bench: Workbench) -> Workbench:
    bench.configure(require_approval=True)
    return bench


def refused(bench: Workbench, match: str, **parameters: Any) -> None:
    """An apply is refused, is recorded so, and leaves every table as it was."""
    before = dump(bench.database)
    steps = bench.steps(record=True, **{**FEW, "apply": True, "reason": "the yearly backfill", **parameters})
    with pytest.raises(Refused, match=match):
        kb.apply_plan(steps.run, steps.plan)
    assert steps.run.record is not None
    assert steps.run.record.receipt.as_json()["state"] == "refused"
    assert dump(bench.database) == before


def test_a_guarded_target_applies_an_approved_plan_with_a_reason_and_the_record_says_who_approved(
    guarded: Workbench,
) -> None:
    dry = guarded.finish(**FEW)
    refused(guarded, "applies only an approved plan")
    refused(guarded, f"approved; .* `kpibackfill approve {dry['run_id']} --note", approved_plan=dry["run_id"])
    result = guarded.command(
        "approve", dry["run_id"], "--note", "agrees with the annual report", "--by", "Bea", "--json"
    )
    assert json.loads(result.stdout) == {
        "run_id": dry["run_id"],
        "by": "Bea",
        "note": "agrees with the annual report",
        "plan": dry["plan"]["fingerprint"],
        "system_user": dry["system_user"],
        "rows": dry["plan"]["rows"],
    }
    (entry,) = (entry for entry in ledger_entries(guarded.config.runs_dir) if entry["event"] == "approved")
    assert (entry["by"], entry["note"], entry["plan"]) == (
        "Bea",
        "agrees with the annual report",
        dry["plan"]["fingerprint"],
    )
    refused(guarded, "requires a reason", approved_plan=dry["run_id"], reason="")
    applied = guarded.finish(**FEW, apply=True, approved_plan=dry["run_id"], reason="the yearly backfill")
    assert applied["approval"] == {
        "approved_plan": dry["run_id"],
        "reviewed_run": dry["run_id"],
        "word": "approved",
        "approved_run": dry["run_id"],
        "by": "Bea",
        "at": entry["at"],
    }
    assert guarded.command("verify").exit_code == 0


def test_an_approval_is_of_the_plan_so_its_fingerprint_works_too(guarded: Workbench) -> None:
    dry = guarded.finish(**FEW)
    assert guarded.command("approve", dry["run_id"], "--note", "seen").exit_code == 0
    applied = guarded.finish(**FEW, apply=True, approved_plan=dry["plan"]["fingerprint"], reason="why")
    assert applied["approval"]["word"] == "approved"


@pytest.mark.parametrize("what", ["stored", "source"])
def test_a_plan_that_changed_since_it_was_approved_is_refused_with_the_differing_rows_named(
    guarded: Workbench, what: str
) -> None:
    dry = guarded.finish(**FEW)
    assert guarded.command("approve", dry["run_id"], "--note", "seen").exit_code == 0
    with connect(guarded.database.url) as connection:
        if what == "stored":
            stored = sa.and_(facts.c.snapshot_id == 278, facts.c.kpi_id == "education_nps")
            connection.execute(sa.update(facts).where(stored).values(metric_value=99.5))
        else:
            org = sa.table("ms_fact_org_snapshot", sa.column("joins"))
            connection.execute(sa.update(org).values(joins=org.c.joins + 1))
    row = r"\(\d+, total_new_member_signups\)" if what == "source" else r"\(278, education_nps\)"
    differs = rf"not the reviewed one: it differs in {row}.*\. Nothing was written"
    refused(guarded, differs, approved_plan=dry["run_id"])
    refused(guarded, differs, approved_plan=dry["plan"]["fingerprint"])
    refused(guarded, "not on record here", approved_plan="0" * 64)


def test_an_approval_for_another_database_does_not_count_even_if_its_rows_are_the_same(bench: Workbench) -> None:
    copy = bench.folder / "copy.sqlite"
    shutil.copyfile(str(sa.make_url(bench.database.url).database), copy)
    bench.configure(require_approval=True)
    path = bench.folder / "kpibackfill.toml"
    path.write_text(path.read_text() + f'[targets.copy]\nstore = "sqlite:///{copy}"\n')
    dry = bench.finish(**FEW, target="copy")
    assert dry["plan"]["rows"] > 0
    bench.command("approve", dry["run_id"], "--note", "looks right", "--by", "Bea")
    refused(bench, "is for another database", approved_plan=dry["run_id"])
    refused(bench, "is for another database", approved_plan=dry["plan"]["fingerprint"])


def test_only_a_closed_dry_run_with_a_plan_and_intact_files_is_approved_and_by_its_whole_id(bench: Workbench) -> None:
    dry = bench.finish(**FEW)
    applied = bench.finish(**FEW, apply=True)
    empty = bench.finish(**FEW)
    open_run = bench.steps(record=True, **FEW).run.run_id
    assert open_run is not None
    before = (bench.config.runs_dir / ledger.FILE_NAME).read_bytes()

    def approve(run: str, note: str = "seen") -> str:
        return refusal(bench.command("approve", run, "--note", note))

    assert "is not a finished dry run (applied)" in approve(applied["run_id"])
    assert "is not a finished dry run (planned)" in approve(open_run)
    assert "is empty" in approve(empty["run_id"])
    assert "is not a full run id" in approve("latest")
    assert "is not a full run id" in approve(dry["run_id"][-6:])
    assert "There is no run" in approve(dry["run_id"][:-6] + "000000")
    assert "needs a note" in approve(dry["run_id"], " ")
    assert "one line" in approve(dry["run_id"], "two\nlines")
    for name in ("drift.csv", "plan.json", "report.html"):
        path = bench.config.runs_dir / dry["run_id"] / name
        content = path.read_bytes()
        path.write_bytes(content.replace(b"e", b"f", 1))
        assert f"{name} was altered since it was archived" in approve(dry["run_id"])
        path.unlink()
        assert f"{name} was removed since it was archived" in approve(dry["run_id"])
        path.write_bytes(content)
    assert (bench.config.runs_dir / ledger.FILE_NAME).read_bytes() == before
    assert bench.command("approve", dry["run_id"], "--note", "seen").exit_code == 0


@pytest.mark.parametrize("left", [b"", b"{}\n"], ids=["cut off", "broken"])
def test_a_plan_that_no_line_of_the_ledger_vouches_for_is_neither_approved_nor_applied(
    guarded: Workbench, left: bytes
) -> None:
    dry = guarded.finish(**FEW)
    ledger_file = guarded.config.runs_dir / ledger.FILE_NAME
    begun, *_ = ledger_file.read_bytes().splitlines(keepends=True)
    ledger_file.write_bytes(begun + left)
    error = error_of(guarded.command("approve", dry["run_id"], "--note", "seen", "--json"))
    assert error["code"] == "altered"
    assert "receipt.json is not in any intact line of the ledger" in error["message"]
    refused(guarded, "receipt.json is not in any intact line of the ledger", approved_plan=dry["run_id"])


def test_a_plan_is_not_compared_with_a_file_that_was_altered_or_a_run_that_is_not_a_dry_run(bench: Workbench) -> None:
    dry = bench.finish(**FEW)
    path = bench.config.runs_dir / dry["run_id"] / "receipt.json"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"operator": "', b'"operator": "x'))
    refused(bench, "receipt.json was altered", approved_plan=dry["run_id"])
    path.write_bytes(content)
    stopped = bench.steps(record=True, **FEW).run.run_id
    refused(bench, "is not a finished dry run", approved_plan=stopped)


def test_with_four_eyes_neither_the_reviewed_runs_operator_nor_the_applying_one_approves(bench: Workbench) -> None:
    bench.configure(four_eyes=True)  # which requires an approval on its own
    dry = bench.finish(**FEW, operator="Ann")
    for name in ("Ann", " ann ", "ANN"):
        assert "someone else must approve" in refusal(
            bench.command("approve", dry["run_id"], "--note", "x", "--by", name)
        )
    assert bench.command("approve", dry["run_id"], "--note", "seen", "--by", "Bea").exit_code == 0
    refused(
        bench,
        "by someone other than the operator, and Bea was the operator;",
        approved_plan=dry["run_id"],
        operator="Bea",
    )
    applied = bench.finish(**FEW, apply=True, approved_plan=dry["run_id"], reason="why", operator="Ann")
    assert (applied["approval"]["word"], applied["approval"]["by"]) == ("approved", "Bea")


def test_without_an_approval_the_texts_say_reviewed(bench: Workbench) -> None:
    dry = bench.finish(**FEW)
    applied = bench.finish(**FEW, apply=True, approved_plan=dry["run_id"])
    assert applied["approval"]["word"] == "reviewed"
    report = (bench.config.runs_dir / applied["run_id"] / "report.html").read_text()
    assert "approved by" not in report.lower()


def test_an_approval_is_shown_even_if_the_target_requires_none(bench: Workbench) -> None:
    dry = bench.finish(**FEW)
    assert bench.command("approve", dry["run_id"], "--note", "seen", "--by", "Bea").exit_code == 0
    applied = bench.finish(**FEW, apply=True, approved_plan=dry["run_id"])
    assert (applied["approval"]["word"], applied["approval"]["by"]) == ("approved", "Bea")
    report = (bench.config.runs_dir / applied["run_id"] / "report.html").read_text()
    assert "This plan was approved by Bea" in report
    shown = bench.command("show", applied["run_id"]).stdout
    assert f"Its plan was approved by Bea at {applied['approval']['at']}, in {dry['run_id']}." in shown


def test_an_approval_is_of_the_named_run_and_the_newest_is_shown(guarded: Workbench) -> None:
    dry, other = guarded.finish(**FEW), guarded.finish(**FEW)
    for run, by in ((dry, "Bea"), (other, "Cleo"), (other, "Dan")):
        assert guarded.command("approve", run["run_id"], "--note", "seen", "--by", by).exit_code == 0
    third = guarded.finish(**FEW)
    assert third["plan"] == dry["plan"]
    refused(guarded, f"Dan approved another run, {other['run_id']};", approved_plan=third["run_id"])
    applied = guarded.finish(**FEW, apply=True, approved_plan=other["run_id"], reason="why")
    assert (applied["approval"]["approved_run"], applied["approval"]["by"]) == (other["run_id"], "Dan")


def test_an_approval_works_for_one_apply_of_its_plan(guarded: Workbench) -> None:
    dry = guarded.finish(**FEW)
    assert guarded.command("approve", dry["run_id"], "--note", "seen", "--by", "Bea").exit_code == 0
    applied = guarded.finish(**FEW, apply=True, approved_plan=dry["run_id"], reason="why")
    refused(guarded, f"was already applied by {applied['run_id']}.", approved_plan=dry["run_id"])
    back = guarded.finish(revert_of=applied["run_id"])
    assert guarded.command("approve", back["run_id"], "--note", "wrong", "--by", "Bea").exit_code == 0
    guarded.finish(revert_of=applied["run_id"], apply=True, approved_plan=back["run_id"], reason="wrong")
    again = guarded.finish(**FEW)
    assert again["plan"] == dry["plan"]
    for named in (again["run_id"], dry["run_id"], dry["plan"]["fingerprint"]):
        used = f"{applied['run_id']} has used the approval by Bea;"
        other = f"Bea approved another run, {dry['run_id']};"
        refused(guarded, other if named == again["run_id"] else used, approved_plan=named)
    assert guarded.command("approve", again["run_id"], "--note", "seen anew", "--by", "Cleo").exit_code == 0
    applied = guarded.finish(**FEW, apply=True, approved_plan=dry["plan"]["fingerprint"], reason="why")
    assert (applied["approval"]["approved_run"], applied["approval"]["by"]) == (again["run_id"], "Cleo")


def test_an_approval_is_used_up_by_a_part_of_its_plan_too(guarded: Workbench) -> None:
    dry = guarded.finish(**FEW)
    assert guarded.command("approve", dry["run_id"], "--note", "seen", "--by", "Bea").exit_code == 0
    path = guarded.folder / "d.csv"
    kb.review(dry["run_id"], path)
    header, *lines = path.read_text("utf-8-sig").splitlines()
    place = header.split(",").index("decision")
    for number, line in enumerate(lines):
        cells = line.split(",")
        cells[place] = "reject" if number else "accept"
        lines[number] = ",".join(cells)
    path.write_text("\n".join([header, *lines]))
    part = guarded.finish(**FEW, apply=True, approved_plan=dry["run_id"], reason="why", decisions=str(path))
    assert (part["plan"]["rows"], part["approval"]["by"]) == (1, "Bea")
    back = guarded.finish(revert_of=part["run_id"])
    assert guarded.command("approve", back["run_id"], "--note", "wrong").exit_code == 0
    guarded.finish(revert_of=part["run_id"], apply=True, approved_plan=back["run_id"], reason="wrong")
    refused(guarded, f"{part['run_id']} has used the approval by Bea;", approved_plan=dry["run_id"])


def test_of_several_runs_with_one_plan_the_approved_one_counts_by_its_fingerprint(bench: Workbench) -> None:
    bench.configure(four_eyes=True)
    anns, bobs = (bench.finish(**FEW, operator=name) for name in ("Ann", "Bob"))
    assert anns["plan"] == bobs["plan"]
    assert bench.command("approve", bobs["run_id"], "--note", "seen", "--by", "Ann").exit_code == 0
    shutil.rmtree(bench.config.runs_dir / anns["run_id"])  # its folder was moved away
    fingerprint = bobs["plan"]["fingerprint"]
    applied = bench.finish(**FEW, apply=True, approved_plan=fingerprint, reason="why", operator="Bob")
    assert (applied["approval"]["approved_run"], applied["approval"]["by"]) == (bobs["run_id"], "Ann")


def test_the_printed_next_command_includes_the_approval_and_can_be_typed(bench: Workbench) -> None:
    steps = bench.steps(record=True, **FEW, operator="Ann")
    cell = kb.apply_plan(steps.run, steps.plan)._repr_html_()
    assert "To apply exactly this plan:" in cell
    assert "kpibackfill approve" not in cell
    bench.configure(four_eyes=True)
    steps = bench.steps(record=True, **FEW, operator="Ann")
    cell = kb.apply_plan(steps.run, steps.plan)._repr_html_()
    record = steps.run.record
    assert record is not None
    summary = run_summary(record.receipt, record.folder)
    for text in (cell, summary, (record.folder / "report.html").read_text()):
        assert "have this plan approved by someone other than Ann and apply exactly this one" in text
        assert f'kpibackfill approve {record.run_id} --by NAME --note "…"' in unescape(text)
    printed = bench.command("approve", record.run_id, "--note", "seen", "--by", "Bea").stdout.splitlines()
    command = printed[-1].removeprefix("Next: ")
    assert command in summary
    assert command in unescape(cell)
    program, run, *options = shlex.split(command)
    assert (program, run) == ("kpibackfill", "run")
    assert {f"--approved-plan={record.run_id}", "--apply", "--reason=…", "--target=test"} <= set(options)


@pytest.mark.slow
def test_the_command_that_approve_prints_applies_the_plan(guarded: Workbench) -> None:
    dry = guarded.finish(**FEW, reason="the yearly backfill")
    printed = guarded.command("approve", dry["run_id"], "--note", "seen").stdout.splitlines()
    program, *arguments = shlex.split(printed[-1].removeprefix("Next: "))
    assert program == "kpibackfill"
    applied = guarded.command(*arguments)
    assert applied.exit_code == 0, applied.output
    assert f"Applied: {dry['plan']['rows']} rows written." in applied.stdout
