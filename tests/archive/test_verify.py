"""What `verify` finds: whatever is altered, missing, unlisted, moved or cut off, each by its name."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpibackfill.archive import files, ledger
from kpibackfill.archive.run_record import INDEX, sum_lines
from kpibackfill.archive.verify import Verdict, verify
from kpibackfill.errors import Refused
from tests.archives import approved
from tests.workbench import Workbench, refusal


def found(verdict: Verdict) -> list[str]:
    return [str(finding) for finding in verdict.findings]


def lines_of(runs_dir: Path) -> list[bytes]:
    return (runs_dir / ledger.FILE_NAME).read_bytes().splitlines(keepends=True)


def write_lines(runs_dir: Path, lines: list[bytes]) -> None:
    (runs_dir / ledger.FILE_NAME).write_bytes(b"".join(lines))


def evidence(runs_dir: Path) -> list[Path]:
    return [path for folder in sorted(runs_dir.glob("2*")) for path in sorted(folder.iterdir())]


def test_an_untouched_archive_has_no_findings(runs_dir: Path) -> None:
    verdict = verify(runs_dir)
    assert not verdict.findings
    assert not verdict.notes
    assert (verdict.runs, verdict.lines) == (3, 8)
    assert verdict.files == len(evidence(runs_dir)) == 17


def test_any_altered_byte_of_any_file_is_found(runs_dir: Path) -> None:
    chance = random.Random(3)
    for path in evidence(runs_dir):
        before = path.read_bytes()
        places = {0, len(before) - 1, *(chance.randrange(len(before)) for _ in range(4))}
        for place in places:
            changed = bytearray(before)
            changed[place] ^= 1 << chance.randrange(8)
            path.write_bytes(changed)
            assert f"{path.parent.name}/{path.name}: was altered" in found(verify(runs_dir)), (path, place)
        path.write_bytes(before)
    assert not verify(runs_dir).findings


def test_any_shortened_or_lengthened_file_is_found(runs_dir: Path) -> None:
    for path in evidence(runs_dir):
        before = path.read_bytes()
        for changed in (b"", before[:-1], before + b"\n"):
            path.write_bytes(changed)
            assert f"{path.parent.name}/{path.name}: was altered" in found(verify(runs_dir))
        path.write_bytes(before)


def test_any_removed_file_is_found(runs_dir: Path) -> None:
    for path in evidence(runs_dir):
        before = path.read_bytes()
        path.unlink()
        assert found(verify(runs_dir)) == [f"{path.parent.name}/{path.name}: is missing"]
        path.write_bytes(before)


def test_an_unlisted_file_or_folder_and_a_missing_folder_are_found(runs_dir: Path) -> None:
    run = min(runs_dir.glob("2*"))
    (run / "more.csv").write_text("1")
    (runs_dir / "notes.txt").write_text("1")
    shutil.copytree(run, runs_dir / f"2001{run.name[4:]}")
    assert set(found(verify(runs_dir))) == {
        f"{run.name}/more.csv: is not in the ledger",
        "notes.txt: is not in the ledger",
        f"2001{run.name[4:]}: is not in the ledger",
    }
    shutil.rmtree(run)
    assert f"{run.name}: its folder is missing" in found(verify(runs_dir))


def test_a_runs_folder_that_is_a_link_is_found_and_not_read(
    made_archive: Workbench, runs_dir: Path, tmp_path: Path
) -> None:
    (run,) = runs_dir.glob("*apply*")
    run.rename(tmp_path / "elsewhere")
    run.symlink_to(tmp_path / "elsewhere")
    assert found(verify(runs_dir)) == [f"{run.name}: its folder is a link, which may lead out of the archive"]
    configuration = runs_dir.parent / "kpibackfill.toml"
    shutil.copyfile(made_archive.folder / "kpibackfill.toml", configuration)
    for command in (["show", run.name], ["settle", run.name], ["revert", run.name]):
        assert "is a link" in refusal(made_archive.command("--config", str(configuration), *command))


def test_any_altered_byte_of_any_ledger_line_is_found_by_its_number(runs_dir: Path) -> None:
    lines = lines_of(runs_dir)
    chance = random.Random(4)
    for number, line in enumerate(lines, 1):
        for place in {0, len(line) - 2, *(chance.randrange(len(line) - 1) for _ in range(40))}:
            changed = bytearray(line)
            changed[place] ^= 1 << chance.randrange(7)
            write_lines(runs_dir, [*lines[: number - 1], bytes(changed), *lines[number:]])
            findings = found(verify(runs_dir))
            assert f"ledger.jsonl line {number}: was altered" in findings, (number, place, changed)
    write_lines(runs_dir, lines)
    assert not verify(runs_dir).findings


def test_a_rewritten_line_with_a_digest_of_its_own_is_found_by_the_line_after(runs_dir: Path) -> None:
    lines = lines_of(runs_dir)
    for number in range(1, len(lines)):
        entry = json.loads(lines[number - 1])
        del entry["digest"]
        entry["at"] = "2020-01-01T00:00:00+00:00"
        forged = ledger.with_digest(json.dumps(entry).encode()) + b"\n"
        write_lines(runs_dir, [*lines[: number - 1], forged, *lines[number:]])
        assert any(finding.startswith(f"ledger.jsonl line {number + 1}: ") for finding in found(verify(runs_dir)))


def test_any_removed_line_is_found_where_it_was(runs_dir: Path) -> None:
    lines = lines_of(runs_dir)
    for number in range(1, len(lines)):
        write_lines(runs_dir, [*lines[: number - 1], *lines[number:]])
        findings = found(verify(runs_dir))
        assert any(text.startswith(f"ledger.jsonl line {number}: ") and "removed" in text for text in findings), (
            findings
        )


def test_any_two_swapped_neighbors_are_found(runs_dir: Path) -> None:
    lines = lines_of(runs_dir)
    for number in range(1, len(lines)):
        moved = list(lines)
        moved[number - 1], moved[number] = moved[number], moved[number - 1]
        write_lines(runs_dir, moved)
        findings = found(verify(runs_dir))
        assert any(text.startswith(f"ledger.jsonl line {number}: ") and "moved" in text for text in findings), findings


def test_a_repeated_line_is_found(runs_dir: Path) -> None:
    lines = lines_of(runs_dir)
    for number in range(1, len(lines) + 1):
        write_lines(runs_dir, [*lines[:number], lines[number - 1], *lines[number:]])
        assert any(text.startswith(f"ledger.jsonl line {number + 1}: ") for text in found(verify(runs_dir)))


def test_only_a_noted_head_shows_that_last_lines_were_cut_off(runs_dir: Path) -> None:
    record = min(runs_dir.glob("2*")).name
    ledger.append(runs_dir, approved(record, by="somebody", note="looked at"))
    lines = lines_of(runs_dir)
    head = verify(runs_dir).head
    write_lines(runs_dir, lines[:-1])
    assert not verify(runs_dir).findings
    assert found(verify(runs_dir, head)) == [
        f"ledger.jsonl: has no line with the noted head {head}: lines were cut off or rewritten"
    ]


def test_a_noted_head_is_still_found_after_more_was_written(runs_dir: Path) -> None:
    head = verify(runs_dir).head
    ledger.append(runs_dir, approved(min(runs_dir.glob("2*")).name, by="somebody", note="looked at"))
    verdict = verify(runs_dir, head)
    assert not verdict.findings
    assert [str(note) for note in verdict.notes] == [
        "ledger.jsonl: still has line 8 as it was when its digest was noted"
    ]
    assert verdict.head != head
    with pytest.raises(Refused, match="64 hexadecimal digits"):
        verify(runs_dir, head[:12])


def test_a_line_that_a_crash_cut_off_is_reported_and_the_chain_goes_on_after_it(runs_dir: Path) -> None:
    run_id = min(runs_dir.glob("2*")).name
    ledger.append(runs_dir, approved(run_id, by="somebody", note="looked at"))
    lines = lines_of(runs_dir)
    write_lines(runs_dir, [*lines[:-1], lines[-1][:70]])
    assert found(verify(runs_dir)) == [
        "ledger.jsonl line 9: is the last line and was cut off by a crash, a full disk or by hand"
    ]
    ledger.append(runs_dir, approved(run_id, by="somebody", note="again"))
    verdict = verify(runs_dir)
    assert not verdict.findings
    assert [str(note) for note in verdict.notes] == [
        "ledger.jsonl line 9: was cut off when it was written, as the line after it confirms"
    ]
    write_lines(runs_dir, [*lines[:-1], lines[-1][:60] + b"\n", lines_of(runs_dir)[-1]])
    assert "ledger.jsonl line 9: was altered" in found(verify(runs_dir))


def test_a_run_that_has_not_ended_is_a_note_and_not_a_finding(
    made_archive: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPIBACKFILL_CONFIG", str(made_archive.folder / "kpibackfill.toml"))
    run = made_archive.begin(record=True)
    verdict = verify(made_archive.config.runs_dir)
    try:
        assert not verdict.findings
        assert [note.what for note in verdict.notes] == [run.run_id]
    finally:
        assert run.record is not None
        shutil.rmtree(run.record.folder)
        write_lines(made_archive.config.runs_dir, lines_of(made_archive.config.runs_dir)[:-1])


def test_the_cut_off_end_of_a_closed_run_is_found(runs_dir: Path) -> None:
    last = max(runs_dir.glob("2*"), key=lambda path: path.name)
    write_lines(runs_dir, lines_of(runs_dir)[:-1])
    assert any("no line says so" in finding for finding in found(verify(runs_dir))), last


def rechain(runs_dir: Path, forge: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the whole ledger with each line forged, every digest included."""
    rewritten, previous = [], ""
    for line in lines_of(runs_dir):
        entry = json.loads(line)
        del entry["digest"]
        forge(entry)
        entry["previous"] = previous
        rewritten.append(ledger.with_digest(json.dumps(entry).encode()))
        previous = hashlib.sha256(rewritten[-1]).hexdigest()
    write_lines(runs_dir, [line + b"\n" for line in rewritten])


@pytest.mark.parametrize(
    ("event", "name", "value"),
    [
        ("begun", "operator", "somebody else"),
        ("begun", "revert_of", "20250101T000000Z-test-2024-apply-00000a"),
        ("begun", "years", [2001, 2002]),
        ("closed", "years", {}),
        ("closed", "decisions", [{"snapshot_id": 1, "kpi_id": "education_nps", "decision": "accept"}]),
        ("closed", "changes", []),
    ],
)
def test_a_receipt_that_the_ledger_contradicts_is_found(runs_dir: Path, event: str, name: str, value: Any) -> None:
    (run,) = runs_dir.glob("*apply*")

    def forge(entry: dict[str, Any]) -> None:
        if (entry["event"], entry["run_id"]) == (event, run.name):
            entry[name] = value

    rechain(runs_dir, forge)
    assert found(verify(runs_dir)) == [f"{run.name}/receipt.json: disagrees with the ledger: {name}"]


@pytest.mark.parametrize("row", [{"period_year": 1999}, None, {"before": "a row"}], ids=["other", "none", "no image"])
def test_a_plan_with_other_rows_than_its_fingerprint_is_found_even_if_all_sums_are_rewritten(
    runs_dir: Path, row: dict[str, Any] | None
) -> None:
    (run,) = runs_dir.glob("*apply*")
    plan = json.loads((run / "plan.json").read_bytes())
    plan["rows"][0] = row and {**plan["rows"][0], **row}
    (run / "plan.json").write_text(json.dumps(plan))
    names = [line.split("  ")[1] for line in (run / "SHA256SUMS").read_text().splitlines()]
    (run / "SHA256SUMS").write_text(sum_lines({name: files.sha256(run / name) for name in names}))

    def forge(entry: dict[str, Any]) -> None:
        if entry["run_id"] == run.name:
            entry["files"] = {name: files.sha256(run / name) for name in entry["files"]}

    rechain(runs_dir, forge)
    assert found(verify(runs_dir)) == [f"{run.name}/plan.json: has rows that do not match its fingerprint"]


def test_a_link_is_found_even_if_it_leads_to_the_same_file(runs_dir: Path, tmp_path: Path) -> None:
    (run,) = runs_dir.glob("*apply*")
    shutil.move(run / "drift.csv", tmp_path / "drift.csv")
    (run / "drift.csv").symlink_to(tmp_path / "drift.csv")
    assert found(verify(runs_dir)) == [f"{run.name}/drift.csv: is a link, which may lead out of the archive"]


CHANGE = {"snapshot_id": 1, "kpi_id": "education_nps", "year": 2024, "action": "update", "before": None, "after": 1.5}


@pytest.mark.parametrize(
    ("event", "name", "value"),
    [
        ("closed", "changes", None),
        ("begun", "years", None),
        ("archived", "cells", None),
        ("closed", "changes", [CHANGE, "a row"]),
        ("closed", "changes", [{**CHANGE, "after": "much"}]),
        ("closed", "changes", [{**CHANGE, "snapshot_id": None}]),
        ("closed", "decisions", [{"reviewer": "somebody else"}]),
        ("closed", "changes", [{name: value for name, value in CHANGE.items() if name != "after"}]),
        ("closed", "plan", [None]),
        ("begun", "at", "yesterday"),
        ("begun", "years", [2024]),
        ("begun", "files", ["x"]),
        ("archived", "files", {"notebook.ipynb": float("inf")}),
    ],
)
def test_a_line_without_what_its_event_requires_is_found_and_ignored_by_every_command(
    made_archive: Workbench, runs_dir: Path, event: str, name: str, value: Any
) -> None:
    def forge(entry: dict[str, Any]) -> None:
        if entry["event"] == event:
            entry[name] = value

    rechain(runs_dir, forge)
    number = next(n for n, line in enumerate(lines_of(runs_dir), 1) if json.loads(line)["event"] == event)
    left_out = f"ledger.jsonl line {number}: is left out: {event}."
    assert any(text.startswith(left_out) for text in found(verify(runs_dir)))
    configuration = runs_dir.parent / "kpibackfill.toml"
    shutil.copyfile(made_archive.folder / "kpibackfill.toml", configuration)
    for command in (["runs"], ["history"]):
        result = made_archive.command("--config", str(configuration), *command)
        assert result.exit_code == 0
        assert "Left out: line" in result.stderr


def test_the_cut_off_line_of_a_settlement_is_found_by_what_it_left(runs_dir: Path) -> None:
    """Its receipt says that the run has not ended, so only its settlement and sums show that a line is missing."""
    write_lines(runs_dir, lines_of(runs_dir)[:-1])
    last = max(runs_dir.glob("2*"), key=lambda path: path.name)
    receipt = json.loads((last / "receipt.json").read_bytes())
    (last / "receipt.json").write_text(json.dumps(receipt | {"state": "applying", "ended_at": None}))
    sums = (last / "SHA256SUMS").read_bytes()
    problem = "has ended by the files in its folder, but no line says so: lines were cut off, or there was a crash"
    assert found(verify(runs_dir)) == [f"{last.name}: {problem}"]
    (last / "SHA256SUMS").unlink()
    assert found(verify(runs_dir)) == []
    (last / "settlement.json").write_bytes(sums)
    assert found(verify(runs_dir)) == [f"{last.name}: {problem}"]


def test_a_folder_in_which_no_run_began_is_a_note(runs_dir: Path) -> None:
    (runs_dir / "20250101T000000Z-test-2024-apply-00000a").mkdir()
    verdict = verify(runs_dir)
    assert not verdict.findings
    assert [note.what for note in verdict.notes] == ["20250101T000000Z-test-2024-apply-00000a"]
    (runs_dir / "20250101T000000Z-test-2024-apply-00000a" / "plan.json").write_text("{}")
    assert found(verify(runs_dir)) == ["20250101T000000Z-test-2024-apply-00000a: is not in the ledger"]


def test_the_index_is_not_evidence(runs_dir: Path) -> None:
    (runs_dir / INDEX).unlink()
    assert not verify(runs_dir).findings


def test_without_a_ledger_nothing_vouches_for_the_runs(runs_dir: Path, tmp_path: Path) -> None:
    (runs_dir / ledger.FILE_NAME).unlink()
    assert found(verify(runs_dir)) == ["ledger.jsonl: is missing: nothing vouches for the runs"]
    with pytest.raises(Refused, match="There are no runs"):
        verify(tmp_path / "elsewhere")


def test_a_ledger_that_was_emptied_vouches_for_no_folder(runs_dir: Path) -> None:
    (runs_dir / ledger.FILE_NAME).write_bytes(b"")
    verdict = verify(runs_dir)
    assert found(verdict) == [f"{run.name}: is not in the ledger" for run in sorted(runs_dir.glob("2*"))]
    assert (verdict.head, verdict.lines) == ("", 0)


def test_the_command_names_the_findings_and_exits_with_2(made_archive: Workbench) -> None:
    good = made_archive.command("verify", "--json")
    assert good.exit_code == 0
    assert json.loads(good.stdout)["ok"] is True
    path = min(made_archive.config.runs_dir.glob("2*")) / "plan.json"
    before = path.read_bytes()
    path.write_bytes(before + b" ")
    try:
        result = made_archive.command("verify")
    finally:
        path.write_bytes(before)
    assert result.exit_code == 2
    assert f"FINDING  {path.parent.name}/plan.json: was altered" in result.stdout
    assert f"Head: {json.loads(good.stdout)['head']}" in result.stdout
