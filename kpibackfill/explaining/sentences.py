"""What the matrix of stored values and definitions says, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

EXACT, ROUNDED = "exact", "rounded"
NONE = ""
HERE = ", as computed here"


@dataclass(frozen=True, slots=True)
class _Stored:
    """A stored value, and the definitions that yield it exactly, or when rounded."""

    year: int
    source: str
    exact: frozenset[str]
    rounded: frozenset[str]
    details: dict[str, str]

    def fitting(self, own: str) -> frozenset[str]:
        """The definitions it may follow. The KPI's own, even rounded, outranks one that may yield a round number by
        chance. If all of them yield it, such as the 0 of a year without data, it says nothing about any."""
        if len(self.exact) == len(self.details):
            return self.exact
        if own in self.exact | self.rounded:
            return frozenset([own])
        return self.exact or self.rounded or frozenset([NONE])


def sentence(matrix: pd.DataFrame) -> str:
    """Which definitions the stored values of one KPI follow, with as few changes as possible.

    ``2015–2020 follow *all workshops*; 2021 onward follow *ticketed*, as computed here.``
    """
    if matrix.empty:
        return "Nothing is stored."
    order = {words: number for number, words in enumerate(dict.fromkeys(matrix["definition"]))}
    own = next(iter(order))
    values = [
        _Stored(
            int(year),
            str(source),
            frozenset(rows.loc[rows["match"] == EXACT, "definition"]),
            frozenset(rows.loc[rows["match"] == ROUNDED, "definition"]),
            dict(zip(rows["definition"], rows["detail"], strict=True)),
        )
        for (year, _, source), rows in matrix.groupby(["year", "snapshot_id", "source"], sort=True)
    ]
    main = max((value.source for value in values), key=[value.source for value in values].count)
    clauses = []
    for source in dict.fromkeys([main, *(value.source for value in values)]):
        named = "" if source == main else f" ({source.replace('_', ' ') or 'no source'})"
        clauses += _clauses([value for value in values if value.source == source], own, order, named)
    first, here, rest = "; ".join(clauses).partition(HERE)
    text = f"{first}{here}{rest.replace(HERE, '')}."
    every = [words for words in order if all(words in value.exact for value in values)]
    if len(every) == 1 and own not in every:
        text += f" *{every[0][0].upper()}{every[0][1:]}* fits them all."
    return text


def quoted(sentence: str) -> str:
    """The sentence with its definitions in quotation marks instead of between asterisks."""
    return re.sub(r"\*([^*]+)\*", r"“\1”", sentence)


def _clauses(values: Sequence[_Stored], own: str, order: dict[str, int], source: str) -> list[str]:
    """A clause for each run of values that follow the same definition."""
    followed = zip(_fewest_changes([value.fitting(own) for value in values], order), values, strict=True)
    runs = groupby(followed, key=lambda pair: (pair[0], _others(pair[1], pair[0])))
    return [_clause([value for _, value in run], name, own, values, source) for (name, _), run in runs]


def _others(value: _Stored, name: str) -> frozenset[str] | None:
    """The definitions that match exactly where this one matches only rounded; ``None`` where it matches exactly too."""
    return None if name in value.exact else value.exact


def _fewest_changes(fitting: Sequence[frozenset[str]], order: dict[str, int]) -> list[str]:
    """A fitting definition for each value, with as few changes as possible; among equals the first in `order`."""
    best: dict[str, tuple[tuple[int, int], list[str]]] = {NONE: ((0, 0), [])}
    for names in fitting:
        following = {}
        for name in sorted(names):
            chains = [
                ((cost[0] + (chain[-1:] != [name]), cost[1] + order.get(name, len(order))), [*chain, name])
                for cost, chain in best.values()
            ]
            following[name] = min(chains)
        best = following
    return min(best.values())[1]


def _clause(run: Sequence[_Stored], name: str, own: str, values: Sequence[_Stored], source: str) -> str:
    first, last = run[0], run[-1]
    if first is last:
        years, verb = f"{first.year}{source}", "follows"
    elif last is values[-1] and first is not values[0]:
        years, verb = f"{first.year} onward{source}", "follow"
    else:
        years, verb = f"{first.year}–{last.year}{source}", "follow"
    if name == NONE:
        return f"{years} {verb} no known definition"
    alike = frozenset.intersection(*(value.exact for value in run))
    if 2 * len(alike) > len(first.details) > 1:
        verb = verb.replace("follow", "fit")
        if len(alike) == len(first.details):
            return f"{years} {verb} every definition"
        return f"{years} {verb} most definitions, {'including' if own in alike else 'but not'} the one computed here"
    details = sorted({value.details[name] for value in run} - {""})
    detail = f" ({', '.join(details)})" if details else ""
    rounded = "" if name in first.exact else ", rounded"
    # An exact match may be chance, and so may a rounded one: both are named, the exact one first.
    before = "".join(f"*{other}*, or " for other in sorted(_others(first, name) or ()))
    return f"{years} {verb} {before}*{name}*{detail}{rounded}{HERE if name == own else ''}"
