"""The ledger of a folder of runs: one line an event, each with the SHA-256 of the line before and of the files it adds.

A line ends with its own ``digest``, the SHA-256 of the line without it, so that an altered line is known by itself.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from kpibackfill.archive import files

FILE_NAME = "ledger.jsonl"
EVENTS = ("begun", "closed", "archived", "approved", "settled")
# What a line must tell so that it can be read, by its event: the kinds of its members.
_TOLD: dict[str, dict[str, type]] = {
    "begun": {"target": str, "years": list, "apply": bool, "operator": str, "reason": str},
    "closed": {"state": str, "kpis": list, "changes": list, "decisions": list},
    "archived": {"notebook": str, "cells": str},
    "settled": {"outcome": str, "kpis": list, "changes": list, "decisions": list},
}
# And of each row in its lists.
_OF_ROWS: dict[str, dict[str, type]] = {
    "changes": {"snapshot_id": int, "kpi_id": str, "year": int, "action": str},
    "decisions": {"snapshot_id": int, "kpi_id": str},
}


class Book:
    """The ledger while this process alone may write to it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def append(self, event: str, run_id: str, added: Mapping[str, str], **facts: Any) -> str:
        """As the module's `append`."""
        last = _last_line(self._file)
        entry = {
            "schema": 1,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "event": event,
            "run_id": run_id,
            "files": dict(added),
            **facts,
            "previous": hashlib.sha256(last).hexdigest() if last else "",
        }
        line = with_digest(json.dumps(entry, ensure_ascii=True, allow_nan=False).encode())
        end = self._file.seek(0, os.SEEK_END)
        # A line that a crash cut off stays as it is: what follows begins on a line of its own and vouches for it.
        text = (b"\n" if last and not _ends_with_newline(self._file, end) else b"") + line + b"\n"
        if self._file.write(text) != len(text):
            os.ftruncate(self._file.fileno(), end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._file.fileno())
        return hashlib.sha256(line).hexdigest()


@contextmanager
def writing(runs_dir: Path) -> Iterator[Book]:
    """Hold the ledger's lock, so that two runs that end together don't break the chain."""
    files.make_folder(runs_dir)
    path = runs_dir / FILE_NAME
    with files.told(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        files.sync(runs_dir)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield Book(file)


@contextmanager
def held(runs_dir: Path) -> Iterator[bytes]:
    """The whole ledger, while nobody can write to it."""
    with (runs_dir / FILE_NAME).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield file.read()


def append(runs_dir: Path, event: str, run_id: str, added: Mapping[str, str], **facts: Any) -> str:
    """Add an event under the ledger's lock. Returns the new head.

    Parameters
    ----------
    added : the SHA-256 of each file that the event adds to the run's folder, by name.
    facts : what else the line says of the event; plain JSON values.
    """
    with writing(runs_dir) as book:
        return book.append(event, run_id, added, **facts)


def with_digest(line: bytes) -> bytes:
    """The line of a JSON object with its own SHA-256 as its last member."""
    return line[:-1] + b', "digest": "' + hashlib.sha256(line).hexdigest().encode() + b'"}'


def is_whole(line: bytes) -> bool:
    """Whether a line is as it was written, by its own digest."""
    body, _, _ = line.rpartition(b', "digest": "')
    return bool(body) and with_digest(body + b"}") == line


def entry_of(line: bytes) -> dict[str, Any] | None:
    """The event that a line tells, altered or not; ``None`` where it tells none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    told = isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in ("at", "event", "run_id"))
    return entry if told else None


def is_readable(entry: Mapping[str, Any]) -> bool:
    """Whether a line tells what its event wants told, and of each row what that wants."""
    told = _TOLD.get(entry["event"], {})
    files_, plan, years = (entry.get(name) for name in ("files", "plan", "years"))
    return (
        _holds(entry, told)
        and _is_instant(entry["at"])
        and isinstance(files_, dict)
        and all(isinstance(digest, str) for digest in files_.values())
        and (not isinstance(years, list) or (len(years) == 2 and all(type(year) is int for year in years)))
        and ("changes" not in told or plan is None or _holds(plan, {"fingerprint": str, "rows": int}))
        and all(
            _holds(row, members) and (name != "changes" or _has_values(row))
            for name, members in _OF_ROWS.items()
            if name in told
            for row in entry[name]
        )
    )


def _holds(found: object, members: Mapping[str, type]) -> bool:
    return isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in members.items())


def _has_values(change: Mapping[str, Any]) -> bool:
    """Whether it tells the values before and after: numbers, or a text where JSON knows none; ``None`` for none."""
    return all(
        name in change
        and (change[name] is None or type(change[name]) in (int, float) or change[name] in ("nan", "inf", "-inf"))
        for name in ("before", "after")
    )


def _is_instant(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def entries(runs_dir: Path, run_id: str = "") -> Iterator[dict[str, Any]]:
    """The events in order, of one run where it is given, less what `passed_over` names."""
    for line in _lines(runs_dir):
        if run_id.encode() not in line:
            continue  # most lines are about other runs, and are not worth being parsed
        entry = entry_of(line) if is_whole(line) else None
        if entry is not None and is_readable(entry) and run_id in ("", entry["run_id"]):
            yield entry


def passed_over(runs_dir: Path) -> list[int]:
    """The numbers of lines that were altered or cut off or tell too little, so that nothing is read from them."""
    return [
        number
        for number, line in enumerate(_lines(runs_dir), 1)
        if not is_whole(line) or not ((entry := entry_of(line)) and is_readable(entry))
    ]


def _lines(runs_dir: Path) -> Iterator[bytes]:
    path = runs_dir / FILE_NAME
    if path.is_file():
        with path.open("rb") as file:
            yield from (line.rstrip(b"\n") for line in file)


def _last_line(file: IO[bytes]) -> bytes:
    """The last line without its newline; empty for an empty file."""
    end = file.seek(0, os.SEEK_END)
    block, found = 65536, b""
    while end > 0 and b"\n" not in found.rstrip(b"\n"):
        start = max(0, end - block)
        file.seek(start)
        found = file.read(end - start) + found
        end = start
    return bytes(found.rstrip(b"\n").rpartition(b"\n")[2])


def _ends_with_newline(file: IO[bytes], end: int) -> bool:
    file.seek(end - 1)
    return bool(file.read(1) == b"\n")
