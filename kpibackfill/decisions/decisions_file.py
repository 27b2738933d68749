"""Reads and checks the decisions file: what a person decided about individual rows, as spreadsheets save it.

This is about the file alone; ``planning.resolve`` works out what its lines mean for the rows of a run.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from kpibackfill.decisions.number_parsing import number
from kpibackfill.errors import Refused
from kpibackfill.text import some

Word = Literal["accept", "reject", "defer", "set", "remove"]
WORDS: tuple[Word, ...] = ("accept", "reject", "defer", "set", "remove")
ON_NUMBERS = ("accept", "reject", "remove")  # only together with the numbers they were based on
LARGEST = 16 * 2**20

ROW_COLUMNS = (
    *("snapshot_id", "kpi_id", "year", "snapshot_date", "status", "shown"),
    *("stored", "computed", "basis", "population"),
)
COLUMNS = (*ROW_COLUMNS, "remarks", "numbers", "decision", "value", "reason", "reviewer")
"""The columns of a file that `kpibackfill review` writes: what is known about a row, and what is decided."""

_REQUIRED = ("kpi_id", "decision")
_KNOWN = (*_REQUIRED, "snapshot_id", "year", "numbers", "value", "reason", "reviewer")
_DELIMITERS = (",", ";", "\t")
_WHOLE = re.compile(r"(\d{1,18})(?:[.,]0{1,2})?", re.ASCII)  # three zeros may mean thousands


@dataclass(frozen=True, slots=True)
class Decision:
    """One line: about the row of a snapshot or, with `set`, those of all target snapshots of a year.

    `numbers` identifies the numbers that the decision was based on; only a `set` can do without.
    """

    line: int
    kpi_id: str
    decision: Word
    snapshot_id: int | None
    year: int | None
    value: float | None
    numbers: str
    reason: str
    reviewer: str

    def same_as(self, other: Decision) -> bool:
        return (self.decision, self.value) == (other.decision, other.value)


@dataclass(frozen=True, slots=True)
class Decisions:
    """A decisions file: the lines with a decision, its bytes for the record, and columns that are ignored."""

    name: str
    raw: bytes
    lines: tuple[Decision, ...]
    ignored: tuple[str, ...] = ()

    def kpi_ids(self) -> set[str]:
        return {decision.kpi_id for decision in self.lines}


def read(path: str | Path, units: Mapping[str, str]) -> Decisions:
    """Read the decisions in a file: CSV with commas, semicolons or tabs, in UTF-8, UTF-16 or Windows-1252.

    Parameters
    ----------
    path : the file.
    units : the unit of each KPI id that may be decided on; empty for one without.

    Raises
    ------
    Refused : the file can't be read, or a line is unknown, incomplete or contradicts another; the message names the
        line, and nothing was written.
    """
    path, raw = content(path)
    return parse(raw, path.name, units)


def content(path: str | Path, *, new: bool = False) -> tuple[Path, bytes]:
    """Return the path of a decisions file and its bytes; if it may be `new`, no bytes if it does not exist yet.

    Raises Refused as ``read`` does.
    """
    try:
        path = Path(path).expanduser()
        if path.exists() and not path.is_file():
            raise _refused(str(path), "can't be read (it is not a regular file)")  # a device or a pipe may never end
        if path.is_file() and path.stat().st_size > LARGEST:
            raise _refused(path.name, f"is larger than {LARGEST // 2**20} MiB, too large for a list of decisions")
        return path, path.read_bytes()
    except OSError as error:
        if new and isinstance(error, FileNotFoundError):
            return Path(path), b""
        raise _refused(str(path), f"can't be read ({error.strerror})") from None
    except (RuntimeError, ValueError) as error:  # ~nobody, a NUL
        raise _refused(repr(str(path)), f"is not a path to a file ({str(error).rstrip('.')})") from None


def parse(raw: bytes, name: str, units: Mapping[str, str]) -> Decisions:
    """Return the decisions in the bytes of a file called `name`. Raises Refused as ``read`` does."""
    header, lines, delimiter = _table(_text(raw, name), name)
    known = ((line, {key: cells.get(key, "") for key in _KNOWN}) for line, cells in lines)
    found = list(filter(None, (_decision(line, cells, name, units, delimiter) for line, cells in known)))
    _refuse_contradictions(found, name)
    decided = tuple(decision for decision in found if decision.decision != "defer")
    return Decisions(name, raw, decided, tuple(column for column in header if column not in ("", *COLUMNS)))


def table(raw: bytes, name: str) -> tuple[list[str], list[dict[str, str]], str]:
    """Return the header of a decisions file, all its lines, decided or not, and its delimiter.

    Raises Refused as ``read`` does.
    """
    header, lines, delimiter = _table(_text(raw, name), name)
    return header, [cells for _, cells in lines], delimiter


def _text(raw: bytes, name: str) -> str:
    for encoding in ["utf-16"] if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "cp1252"]:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise _refused(name, "is not CSV text; save it from the spreadsheet as CSV UTF-8")


def _table(text: str, name: str) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]], str]:
    """Return the header, the non-empty lines with the number of the line each begins on, and the delimiter."""
    skipped = 0
    if re.match(r"sep=.\r?\n", text):  # a spreadsheet's own first line, which names the delimiter
        skipped, text = 1, text.partition("\n")[2]
    # The header decides: quotes around the cells of a file with semicolons may be an error in one with commas.
    refused: Refused | None = None
    for delimiter in _DELIMITERS:
        rows = _rows(text, delimiter, name, skipped)
        try:
            _, header = next(rows, (0, []))
        except Refused as error:
            refused = refused or error
            continue
        header = [_one_line(cell).lower() for cell in header]
        if all(column in header for column in _REQUIRED):
            _refuse_header(header, name)
            return header, _by_column(header, rows, name, delimiter), delimiter
    raise refused or _refused(
        name,
        "lacks a header with the columns kpi_id and decision, separated by commas, semicolons or tabs; "
        "`kpibackfill review RUN` writes such a file",
    )


def _refuse_header(header: Sequence[str], name: str) -> None:
    missing = [column for column in _KNOWN if column not in header]
    for column in header:
        if column in _KNOWN and header.count(column) > 1:
            raise _refused(name, f"has the column {column!r} twice")
        # If a misspelled snapshot_id were ignored, a value would be set for every snapshot of the year.
        near = difflib.get_close_matches(column, missing, n=1, cutoff=0.75) if column not in COLUMNS else []
        if near:
            raise _refused(name, f"has a column {column!r} but no {near[0]!r}; correct it, or rename it")


def _by_column(
    header: Sequence[str], rows: Iterable[tuple[int, list[str]]], name: str, delimiter: str
) -> Iterator[tuple[int, dict[str, str]]]:
    for line, cells in rows:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise _refused(name, f"line {line} has more cells than the header; put quotes around text with commas")
        by_column = dict(zip(header, map(_one_line, cells), strict=False))
        other = [mark for mark in _DELIMITERS if mark != delimiter and mark in cells[0].strip()]
        if other and not by_column.get("decision") and not by_column.get("value"):
            raise _refused(
                name,
                f"line {line} has no decision, and {other[0]!r} in its first cell; separate cells by {delimiter!r}, "
                "like the header's",
            )
        yield line, by_column


def _rows(text: str, delimiter: str, name: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = skipped + 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield begins, cells
            begins = skipped + reader.line_num + 1
    except csv.Error as error:
        raise _refused(name, f"line {begins}: {error}; check that all quotes are closed") from None


def _decision(
    line: int, cells: Mapping[str, str], name: str, units: Mapping[str, str], delimiter: str
) -> Decision | None:
    """Return the decision of a line; ``None`` if nothing is decided yet."""
    if not cells["decision"] and not cells["value"]:
        return None
    try:
        word = _word(cells)
        snapshot_id, year = _whole("snapshot_id", cells), _whole("year", cells)
        if cells["kpi_id"] not in units:
            raise ValueError(f"there is no KPI {cells['kpi_id'][:64]!r} in the registry or in manual_kpis")
        if snapshot_id is None and not (word == "set" and year is not None):
            raise ValueError(f"{word} needs a snapshot_id" + " or a year" * (word == "set"))
        value = _value(cells, units[cells["kpi_id"]], delimiter) if word == "set" else None
        _refuse_incomplete(word, cells)
    except ValueError as error:
        raise _refused(name, f"line {line}: {error}") from None
    texts = cells["numbers"].lower(), cells["reason"], cells["reviewer"]
    return Decision(line, cells["kpi_id"], word, snapshot_id, year, value, *texts)


def _word(cells: Mapping[str, str]) -> Word:
    word = cells["decision"].lower()
    if word and word not in WORDS:
        raise ValueError(f"{cells['decision'][:40]!r} is not a decision; use {some(WORDS)}")
    if cells["value"] and word != "set":
        raise ValueError(f"only the decision set takes a value, not {word or 'an empty one'}")
    return cast(Word, word)


def _value(cells: Mapping[str, str], unit: str, delimiter: str) -> float:
    if not cells["value"]:
        raise ValueError("set needs a value")
    try:
        value = number(cells["value"], decimal_comma_likely=delimiter != ",")
    except ValueError as error:
        raise ValueError(f"value {error}") from None
    if unit == "fraction" and not 0 <= value <= 1:
        raise ValueError(f"{cells['kpi_id']} is a fraction from 0 to 1: write 0.35 for 35 %, not {cells['value']}")
    return value


def _refuse_incomplete(word: Word, cells: Mapping[str, str]) -> None:
    if word in ON_NUMBERS and not cells["numbers"]:
        raise ValueError(
            f"{word} needs the column “numbers” that `kpibackfill review RUN` writes, which identifies what was seen"
        )
    for name in ("reason", "reviewer"):
        if word in ("set", "remove") and not cells[name]:
            raise ValueError(f"{word} needs a {name}")


def _refuse_contradictions(found: Sequence[Decision], name: str) -> None:
    first: dict[tuple[Any, ...], Decision] = {}
    for decision in found:
        about = ("snapshot", decision.snapshot_id) if decision.snapshot_id is not None else ("year", decision.year)
        known = first.setdefault((decision.kpi_id, *about), decision)
        if not known.same_as(decision):
            raise contradiction(known, decision, name)


def contradiction(one: Decision, other: Decision, name: str) -> Refused:
    return _refused(name, f"lines {one.line} and {other.line} contradict each other about one row of {one.kpi_id}")


def _one_line(cell: str) -> str:
    """Return a cell as one line of printable text."""
    return " ".join("".join(char if char.isprintable() else " " for char in cell).split())


def same_whole(text: str, number: int | None) -> bool:
    """Whether a cell holds that whole number or, without one, nothing."""
    match = _WHOLE.fullmatch(text)
    return text == "" if number is None else match is not None and int(match[1]) == number


def _whole(name: str, cells: Mapping[str, str]) -> int | None:
    # Spreadsheets and data frames write 283.0 in a column with empty cells.
    match = _WHOLE.fullmatch(cells[name])
    if cells[name] and match is None:
        raise ValueError(f"{name} {cells[name][:40]!r} is not a whole number")
    return int(match[1]) if match else None


def _refused(what: str, problem: str) -> Refused:
    return Refused(f"Decisions: {what}: {problem}. Nothing was written.", code="decisions")


def refuse_lines(decisions: Decisions, problems: Iterable[tuple[Decision, str]]) -> None:
    """Refuse the file if there are problems; the error names the first five with their lines."""
    found = list(problems)
    if found:
        lines = (f"line {decision.line}: {problem}" for decision, problem in found)
        raise _refused(decisions.name, some(lines, between="; "))
