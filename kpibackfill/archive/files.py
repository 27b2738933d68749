"""Files that are written whole or not at all, readable by their owner only."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kpibackfill.errors import KpiBackfillError

ROW = 1500
"""The longest row of a table, in characters of JSON, that is written on one line."""
OF_A_RUN = (
    "nothing more is written to the database. Free disk space or grant rights; `kpibackfill runs` shows how the run "
    "ended."
)


def write(path: Path, content: bytes | str, *, then: str = OF_A_RUN) -> str:
    """Write a file whole (a temporary one next to it, fsynced and renamed), and return its SHA-256.

    `then` ends the error message: what was left untouched, and what to do.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with as_record_error(path, then):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return hashlib.sha256(data).hexdigest()


def sync(path: Path) -> None:
    """Make a file, or a new or changed name in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    with as_record_error(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(folder.parent)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(document: Any) -> bytes:
    """The one JSON text of a document: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "surrogatepass"
    )


def readable(document: Any) -> str:
    """JSON for people and programs, in the order it was built: one line per member, and per row of a table."""
    return _indented(document, 0) + "\n"


def _indented(value: Any, depth: int) -> str:
    # json's own indentation puts each number on a line of its own, and is many times slower.
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, Mapping) and value:
        members = (f"{inner}{_text(name)}: {_indented(member, depth + 1)}" for name, member in value.items())
        return "{" + ",".join(members) + outer + "}"
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        rows = (inner + (text if len(text := _text(row)) <= ROW else _indented(row, depth + 1)) for row in value)
        return "[" + ",".join(rows) + outer + "]"
    return _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def number(value: float | None) -> float | str | None:
    """A float for JSON, which knows neither NaN nor infinity: those become text."""
    if value is None or math.isfinite(value):
        return value
    return str(value)


@contextmanager
def as_record_error(path: Path, then: str = OF_A_RUN) -> Iterator[None]:
    """Turn what the file system refuses into an error of one line."""
    try:
        yield
    except OSError as error:
        raise KpiBackfillError(f"{path} could not be written ({error.strerror}); {then}", code="record") from error
