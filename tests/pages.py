"""Parses the pages of the documentation: blocks, links, tables, and the commands that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kpibackfill.demo import build_demo

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.md")])
SHELLS = ("console", "sh", "")
_BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_REDIRECTS = set("<>|&;()")


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    return [Block(found[2], re.sub(f"(?m)^{found[1]}", "", found[3])) for found in _BLOCK.finditer(text)]


def prose(text: str) -> str:
    """The text without its code blocks."""
    return _BLOCK.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", prose(text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """Links and images that lead to files of this repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text)))
    return [link for link in found if not re.match(r"https?:|mailto:", link)]


def table(text: str, heading: str = "") -> list[list[str]]:
    """The cells of the first table after a heading, without its header."""
    start = text.index(f"## {heading}\n") if heading else 0
    rows = re.search(r"(?m)(^\|.*\n)+", text[start:])
    assert rows, heading
    lines = rows[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def code(cell: str) -> list[str]:
    """What is in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def shown_commands(text: str) -> Iterator[list[str]]:
    """The arguments of each ``kpibackfill`` in the shell blocks."""
    for block in blocks(text):
        if block.language in SHELLS:
            for line in block.text.replace("\\\n", " ").splitlines():
                yield from commands(line)


def commands(line: str) -> Iterator[list[str]]:
    """The arguments of each ``kpibackfill`` on a shell line, up to what redirects or ends it."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    arguments: list[str] | None = None
    for word in [*words, ";"]:
        if _REDIRECTS.issuperset(word):
            if arguments:
                yield arguments[:-1] if arguments[-1:] == ["2"] and ">" in word else arguments
            arguments = None
        elif arguments is not None:
            arguments.append(word)
        elif word.rpartition("/")[2] == "kpibackfill":
            arguments = []


def configure(folder: Path, text: str, until_year: int | None = 2025) -> None:
    """Write a configuration with the text's targets, each with its own SQLite file instead of the database."""
    targets = re.findall(r"\[targets\.(\w+)\]", text)
    stores = iter(targets)
    text = re.sub("store = .*", lambda _: f'store = "sqlite:///{next(stores)}.sqlite"', text)
    (folder / "kpibackfill.toml").write_text(text, encoding="utf-8")
    for name in targets:
        if name != "demo":
            build_demo(folder / f"{name}.sqlite", until_year=until_year)
