"""What was tried in this session, for the summary: how often, and in which state the database was afterwards."""

from __future__ import annotations

from collections import Counter

counts: Counter[tuple[str, str]] = Counter()
outcomes: Counter[tuple[str, str]] = Counter()


def add(kind: str, engine: str, outcome: str = "", times: int = 1) -> None:
    """Note a fault of this kind, and whether the database was "before" or "after"."""
    counts[kind, engine] += times
    if outcome:
        outcomes[kind, outcome] += times


def text() -> str:
    """One line per kind, with its numbers by engine."""
    lines = []
    for kind in dict.fromkeys(kind for kind, _ in counts):
        by_engine = {engine: number for (name, engine), number in counts.items() if name == kind}
        found = [f"{number} {outcome}" for (name, outcome), number in outcomes.items() if name == kind]
        where = ", ".join(f"{number} {engine}" for engine, number in by_engine.items())
        lines.append(f"{kind:32} {sum(by_engine.values()):5}  ({where})" + (f": {', '.join(found)}" if found else ""))
    return "\n".join(lines)
