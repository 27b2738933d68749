"""Checks the archive against its ledger: each line, each file, and a head that was noted earlier.

The chain shows that no line was altered, removed or moved since the line after it was written; a head that was noted
elsewhere shows the same for the last lines, which no line follows.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kpibackfill.archive import files, ledger
from kpibackfill.archive.models import (
    Begun,
    Closed,
    End,
    Event,
    FinalState,
    Receipt,
    Record,
    Settled,
    Settlement,
    read,
    read_event,
)
from kpibackfill.archive.plan_file import read_plan
from kpibackfill.archive.run_record import (
    INDEX,
    NOTEBOOK,
    PLAN,
    RECEIPT,
    SETTLEMENT,
    SUMS,
    digests_of,
    is_run_id,
    receipt_of,
    sum_lines,
)
from kpibackfill.errors import Refused


@dataclass(frozen=True, slots=True)
class IntegrityFinding:
    """A disagreement with the ledger: `what` it is about (a line or a file), and the `problem` in words."""

    what: str
    problem: str

    def __str__(self) -> str:
        return f"{self.what}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: the digest of the last line, how much was checked, findings, and notes.

    A note is worth knowing but not a problem, such as a run that has not ended. If a `target` was compared with the
    archive, `rows` is how many rows its table has, and `recorded` how many rows on record were compared with them.
    """

    head: str
    lines: int
    runs: int
    files: int
    findings: tuple[IntegrityFinding, ...]
    notes: tuple[IntegrityFinding, ...]
    target: str | None = None
    rows: int | None = None
    recorded: int | None = None


# A finding, and whether it is only a note.
_Found = tuple[IntegrityFinding, bool]
_MODELS: dict[str, type[Record]] = {RECEIPT: Receipt, SETTLEMENT: Settlement}
_LEFT_OVER = re.compile(r"\..+\.\d+")


def _wrong(what: str, problem: str) -> _Found:
    return IntegrityFinding(what, problem), False


def _note(what: str, remark: str) -> _Found:
    return IntegrityFinding(what, remark), True


class Line:
    """A line of the ledger, and what can be read of it."""

    def __init__(self, number: int, raw: bytes, ended: bool) -> None:
        self.number, self.raw, self.ended = number, raw, ended
        self.name = f"{ledger.FILE_NAME} line {number}"
        self.digest = hashlib.sha256(raw).hexdigest()
        self.whole = ledger.is_whole(raw)
        self.header = ledger.header_of(raw)
        self.event = ledger.event_of(raw)


def verify(runs_dir: Path, head: str = "") -> Verdict:
    """Check the folder of runs against its ledger.

    Parameters
    ----------
    head : the digest of the last line at an earlier time, as it was noted elsewhere.

    Raises
    ------
    Refused : `head` is not a digest, or there are no runs yet.
    """
    if head and not re.fullmatch(r"[0-9a-f]{64}", head):
        raise Refused("--head needs the 64 hexadecimal digits that `kpibackfill verify` printed.", code="head")
    if not (runs_dir / ledger.FILE_NAME).is_file():
        if not runs_dir.is_dir() or not any(runs_dir.iterdir()):
            raise Refused(f"There are no runs in {runs_dir} yet.", code="no_runs")
        findings = (IntegrityFinding(ledger.FILE_NAME, "is missing: nothing vouches for the runs"),)
        return Verdict("", 0, 0, 0, findings, ())
    with ledger.held(runs_dir) as content:
        pass
    verdict = _look(runs_dir, content, head)
    if verdict.findings:
        # A run may just have been adding its files: only what is found while nobody can write counts.
        with ledger.held(runs_dir) as content:
            verdict = _look(runs_dir, content, head)
    return verdict


def _look(runs_dir: Path, content: bytes, head: str) -> Verdict:
    lines = _lines(content)
    digests = {line.digest: line.number for line in lines}
    found = list(_chain(lines, digests))
    if head and head not in digests:
        problem = f"has no line with the noted head {head}: lines were cut off or rewritten"
        found.append(_wrong(ledger.FILE_NAME, problem))
    elif head:
        found.append(_note(ledger.FILE_NAME, f"still has line {digests[head]} as it was when its digest was noted"))
    listed: dict[str, dict[str, str]] = {}
    ended: set[str] = set()
    for line in lines:
        if line.header:
            listed.setdefault(line.header.run_id, {}).update(line.header.files)
            if line.header.event in ("closed", "settled"):
                ended.add(line.header.run_id)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # digests are computed in parallel: SHA-256 lets other threads run
        folders = pool.map(lambda run_id: list(_folder(runs_dir, run_id, listed[run_id], run_id in ended)), listed)
        found += [finding for in_folder in folders for finding in in_folder]
    events = [line.event for line in lines if line.event]
    found += list(_disagreeing(runs_dir, events, {finding.what for finding, is_note in found if not is_note}))
    for path in sorted(runs_dir.iterdir()):
        if path.name in (ledger.FILE_NAME, INDEX, *listed):
            continue
        if _LEFT_OVER.fullmatch(path.name) or _never_began(path):
            found.append(_note(path.name, "was left over when writing was interrupted; no run began"))
        else:
            found.append(_wrong(path.name, "is not in the ledger"))
    return Verdict(
        head=lines[-1].digest if lines else "",
        lines=len(lines),
        runs=len(listed),
        files=sum(map(len, listed.values())),
        findings=tuple(finding for finding, is_note in found if not is_note),
        notes=tuple(finding for finding, is_note in found if is_note),
    )


def _lines(content: bytes) -> list[Line]:
    *parts, rest = content.split(b"\n")
    lines = [Line(number, raw, ended=True) for number, raw in enumerate(parts, 1)]
    return [*lines, Line(len(lines) + 1, rest, ended=False)] if rest else lines


def _chain(lines: list[Line], places: dict[str, int]) -> Iterator[_Found]:
    """Check each line against its own digest and against the line before; `places` has the lines' numbers by digest."""
    before: Line | None = None
    for line, after in zip(lines, [*lines[1:], None], strict=False):  # there may be no line at all
        vouched = after is not None and after.header is not None and after.header.previous == line.digest
        if not line.ended:
            problem = "has lost its end of line" if line.whole else "was cut off by a crash, a full disk or by hand"
            yield _wrong(line.name, f"is the last line and {problem}")
        elif not line.whole and vouched:
            yield _note(line.name, "was cut off when it was written, as the line after it confirms")
        elif not line.whole:
            yield _wrong(line.name, "was altered")
        if line.whole and line.event is None:
            try:
                read_event(line.raw)
            except ValueError as error:
                yield _wrong(line.name, f"is left out: {error}")
        if line.whole and line.header is not None:
            problem = _link(line.header.previous, before, places)
            if problem and (before is None or before.whole):
                yield _wrong(line.name, problem)
        before = line


def _link(previous: str, before: Line | None, places: dict[str, int]) -> str:
    """What is wrong with a line's digest of the line before; empty if nothing is."""
    if previous == (before.digest if before else ""):
        return ""
    if not previous:
        return "was the first line when it was written: lines were inserted before it, or moved"
    if previous in places:
        return f"followed what is now line {places[previous]}: lines were moved, removed or inserted"
    where = f"between line {before.number} and this one" if before else "before this one"
    return f"one or more lines {where} were removed, or the line before it was rewritten"


def _folder(runs_dir: Path, run_id: str, expected: dict[str, str], ended: bool) -> Iterator[_Found]:
    """Findings about one run's folder, each with whether it is only a note."""
    folder = runs_dir / run_id
    if folder.is_symlink():
        yield _wrong(run_id, "its folder is a link, which may lead out of the archive")
        return
    if not is_run_id(run_id) or not folder.is_dir():
        yield _wrong(run_id, "its folder is missing")
        return
    for name, digest in sorted(expected.items()):
        yield from _listed(folder / name, digest, expected)
    others = sorted(path.name for path in folder.iterdir() if path.name not in expected)
    if ended:
        yield from (_unlisted(run_id, name) for name in others)
        return
    receipt = receipt_of(folder)
    closed = receipt is not None and receipt.ended_at is not None
    if closed or {SETTLEMENT, SUMS} & {*others}:
        # Sums and settlement are written under the ledger's lock, together with the line that lists them.
        by = "its receipt" if closed else "the files in its folder"
        problem = f"has ended by {by}, but no line says so: lines were cut off, or there was a crash"
        yield _wrong(run_id, problem)
    else:
        yield _note(run_id, "has not ended: nothing vouches for its files yet")


def _listed(path: Path, digest: str, expected: dict[str, str]) -> Iterator[_Found]:
    """Findings about a file that the ledger lists with this digest."""
    name = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        yield _wrong(name, "is missing")
    elif path.is_symlink():
        yield _wrong(name, "is a link, which may lead out of the archive")
    elif files.sha256(path) != digest:
        ahead = path.name == SUMS and _runs_ahead(path, expected)
        problem = "lists more than the ledger: writing was interrupted" if ahead else "was altered"
        yield IntegrityFinding(name, problem), ahead
    elif path.name == PLAN:
        try:
            read_plan(path)
        except Refused:
            yield _wrong(name, "has rows that do not match its fingerprint")


def _runs_ahead(sums: Path, expected: dict[str, str]) -> bool:
    """Whether the sums list all that the ledger does, and more files: they are written before the ledger's line."""
    text = sums.read_bytes().decode(errors="replace")
    listed = digests_of(text)
    others = {name: digest for name, digest in expected.items() if name != SUMS}
    more = {sums.parent / name: digest for name, digest in listed.items() if name not in others}
    inside = all(path.parent == sums.parent and path.is_file() for path in more)
    same = inside and all(files.sha256(path) == digest for path, digest in more.items())
    return bool(more) and same and text == sum_lines(listed) and others.items() <= listed.items()


def _never_began(path: Path) -> bool:
    """Whether this is a run's folder with at most the first receipt in it, from before the run's first line."""
    if not path.is_dir() or not is_run_id(path.name):
        return False
    names = [inside.name for inside in path.iterdir() if not _LEFT_OVER.fullmatch(inside.name)]
    receipt = receipt_of(path)
    return not names or (names == [RECEIPT] and receipt is not None and receipt.state == "planned")


def _unlisted(run_id: str, name: str) -> _Found:
    what = f"{run_id}/{name}"
    if _LEFT_OVER.fullmatch(name):
        return _note(what, "was left over when writing was interrupted")
    if name == NOTEBOOK:
        return _note(what, "is not archived yet, so nothing vouches for it")
    return _wrong(what, "is not in the ledger")


def _disagreeing(runs_dir: Path, events: list[Event], found: Set[str]) -> Iterator[_Found]:
    """Runs whose receipt or settlement disagrees with the ledger, from which the archive is read.

    A file that is in `found` already, such as an altered one, is not evidence.
    """
    by_run: dict[str, list[Begun | End]] = {}
    for event in events:
        if isinstance(event, Begun | End):
            by_run.setdefault(event.run_id, []).append(event)
    for run_id, lines in by_run.items():
        documents: dict[str, Any] = {}
        for name, model in _MODELS.items():
            path = runs_dir / run_id / name
            if not {run_id, f"{run_id}/{name}"} & found and path.is_file():
                try:
                    documents[name] = read(model, path.read_bytes())
                except ValueError as error:
                    yield _wrong(f"{run_id}/{name}", f"is left out: {error}")
        if RECEIPT in documents:
            yield from _contradicted(documents[RECEIPT], documents.get(SETTLEMENT), lines)


def _contradicted(receipt: Receipt, settlement: Settlement | None, lines: list[Begun | End]) -> Iterator[_Found]:
    differing: dict[str, list[str]] = {}
    for event in lines:
        if isinstance(event, Begun):
            by_files: Event = Begun.of(receipt)
        elif isinstance(event, Closed):
            # A receipt that has not ended disagrees at least in its state.
            by_files = Closed.of(receipt if receipt.state in get_args(FinalState) else receipt.changed(state="failed"))
        elif settlement is not None:
            by_files = Settled.of(receipt, settlement, event.changes)
        else:
            continue
        for name, value in by_files.facts().items():
            if getattr(event, name) != value:
                differing.setdefault(SETTLEMENT if name == "outcome" else RECEIPT, []).append(name)
    for about, names in differing.items():
        yield _wrong(f"{receipt.run_id}/{about}", f"disagrees with the ledger: {', '.join(names)}")
