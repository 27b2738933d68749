"""What a check finds, and the command to type next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kpibackfill.text import printable

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check: ``ok``, a ``note`` worth reading, or ``wrong`` and what to do; perhaps the next command."""

    level: Level
    text: str
    command: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(text: str, command: str = "") -> Finding:
    return Finding("ok", printable(text), command)


def note(text: str) -> Finding:
    return Finding("note", printable(text))


def wrong(text: str, command: str = "") -> Finding:
    return Finding("wrong", printable(text), command)


def next_command(findings: Sequence[Finding], target_name: str) -> str:
    """What to type after this check."""
    failed = [finding for finding in findings if finding.level == "wrong"]
    if failed:
        command = next((finding.command for finding in failed if finding.command), "")
        return command or f"fix that, then kpibackfill check --target {target_name}"
    command = next((finding.command for finding in reversed(findings) if finding.command), "")
    return command or f"kpibackfill run --target {target_name}"
