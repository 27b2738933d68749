"""What a person decided about single rows: the decisions file, as spreadsheets save it, read and held to its rules.

Here the file stands alone; what its lines mean for the rows of a run is worked out in ``deciding``.
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
ON_NUMBERS = ("accept", "reject", "remove")  # only with the numbers that they were decided on
LARGEST = 16 * 2**20

TOLD = ("snapshot_id", "kpi_id", "year", "snapshot_date", "status", "stored", "computed", "basis", "population")
COLUMNS = (*TOLD, "remarks", "numbers", "decision", "value", "reason", "reviewer")
"""The columns of a file that `kpibackfill review` writes: what it tells about a row, and what is decided."""

_REQUIRED = ("kpi_id", "decision")
_KNOWN = (*_REQUIRED, "snapshot_id", "year", "numbers", "value", "reason", "reviewer")
_DELIMITERS = (",", ";", "\t")
_WHOLE = re.compile(r"(\d{1,18})(?:[.,]0{1,2})?", re.ASCII)  # three noughts may be thousands


@dataclass(frozen=True, slots=True)
class Decision:
    """One line: about the row of a snapshot, or with `set` about those of all target snapshots of a year.

    `numbers` stands for the numbers that were decided on; only a `set` may be without.
    """

    line: int
    kpi_id: str
    word: Word
    snapshot_id: int | None
    year: int | None
    value: float | None
    numbers: str
    reason: str
    reviewer: str

    def same_as(self, other: Decision) -> bool:
        return (self.word, self.value) == (other.word, other.value)


@dataclass(frozen=True, slots=True)
class Decisions:
    """A decisions file: its lines that decide anything, its bytes for the record, and columns without a meaning."""

    name: str
    raw: bytes
    lines: tuple[Decision, ...]
    ignored: tuple[str, ...] = ()

    def kpi_ids(self) -> set[str]:
        return {decision.kpi_id for decision in self.lines}


def read(path: str | Path, units: Mapping[str, str]) -> Decisions:
    """The decisions in a file: CSV with commas, semicolons or tabs, in UTF-8, UTF-16 or a Western Windows code page.

    Parameters
    ----------
    path : the file.
    units : the unit of each KPI id that may be decided on; the empty text where there is none.

    Raises
    ------
    Refused : the file can't be read, or a line is unknown, incomplete or contradicts another; the message names the
        line, and nothing was written.
    """
    path, raw = content(path)
    return parse(raw, path.name, units)


def content(path: str | Path, *, new: bool = False) -> tuple[Path, bytes]:
    """Where a decisions file is, and its bytes; where it may be `new`, none of one that is not there yet.

    Raises Refused as ``read`` does.
    """
    try:
        path = Path(path).expanduser()
        if path.exists() and not path.is_file():
            raise _refused(str(path), "can't be read (it is no regular file)")  # a device or a pipe may have no end
        if path.is_file() and path.stat().st_size > LARGEST:
            raise _refused(path.name, f"is larger than {LARGEST // 2**20} MiB, which no list of decisions is")
        return path, path.read_bytes()
    except OSError as error:
        if new and isinstance(error, FileNotFoundError):
            return Path(path), b""
        raise _refused(str(path), f"can't be read ({error.strerror})") from None
    except (RuntimeError, ValueError) as error:  # ~nobody, a NUL
        raise _refused(repr(str(path)), f"is not the path of a file ({str(error).rstrip('.')})") from None


def parse(raw: bytes, name: str, units: Mapping[str, str]) -> Decisions:
    """The decisions in the bytes of a file called `name`. Raises Refused as ``read`` does."""
    header, lines, delimiter = _table(_text(raw, name), name)
    found: list[Decision] = []
    for line, told in lines:
        decision = _decision(line, {key: told.get(key, "") for key in _KNOWN}, name, units, delimiter)
        if decision is not None:
            found.append(decision)
    _refuse_contradictions(found, name)
    decided = tuple(decision for decision in found if decision.word != "defer")
    return Decisions(name, raw, decided, tuple(column for column in header if column not in ("", *COLUMNS)))


def table(raw: bytes, name: str) -> tuple[list[str], list[dict[str, str]], str]:
    """The header of a decisions file, its lines as they stand, decided or not, and its delimiter.

    Raises Refused as ``read`` does.
    """
    header, lines, delimiter = _table(_text(raw, name), name)
    return header, [told for _, told in lines], delimiter


def _text(raw: bytes, name: str) -> str:
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise _refused(name, "is no CSV text; save it from the spreadsheet as CSV UTF-8")


def _table(text: str, name: str) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]], str]:
    """Header, non-empty lines with the number of the line that each begins on, and the delimiter."""
    skipped = 0
    if re.match(r"sep=.\r?\n", text):  # a spreadsheet's own first line, which names the delimiter
        skipped, text = 1, text.partition("\n")[2]
    # The header tells: quotes around the cells of a file with semicolons are in the way of one with commas.
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
            return header, _told(header, rows, name, delimiter), delimiter
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
        # Read past, a misspelt snapshot_id would set a value for every snapshot of the year.
        near = difflib.get_close_matches(column, missing, n=1, cutoff=0.75) if column not in COLUMNS else []
        if near:
            raise _refused(name, f"has no column {near[0]!r} but {column!r}; name it so, or less like it")


def _told(
    header: Sequence[str], rows: Iterable[tuple[int, list[str]]], name: str, delimiter: str
) -> Iterator[tuple[int, dict[str, str]]]:
    for line, cells in rows:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise _refused(name, f"line {line}: more cells than the header has; put quotes around text with commas")
        told = dict(zip(header, map(_one_line, cells), strict=False))
        other = [mark for mark in _DELIMITERS if mark != delimiter and mark in cells[0].strip()]
        if other and not told.get("decision") and not told.get("value"):
            raise _refused(
                name,
                f"line {line}: decides nothing, and holds {other[0]!r} in its first cell; "
                f"separate it by {delimiter!r}, as the header is",
            )
        yield line, told


def _rows(text: str, delimiter: str, name: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = skipped + 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield begins, cells
            begins = skipped + reader.line_num + 1
    except csv.Error as error:
        raise _refused(name, f"line {begins}: {error}; are the quotes in pairs?") from None


def _decision(
    line: int, told: Mapping[str, str], name: str, units: Mapping[str, str], delimiter: str
) -> Decision | None:
    """The decision of a line; ``None`` where nothing is decided yet."""
    if not told["decision"] and not told["value"]:
        return None
    try:
        word = _word(told)
        snapshot_id, year = _whole("snapshot_id", told), _whole("year", told)
        if told["kpi_id"] not in units:
            raise ValueError(f"there is no KPI {told['kpi_id'][:64]!r} in the registry or in manual_kpis")
        if snapshot_id is None and not (word == "set" and year is not None):
            raise ValueError(f"{word} needs a snapshot_id" + " or a year" * (word == "set"))
        value = _value(told, units[told["kpi_id"]], delimiter) if word == "set" else None
        _refuse_incomplete(word, told)
    except ValueError as error:
        raise _refused(name, f"line {line}: {error}") from None
    return Decision(
        line,
        told["kpi_id"],
        word,
        snapshot_id,
        year,
        value,
        told["numbers"].lower(),
        told["reason"],
        told["reviewer"],
    )


def _word(told: Mapping[str, str]) -> Word:
    word = told["decision"].lower()
    if word and word not in WORDS:
        raise ValueError(f"{told['decision'][:40]!r} is no decision; there are {', '.join(WORDS)}")
    if told["value"] and word != "set":
        raise ValueError(f"a value stands only beside the decision set, not beside {word or 'none'}")
    return cast(Word, word)


def _value(told: Mapping[str, str], unit: str, delimiter: str) -> float:
    if not told["value"]:
        raise ValueError("set needs a value")
    try:
        value = number(told["value"], decimal_comma_likely=delimiter != ",")
    except ValueError as error:
        raise ValueError(f"value {error}") from None
    if unit == "fraction" and not 0 <= value <= 1:
        raise ValueError(f"{told['kpi_id']} is a fraction from 0 to 1: write 0.35 for 35 %, not {told['value']}")
    return value


def _refuse_incomplete(word: Word, told: Mapping[str, str]) -> None:
    if word in ON_NUMBERS and not told["numbers"]:
        raise ValueError(
            f"{word} needs the column numbers of `kpibackfill review RUN`, so that it meets no other numbers"
        )
    for name in ("reason", "reviewer"):
        if word in ("set", "remove") and not told[name]:
            raise ValueError(f"{word} needs a {name}")


def _refuse_contradictions(found: Sequence[Decision], name: str) -> None:
    first: dict[tuple[Any, ...], Decision] = {}
    for decision in found:
        about = ("snapshot", decision.snapshot_id) if decision.snapshot_id is not None else ("year", decision.year)
        known = first.setdefault((decision.kpi_id, *about), decision)
        if not known.same_as(decision):
            raise contradiction(known, decision, name)


def contradiction(one: Decision, other: Decision, name: str) -> Refused:
    return _refused(name, f"lines {one.line} and {other.line} decide differently about one row of {one.kpi_id}")


def _one_line(cell: str) -> str:
    """A cell as one line of printable text."""
    return " ".join("".join(char if char.isprintable() else " " for char in cell).split())


def same_whole(text: str, number: int | None) -> bool:
    """Whether a cell holds that whole number, or where it is none nothing."""
    match = _WHOLE.fullmatch(text)
    return text == "" if number is None else match is not None and int(match[1]) == number


def _whole(name: str, told: Mapping[str, str]) -> int | None:
    # Spreadsheets and data frames write a column with empty cells as 283.0.
    match = _WHOLE.fullmatch(told[name])
    if told[name] and match is None:
        raise ValueError(f"{name} {told[name][:40]!r} is no whole number")
    return int(match[1]) if match else None


def _refused(what: str, problem: str) -> Refused:
    return Refused(f"Decisions: {what}: {problem}. Nothing was written.", code="decisions")


def refuse_lines(decisions: Decisions, problems: Iterable[tuple[Decision, str]]) -> None:
    """Refuse the file where there are problems: the first five are told with their lines."""
    found = list(problems)
    if found:
        told = (f"line {decision.line}: {problem}" for decision, problem in found)
        raise _refused(decisions.name, some(told, between="; "))
