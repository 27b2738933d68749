"""One line of a check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at: ``ok``, a ``note`` worth reading, or ``wrong`` and what to do; perhaps the next command."""

    level: Level
    text: str
    command: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(text: str, command: str = "") -> Finding:
    return Finding("ok", text, command)


def note(text: str) -> Finding:
    return Finding("note", text)


def wrong(text: str, command: str = "") -> Finding:
    return Finding("wrong", text, command)
