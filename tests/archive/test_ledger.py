"""The ledger's chain holds no matter who writes and how writing ends."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

from kpibackfill.archive import ledger
from tests.archives import approved, ledger_entries


def append_many(runs_dir: Path, name: str) -> None:
    for number in range(25):
        ledger.append(runs_dir, approved(f"{name}-{number}", note="x" * (number * 50)))


def lines_of(runs_dir: Path) -> list[bytes]:
    return (runs_dir / ledger.FILE_NAME).read_bytes().splitlines()


def test_eight_processes_that_write_at_once_keep_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=append_many, args=(tmp_path, f"run{number}")) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    lines = lines_of(tmp_path)
    assert len({json.loads(line)["run_id"] for line in lines}) == len(lines) == 200
    before = ""
    for line in lines:
        assert json.loads(line)["previous"] == before
        before = hashlib.sha256(line).hexdigest()
    assert ledger.passed_over(tmp_path) == []


def test_the_digest_of_a_line_is_of_the_line_without_it(tmp_path: Path) -> None:
    head = ledger.append(tmp_path, approved("a-run", note="digest"))
    (line,) = lines_of(tmp_path)
    assert head == hashlib.sha256(line).hexdigest()
    entry = json.loads(line)
    digest = entry.pop("digest")
    assert digest == hashlib.sha256(json.dumps(entry).encode()).hexdigest()
    assert ledger.is_whole(line)
    assert not ledger.is_whole(line.replace(b"a-run", b"a-ran"))


def test_a_line_longer_than_a_block_is_followed_by_the_right_digest(tmp_path: Path) -> None:
    head = ledger.append(tmp_path, approved("long", note="n" * 200_000))
    ledger.append(tmp_path, approved("next"))
    assert json.loads(lines_of(tmp_path)[1])["previous"] == head


def test_what_follows_a_torn_line_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    ledger.append(tmp_path, approved("one"))
    with (tmp_path / ledger.FILE_NAME).open("ab") as file:
        file.write(b'{"schema": 1, "at": "20')
    ledger.append(tmp_path, approved("two"))
    lines = lines_of(tmp_path)
    assert [entry["run_id"].split("-")[1] for entry in ledger_entries(tmp_path)] == ["one", "two"]
    assert json.loads(lines[2])["previous"] == hashlib.sha256(lines[1]).hexdigest()
    assert ledger.passed_over(tmp_path) == [2]


def test_only_its_owner_can_read_the_ledger(tmp_path: Path) -> None:
    ledger.append(tmp_path / "runs", approved("one"))
    assert (tmp_path / "runs" / ledger.FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "runs").stat().st_mode & 0o777 == 0o700
