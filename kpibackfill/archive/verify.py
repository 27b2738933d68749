"""Whether the archive is what the ledger says of it: each line, each file, and what was true at a noted head.

The chain shows that no line was altered, removed or moved since the line after it was written; a head that was noted
elsewhere shows the same for the last lines, which no line follows.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpibackfill.archive import files, ledger
from kpibackfill.archive.plan_file import read_plan
from kpibackfill.archive.run_record import (
    ENDS,
    NOTEBOOK,
    PLAN,
    RECEIPT,
    SETTLEMENT,
    SUMS,
    RunRecord,
    is_run_id,
    line_of,
    receipt_of,
    sum_lines,
)
from kpibackfill.archive.verdict import Finding, Verdict
from kpibackfill.errors import KpiBackfillError, Refused
from kpibackfill.reporting import index

if TYPE_CHECKING:
    from kpibackfill.config import Config

_LEFT_OVER = re.compile(r"\..+\.\d+")


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    raw: bytes
    ended: bool

    @property
    def name(self) -> str:
        return f"{ledger.FILE_NAME} line {self.number}"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()


def verify(runs_dir: Path, head: str = "") -> Verdict:
    """Hold the folder of runs against its ledger.

    Parameters
    ----------
    head : the digest of a last line as it was noted elsewhere, at an earlier time.

    Raises
    ------
    Refused : `head` is no digest, or there is no ledger to go by.
    """
    if head and not re.fullmatch(r"[0-9a-f]{64}", head):
        raise Refused("--head wants the 64 hexadecimal digits that `kpibackfill verify` printed.", code="head")
    if not (runs_dir / ledger.FILE_NAME).is_file():
        if not runs_dir.is_dir() or not any(runs_dir.iterdir()):
            raise Refused(f"There are no runs in {runs_dir} yet.", code="no_runs")
        findings = (Finding(ledger.FILE_NAME, "is missing: nothing vouches for the runs"),)
        return Verdict("", 0, 0, 0, findings, ())
    with ledger.held(runs_dir) as content:
        pass
    verdict = _look(runs_dir, content, head)
    if verdict.findings:
        # A run may have been adding its files at this moment: what is found once nobody can, holds.
        with ledger.held(runs_dir) as content:
            verdict = _look(runs_dir, content, head)
    return verdict


def verify_all(config: Config, head: str = "", target: str | None = None) -> Verdict:
    """As `verify`, of the configured folder of runs, and with `target` of the rows in that database as well.

    Raises
    ------
    KpiBackfillError : there is no such target, or its database can't be reached or read.
    """
    wanted = None if target is None else config.target(target)
    verdict = verify(config.runs_dir, head)
    if wanted is None:
        return verdict
    from kpibackfill.archive.reconcile import verify_target

    found = verify_target(config.runs_dir, wanted)
    findings = (*verdict.findings, *found.findings)
    return replace(verdict, findings=findings, target=target, rows=found.rows, recorded=found.recorded)


def _look(runs_dir: Path, content: bytes, head: str) -> Verdict:
    lines = _lines(content)
    findings, notes = _chain(lines)
    digests = {line.digest: line.number for line in lines}
    if head and head not in digests:
        findings.append(
            Finding(ledger.FILE_NAME, f"holds no line with the noted head {head}: lines were cut off or written anew")
        )
    elif head:
        notes.append(Finding(ledger.FILE_NAME, f"still holds line {digests[head]} as it was when its digest was noted"))
    entries = [entry for line in lines if (entry := ledger.entry_of(line.raw))]
    listed: dict[str, dict[str, str]] = {}
    for entry in entries:
        added = entry.get("files")
        listed.setdefault(entry["run_id"], {}).update(added if isinstance(added, dict) else {})
    ended = {entry["run_id"] for entry in entries if entry["event"] in ENDS}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # digests are computed in parallel: SHA-256 lets other threads run
        folders = pool.map(lambda run_id: list(_folder(runs_dir, run_id, listed[run_id], run_id in ended)), listed)
        told = [finding for found in folders for finding in found]
    findings += [finding for finding, is_note in told if not is_note]
    notes += [finding for finding, is_note in told if is_note]
    whole = [entry for line in lines if ledger.is_whole(line.raw) and (entry := ledger.entry_of(line.raw))]
    findings += _disagreeing(runs_dir, whole)
    for path in sorted(runs_dir.iterdir()):
        if path.name in (ledger.FILE_NAME, index.FILE_NAME, *listed):
            continue
        if _LEFT_OVER.fullmatch(path.name) or _never_began(path):
            notes.append(Finding(path.name, "was left over when writing was interrupted; no run began"))
        else:
            findings.append(Finding(path.name, "is in no line of the ledger"))
    last = lines[-1].digest if lines else ""
    count = sum(map(len, listed.values()))
    return Verdict(last, len(lines), len(listed), count, tuple(findings), tuple(notes))


def _lines(content: bytes) -> list[Line]:
    parts = content.split(b"\n")
    rest = parts.pop()
    lines = [Line(number, raw, ended=True) for number, raw in enumerate(parts, 1)]
    return [*lines, Line(len(lines) + 1, rest, ended=False)] if rest else lines


def _chain(lines: list[Line]) -> tuple[list[Finding], list[Finding]]:
    """Each line held against its own digest and against the line before."""
    findings: list[Finding] = []
    notes: list[Finding] = []
    places = {line.digest: line.number for line in lines}
    before: Line | None = None
    for line, after in zip(lines, [*lines[1:], None], strict=False):  # there may be no line at all
        entry = ledger.entry_of(line.raw)
        whole = ledger.is_whole(line.raw)
        vouched = after is not None and (ledger.entry_of(after.raw) or {}).get("previous") == line.digest
        if not line.ended:
            findings.append(
                Finding(line.name, "the last, was cut off: by a crash, a full disk or by hand")
                if not whole
                else Finding(line.name, "the last, has lost its end of line")
            )
        elif not whole and vouched:
            notes.append(Finding(line.name, "was cut off when it was written; the line after says that it was so"))
        elif not whole:
            findings.append(Finding(line.name, "was altered"))
        if entry is not None and whole:
            if not ledger.is_readable(entry):
                findings.append(Finding(line.name, f"does not tell what a line {entry['event']!r} tells"))
            problem = _link(entry.get("previous"), before, places)
            if problem and (before is None or ledger.is_whole(before.raw)):
                findings.append(Finding(line.name, problem))
        before = line
    return findings, notes


def _link(previous: object, before: Line | None, places: dict[str, int]) -> str:
    """What is wrong with a line's digest of the line before; empty for nothing."""
    if previous == (before.digest if before else ""):
        return ""
    if not previous:
        return "was the first line when it was written: lines were put before it, or moved"
    if isinstance(previous, str) and previous in places:
        return f"followed what is line {places[previous]} now: lines were moved, removed or put in"
    where = f"between lines {before.number} and it" if before else "before it"
    return f"one or more lines {where} were removed, or the line before it was written anew"


def _folder(runs_dir: Path, run_id: str, expected: dict[str, str], ended: bool) -> Iterator[tuple[Finding, bool]]:
    """Findings on one run's folder, each with whether it is a note only."""
    folder = runs_dir / run_id
    if folder.is_symlink():
        yield Finding(run_id, "its folder is a link, which may lead out of the archive"), False
        return
    if not is_run_id(run_id) or not folder.is_dir():
        yield Finding(run_id, "its folder is missing"), False
        return
    present = {path.name: path for path in sorted(folder.iterdir())}
    for name, digest in sorted(expected.items()):
        path = present.pop(name, None)
        if path is None or not path.is_file():
            yield Finding(f"{run_id}/{name}", "is missing"), False
        elif path.is_symlink():
            yield Finding(f"{run_id}/{name}", "is a link, which may lead out of the archive"), False
        elif files.sha256(path) != digest:
            ahead = name == SUMS and _runs_ahead(path, expected)
            problem = "lists more than the ledger: writing was interrupted" if ahead else "was altered"
            yield Finding(f"{run_id}/{name}", problem), ahead
        elif name == PLAN and not _is_itself(path):
            yield Finding(f"{run_id}/{name}", "holds other rows than its fingerprint is of"), False
    if ended:
        yield from (_unlisted(run_id, name) for name in present)
    elif receipt_of(folder).get("ended_at") or present.keys() & {SETTLEMENT, SUMS}:
        # Sums and settlement are written under the ledger's lock, together with the line that lists them.
        by = "its receipt" if receipt_of(folder).get("ended_at") else "what lies in its folder"
        yield Finding(run_id, f"has ended by {by}, and no line says so: lines were cut off, or a crash came"), False
    else:
        yield Finding(run_id, "has begun and not ended: nothing vouches for its files yet"), True


def _is_itself(plan: Path) -> bool:
    """Whether a plan's rows are those of its fingerprint."""
    with suppress(Refused):
        return bool(read_plan(plan))
    return False


def _runs_ahead(sums: Path, expected: dict[str, str]) -> bool:
    """Whether it lists what the ledger does and more files as they are: it is written before the ledger's line."""
    text = sums.read_bytes().decode(errors="replace")
    told = {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}
    others = {name: digest for name, digest in expected.items() if name != SUMS}
    more = told.keys() - others.keys()
    return (
        bool(more)
        and text == sum_lines(told)
        and told == {**others, **{name: told[name] for name in more}}
        and all(
            name == Path(name).name
            and (sums.parent / name).is_file()
            and files.sha256(sums.parent / name) == told[name]
            for name in more
        )
    )


def _never_began(path: Path) -> bool:
    """Whether this is a run's folder with nothing in it but the first receipt, from before the run's first line."""
    if not path.is_dir() or not is_run_id(path.name):
        return False
    names = [inside.name for inside in path.iterdir() if not _LEFT_OVER.fullmatch(inside.name)]
    return not names or (names == [RECEIPT] and receipt_of(path).get("state") == "planned")


def _unlisted(run_id: str, name: str) -> tuple[Finding, bool]:
    what = f"{run_id}/{name}"
    if _LEFT_OVER.fullmatch(name):
        return Finding(what, "was left over when writing was interrupted"), True
    if name == NOTEBOOK:
        return Finding(what, "is not archived yet, so that nothing vouches for it"), True
    return Finding(what, "is in no line of the ledger"), False


def _disagreeing(runs_dir: Path, entries: list[dict[str, Any]]) -> Iterator[Finding]:
    """Runs of which the ledger, from which the archive is read, tells other facts than receipt and settlement."""
    told: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        if entry["event"] in ("begun", *ENDS):
            told.setdefault(entry["run_id"], []).append(entry)
    for run_id, lines in told.items():
        differing: dict[str, list[str]] = {}
        # A closed file that is none any more is named by its digest, and no other vouches for anything.
        with suppress(KpiBackfillError, LookupError, TypeError, AttributeError):
            receipt, settlement = receipt_of(runs_dir / run_id), RunRecord(runs_dir, run_id).settlement
            for line in lines:
                for name, value in line_of(line["event"], receipt, settlement).items():
                    if line.get(name) != value:
                        differing.setdefault(SETTLEMENT if name == "outcome" else RECEIPT, []).append(name)
        for about, names in differing.items():
            yield Finding(f"{run_id}/{about}", f"and the ledger tell different things: {', '.join(names)}")
