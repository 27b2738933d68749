"""The ledger of a folder of runs: one line per event, with the SHA-256 of the line before and of the files it adds.

A line ends with its own ``digest``, the SHA-256 of the line without it, so an altered line shows on its own.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from kpibackfill.archive import files
from kpibackfill.archive.models import Event, Header, now, read, read_event

FILE_NAME = "ledger.jsonl"


class Book:
    """The ledger while only this process may write to it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def append(self, event: Event) -> str:
        """Add an event and return the new head."""
        last = _last_line(self._file)
        entry = event.as_json() | {"at": now(), "previous": hashlib.sha256(last).hexdigest() if last else ""}
        order = ("schema", "at", "event", "run_id", "files")
        del entry["digest"]
        entry["previous"] = entry.pop("previous")  # the last but the digest
        line = with_digest(json.dumps({name: entry[name] for name in order} | entry, allow_nan=False).encode())
        end = self._file.seek(0, os.SEEK_END)
        # A line that a crash cut off stays as it is; the next one starts on a line of its own and vouches for it.
        self._file.seek(max(0, end - 1))
        text = (b"\n" if last and self._file.read(1) != b"\n" else b"") + line + b"\n"
        if self._file.write(text) != len(text):
            os.ftruncate(self._file.fileno(), end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._file.fileno())
        return hashlib.sha256(line).hexdigest()


@contextmanager
def writing(runs_dir: Path) -> Iterator[Book]:
    """Hold the ledger's lock, so that two runs that end at the same time don't break the chain."""
    files.make_folder(runs_dir)
    path = runs_dir / FILE_NAME
    with files.as_record_error(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        files.sync(runs_dir)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield Book(file)


@contextmanager
def held(runs_dir: Path) -> Iterator[bytes]:
    """Yield the whole ledger while nobody can write to it."""
    with (runs_dir / FILE_NAME).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield file.read()


def append(runs_dir: Path, event: Event) -> str:
    """Add an event under the ledger's lock and return the new head."""
    with writing(runs_dir) as book:
        return book.append(event)


def with_digest(line: bytes) -> bytes:
    """The line of a JSON object with its own SHA-256 as its last member."""
    return line[:-1] + b', "digest": "' + hashlib.sha256(line).hexdigest().encode() + b'"}'


def is_whole(line: bytes) -> bool:
    """Whether a line matches its own digest."""
    body, _, _ = line.rpartition(b', "digest": "')
    return bool(body) and with_digest(body + b"}") == line


def header_of(line: bytes) -> Header | None:
    """The members that every line has, even if it was altered; ``None`` if it is not a line of a ledger."""
    with suppress(ValueError):
        return read(Header, line)
    return None


def event_of(line: bytes) -> Event | None:
    """The event of a line that matches its digest and has what its event requires; otherwise ``None``."""
    with suppress(ValueError):
        return read_event(line) if is_whole(line) else None
    return None


def events(runs_dir: Path, run_id: str = "") -> Iterator[Event]:
    """The events in order, or only those of one run, without the lines that `passed_over` lists."""
    for line in _lines(runs_dir):
        if run_id.encode() not in line:
            continue  # most lines are about other runs and need not be parsed
        event = event_of(line)
        if event is not None and run_id in ("", event.run_id):
            yield event


def passed_over(runs_dir: Path) -> list[int]:
    """The numbers of the lines that are not read: altered, cut off, or without what their event requires."""
    return [number for number, line in enumerate(_lines(runs_dir), 1) if event_of(line) is None]


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
