"""Text from the archive or a database as a terminal may show it: with nothing that would steer it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# Control characters other than the end of a line, what turns the direction of text, and what is no character.
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
