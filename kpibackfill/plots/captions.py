"""The words of the drift figures: titles that state the finding, notes, alternative texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from kpibackfill.numbers import FEW, FEW_PEOPLE, NOT_FOR_PUBLICATION
from kpibackfill.plots.layout import Arranged, drift_text, rows, runs
from kpibackfill.plots.style import drawable
from kpibackfill.text import count, some

COMPARED = ("differs", "period", "agrees")
WITHHELD = f"the rate is based on fewer than {FEW_PEOPLE} people and is {NOT_FOR_PUBLICATION}"
NBSP = "\N{NO-BREAK SPACE}"


def finding(arranged: Arranged) -> str:
    """What the drift shows, in one sentence."""
    differ, both, new = arranged.count("differs"), arranged.count(*COMPARED), arranged.count("new")
    if differ:
        largest = next(rows(ordered(arranged)))
        verb = "differs" if differ == 1 else "differ"
        named = _named(arranged, largest, "label")
        if both == 1:
            return f"The one stored value differs: {named}"
        return f"{differ:,} of {both:,} stored values {verb}{'; the largest drift' if differ > 1 else ''}: {named}"
    if both == 1:
        return "The one stored value agrees"
    if both:
        return f"{every(both)} stored values agree with the computed ones"
    if new:
        return f"Nothing is stored yet: {count(new, 'new value')}"
    return "No value is both stored and computed: nothing to compare"


def every(number: int) -> str:
    """``Both``, or ``All 1,024``."""
    return "Both" if number == 2 else f"All {number:,}"


def tally(arranged: Arranged) -> str:
    """How many values are of the other kinds, for the line below a title."""
    named = {
        "new": "new",
        "unsupported": "stored, but nothing to compute from",
        "period": "differing only in period",
        "no_data": "without data",
        "withheld": f"withheld ({FEW} people)",
    }
    if not arranged.count(*COMPARED):
        del named["new"]  # the title says it
    counted = [(arranged.count(kind), words) for kind, words in named.items()]
    return " · ".join(f"{number:,} {words}" for number, words in counted if number)


def series_title(arranged: Arranged) -> str:
    """Which KPIs differ, and which most often."""
    per_kpi = arranged.places.loc[arranged.places["kind"] == "differs", "kpi_id"].value_counts()
    if per_kpi.empty or len(arranged.entries) == 1:
        return finding(arranged)
    several, all_ = len(per_kpi), len(arranged.entries)
    who = f"{every(all_)} KPIs differ" if several == all_ else f"{several} of {all_} KPIs differ{'s' * (several == 1)}"
    most = max(arranged.entries, key=lambda entry: per_kpi.get(entry.kpi_id, 0))
    times = per_kpi[most.kpi_id]
    if several == 1:
        who += f" from what is stored: {most.label}"
        return f"{who}, in {times} of {_compared(arranged, most.kpi_id)} values" if times > 1 else who
    if times == 1:
        return f"{who} from what is stored, each in one value"
    return f"{who} from what is stored; most often {most.label} ({times} of {_compared(arranged, most.kpi_id)})"


def series_notes(arranged: Arranged) -> list[str]:
    """How to read the marks in the figure."""
    lines = len(arranged.slots) > 1
    further = arranged.places[arranged.places["rank"] > 0].drop_duplicates("snapshot_id")
    which = dict.fromkeys(
        f"{place.period} ({drawable(place.source or place.snapshot_date)})" for place in rows(further)
    )
    marks = {
        f"Ring{', dashed line' * lines}: stored.": arranged.places["stored"].notna().any(),
        f"Dot{', solid line' * lines}: computed.": arranged.places["computed"].notna().any(),
        "Dot in a ring: they agree.": arranged.count("agrees", "period"),
        "Gray: no value.": any(arranged.gaps(entry.kpi_id) for entry in arranged.entries),
        "Crossed out: stored, but nothing to compute from.": arranged.count("unsupported"),
        f"{FEW.replace(' ', NBSP)}: {WITHHELD}.": arranged.count("withheld"),
        f"Diamonds: additional snapshots of {', '.join(which)}.": which,
    }
    return [" ".join(text for text, drawn in marks.items() if drawn)]


def thinned_note(whole: Arranged, drawn: Arranged) -> list[str]:
    """A note if not all snapshots are drawn."""
    if drawn is whole:
        return []
    all_, drawn_ = (arranged.places["snapshot_id"].nunique() for arranged in (whole, drawn))
    return [f"{drawn_:,} of {all_:,} snapshots are drawn, one per period; the table has all of them."]


def series_alternative(arranged: Arranged) -> str:
    """The finding, and which KPIs lack values in which periods."""
    panels, slots = len(arranged.entries), arranged.slots
    period = slots[0] if len(slots) == 1 else f"{slots[0]} to {slots[-1]}"
    said = [
        f"{'One panel' if panels == 1 else f'{panels} panels, one per KPI'}: stored and computed values, {period}.",
        f"{series_title(arranged)}.",
    ]
    for name in ("stored", "computed"):
        without = {entry.kpi_id: arranged.without(entry.kpi_id, name) for entry in arranged.entries}
        said += _listed(f"No {name} value", without, arranged)
    for words, kind in (
        ("Stored, but nothing to compute from", "unsupported"),
        ("Withheld, fewer than five people", "withheld"),
    ):
        of_kind = arranged.places[arranged.places["kind"] == kind]
        said += _listed(words, {str(kpi_id): set(slot) for kpi_id, slot in of_kind.groupby("kpi_id")["slot"]}, arranged)
    return " ".join(said)


def heatmap_alternative(arranged: Arranged) -> str:
    """The finding, the five largest drifts, and the other kinds of values."""
    said = [f"Heat map of drift by KPI and year. {finding(arranged)}."]
    largest = [_named(arranged, place, "name") for place in rows(ordered(arranged).head(5))]
    if len(largest) > 1:
        said.append(f"The {len(largest)} largest: {'; '.join(largest)}.")
    if counted := tally(arranged):
        said.append(f"Also: {counted}.")
    return " ".join(said)


def ordered(arranged: Arranged, kpi_id: str | None = None) -> pd.DataFrame:
    """The places that differ, the largest drift first; last those with a stored 0, which have no percentage."""
    places = arranged.places if kpi_id is None else arranged.of(kpi_id)
    differing = places[places["kind"] == "differs"]
    return differing.loc[differing["size"].abs().fillna(-1.0).sort_values(ascending=False, kind="stable").index]


def spans(wanted: Iterable[int], labels: tuple[str, ...]) -> str:
    """Slots by their labels, runs of three or more as ``2016–2019``."""
    return ", ".join(
        f"{labels[run[0]]}–{labels[run[-1]]}" if len(run) > 2 else ", ".join(labels[slot] for slot in run)
        for run in runs(sorted(wanted))
    )


def _compared(arranged: Arranged, kpi_id: str) -> int:
    return int(arranged.of(kpi_id)["kind"].isin(COMPARED).sum())


def _named(arranged: Arranged, place: Any, words: str) -> str:
    entry = next(entry for entry in arranged.entries if entry.kpi_id == place.kpi_id)
    return f"{getattr(entry, words)} {place.period}, {drift_text(place, entry.unit)}"


def _listed(words: str, slots_by_kpi: dict[str, set[int]], arranged: Arranged, most: int = 6) -> list[str]:
    """One sentence; KPIs with the same periods share a group. At most `most` groups, and names in each, are listed."""
    names = {entry.kpi_id: entry.name for entry in arranged.entries}
    groups: dict[str, list[str]] = {}
    for kpi_id, slots in slots_by_kpi.items():
        if slots:
            groups.setdefault(spans(slots, arranged.slots), []).append(names[kpi_id])
    if not groups:
        return []
    parts = []
    for when, members in groups.items():
        every = len(members) == len(names) > 1
        who = "every KPI" if every else ", ".join(members) if len(members) <= most else f"{len(members)} KPIs"
        parts.append(f"{who}: {when}")
    return [f"{words} – {some(parts, most, '; ')}."]
