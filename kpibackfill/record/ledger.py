"""The ledger of a folder of runs: a line an event, each with the SHA-256 of the line before and of its files."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kpibackfill.record import files

FILE_NAME = "ledger.jsonl"
EVENTS = ("begun", "closed", "archived", "approved", "settled")


def append(runs_dir: Path, event: str, run_id: str, added: Mapping[str, str], **facts: Any) -> str:
    """Add an event under a lock, so that two runs that end together don't break the chain. Returns the new head.

    Parameters
    ----------
    added : the SHA-256 of each file that the event adds to the run's folder, by name.
    facts : what else the line says of the event; plain JSON values.
    """
    files.make_folder(runs_dir)
    path = runs_dir / FILE_NAME
    with files.told(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            last = _last_line(file)
            entry = {
                "schema": 1,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "event": event,
                "run_id": run_id,
                "files": dict(added),
                **facts,
                "previous": hashlib.sha256(last).hexdigest() if last else "",
            }
            line = json.dumps(entry, ensure_ascii=True, allow_nan=False).encode()
            end = file.seek(0, os.SEEK_END)
            cut_off = b"\n" if last and not _ends_with_newline(file, end) else b""
            text = cut_off + line + b"\n"
            if file.write(text) != len(text):
                os.ftruncate(file.fileno(), end)
                raise OSError(28, os.strerror(28))
            os.fsync(file.fileno())
    return hashlib.sha256(line).hexdigest()


def entries(runs_dir: Path) -> Iterator[dict[str, Any]]:
    """The events in order; a line that is no event is passed over here and named by ``verify``."""
    path = runs_dir / FILE_NAME
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in ("at", "event", "run_id")):
                yield entry


def _last_line(file: Any) -> bytes:
    """The last line without its newline; empty for an empty file."""
    end = file.seek(0, os.SEEK_END)
    block, found = 65536, b""
    while end > 0 and b"\n" not in found.rstrip(b"\n"):
        start = max(0, end - block)
        file.seek(start)
        found = file.read(end - start) + found
        end = start
    return bytes(found.rstrip(b"\n").rpartition(b"\n")[2])


def _ends_with_newline(file: Any, end: int) -> bool:
    file.seek(end - 1)
    return bool(file.read(1) == b"\n")
