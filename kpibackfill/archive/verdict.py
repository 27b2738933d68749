"""What a look at the archive, or at a database beside it, says of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as the ledger says: `what` it is about (a line or a file), and a sentence."""

    what: str
    problem: str

    def __str__(self) -> str:
        return f"{self.what}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: the digest of the last line, numbers of what was looked at, findings, and notes.

    A note is worth knowing and speaks against nothing, such as a run that has not ended. Where a `target` was held
    against the archive, `rows` of its table were looked at, and `recorded` rows on record were held against them.
    """

    head: str
    lines: int
    runs: int
    files: int
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    target: str | None = None
    rows: int | None = None
    recorded: int | None = None
