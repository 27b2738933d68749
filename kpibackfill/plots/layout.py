"""The drift, arranged for figures: what kind each value is, and where it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kpibackfill.numbers import Unit, amount, measure, too_few
from kpibackfill.plots.style import clean, drawable

MOST = 400
"""The number of snapshots that fit into a figure: more than thirty years of months."""
STEPS = {"monthly": 12, "quarterly": 4}  # slots per year; one for annual snapshots


@dataclass(frozen=True, slots=True)
class Entry:
    """A KPI as figures name it: ``label`` can be drawn, ``name`` is the full label for alternative texts."""

    kpi_id: str
    label: str
    name: str
    unit: Unit


@dataclass(frozen=True, slots=True)
class Arranged:
    """``places`` has a row per snapshot and KPI:

    ``kpi_id, snapshot_id`` and ``source`` as in the drift; ``slot`` counts periods from the first (int); ``rank`` is 0
    for the snapshot that a slot's line goes through, 1, 2 … for additional ones; ``x`` is the position in years;
    ``stored, computed, delta, change`` are as in the drift, but NaN where they must not be shown; ``size`` is the
    drift in hundredths of its measure, for comparing KPIs (NaN: none, or from 0); ``kind`` is one of ``differs``,
    ``period`` (only ``period_year`` or ``period_month`` differ), ``agrees``, ``new``, ``no_data``, ``unsupported``,
    ``withheld`` (a rate of fewer than five people).

    ``slots`` has a label per slot, including those without a snapshot; ``first`` and ``step`` are in years.
    """

    entries: tuple[Entry, ...]
    places: pd.DataFrame
    slots: tuple[str, ...]
    first: float
    step: float

    @property
    def xs(self) -> np.ndarray:
        """The position of each slot in years."""
        return self.first + np.arange(len(self.slots)) * self.step

    def thinned(self) -> Arranged:
        """The same; if there are more snapshots than fit, only those that the slots' lines go through."""
        if self.places["snapshot_id"].nunique() <= MOST:
            return self
        return replace(self, places=self.places[self.places["rank"] == 0])

    def count(self, *kinds: str) -> int:
        return int(self.places["kind"].isin(kinds).sum())

    def of(self, kpi_id: str) -> pd.DataFrame:
        return self.places[self.places["kpi_id"] == kpi_id]

    def without(self, kpi_id: str, name: str) -> set[int]:
        """The slots in which a KPI has no ``stored`` or no ``computed`` value; a withheld one is a value."""
        places = self.of(kpi_id)
        there = places[name].notna() | (places["kind"] == "withheld")
        return set(range(len(self.slots))) - set(places.loc[there, "slot"])

    def gaps(self, kpi_id: str) -> set[int]:
        """The slots in which a KPI has neither."""
        return self.without(kpi_id, "stored") & self.without(kpi_id, "computed")


def arrange(drift: pd.DataFrame) -> Arranged:
    """Arrange a drift frame with at least one row, which is not changed."""
    described: Mapping[str, Mapping[str, str]] = drift.attrs.get("kpis", {})
    present = dict.fromkeys(drift["kpi_id"])
    ordered = [kpi_id for kpi_id in {**described, **present} if kpi_id in present]
    entries = tuple(_entry(kpi_id, described.get(kpi_id, {})) for kpi_id in ordered)

    wanted = ["kpi_id", "snapshot_id", "snapshot_date", "snapshot_type", "source", "year", "period"]
    places = pd.DataFrame({name: drift[name].to_numpy() for name in wanted})
    numbers = ["stored", "computed", "delta", "change"]
    places[numbers] = drift[numbers].to_numpy(dtype=float, na_value=np.nan)
    places = places.replace([np.inf, -np.inf], np.nan)
    units = places["kpi_id"].map({entry.kpi_id: entry.unit for entry in entries})
    places["kind"] = [
        _kind(*row)
        for row in zip(units, drift["basis"], drift["status"], places["computed"], places["delta"], strict=True)
    ]
    places.loc[places["kind"] == "withheld", numbers] = np.nan
    scale = units.map({"count": np.nan, "points": 0.01, "fraction": 1.0}).astype(float)
    places["size"] = (places["delta"] * scale).where(units != "count", places["change"])
    return _placed(entries, places)


def rows(places: pd.DataFrame) -> Iterator[Any]:
    """The rows, with the columns as attributes."""
    return iter(places.itertuples(index=False))


def runs(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending numbers in groups, each without gaps."""
    found = np.array(list(numbers), dtype=int)
    return [run.tolist() for run in np.split(found, np.flatnonzero(np.diff(found) > 1) + 1) if run.size]


def drift_text(place: Any, unit: Unit) -> str:
    """The drift of one row of ``places`` with its unit: ``−31.0 %``; ``0 → 31`` if the stored value is 0."""
    if unit == "count" and np.isnan(place.change):
        return f"{amount(place.stored, unit)} → {amount(place.computed, unit)}"
    return measure(place.delta, place.change, unit)


def _entry(kpi_id: str, described: Mapping[str, str]) -> Entry:
    label = described.get("label") or kpi_id
    unit: Unit = described.get("unit", "count")  # type: ignore[assignment]
    return Entry(kpi_id, drawable(label, instead=kpi_id), clean(label), unit)


def _kind(unit: Unit, basis: object, status: str, computed: float, delta: float) -> str:
    if not np.isnan(computed) and too_few(unit, None if pd.isna(basis) else int(basis)):  # type: ignore[call-overload]
        return "withheld"
    if status == "changed":
        return "period" if delta == 0 else "differs"
    return "agrees" if status == "unchanged" else status


def _placed(entries: tuple[Entry, ...], places: pd.DataFrame) -> Arranged:
    a_year = max(STEPS.get(kind.lower(), 1) for kind in places["snapshot_type"])
    periods = pd.PeriodIndex(places["period"].str.replace(" ", ""), freq={1: "Y", 4: "Q", 12: "M"}[a_year])
    slots = pd.period_range(periods.min(), periods.max())
    first = slots[0].year + (slots[0].ordinal % a_year) / a_year

    per_source = places.groupby("source")["snapshot_id"].nunique()
    places = places.assign(slot=slots.get_indexer(periods), lead=-places["source"].map(per_source))
    snapshots = places.drop_duplicates("snapshot_id").sort_values(["slot", "lead", "snapshot_date", "snapshot_id"])
    rank = snapshots.groupby("slot").cumcount()
    rank.index = pd.Index(snapshots["snapshot_id"])
    places["rank"] = places["snapshot_id"].map(rank)
    crowd = places.groupby("slot")["rank"].transform("max").clip(lower=2)
    places["x"] = first + (places["slot"] + places["rank"] * 0.7 / crowd) / a_year
    places = places.sort_values(["slot", "rank"], ignore_index=True)
    labels = tuple(str(slot).replace("Q", " Q") for slot in slots)
    return Arranged(entries, places, labels, first, 1 / a_year)
