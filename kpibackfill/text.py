"""Text for people: values shown with nothing that would steer a terminal, and the pieces that many sentences share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

# Control characters other than the end of a line, what changes the direction of text, and what is not a character.
_STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def printable(text: str, escape: Callable[[str], str] = lambda character: f"\\x{ord(character):02x}") -> str:
    """The text with each character that steers a terminal written out."""
    return _STEERING.sub(lambda found: escape(found[0]), text)


def one_line(value: object) -> str:
    """A value that must not take more than its line."""
    text = str(value)
    return text if text.isprintable() else printable(text).replace("\n", "\\n")


def shown(value: Any) -> Any:
    """What a template shows, as a terminal shows it; markup is ours, and the tabs of a source text are harmless."""
    return "\t".join(map(printable, value.split("\t"))) if type(value) is str else value


def json_escape(character: str) -> str:
    """As JSON writes a character that it escapes."""
    return f"\\u{ord(character):04x}"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 row``, ``1,234 rows``; `plural` where it takes more than an *s*."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def some(items: Iterable[object], most: int = 5, between: str = ", ") -> str:
    """The first few items, and how many more there are: ``a, b and 3 more``."""
    found = [str(item) for item in items]
    more = f"{between.rstrip(', ')} and {len(found) - most} more" if len(found) > most else ""
    return between.join(found[:most]) + more
