"""Checks for which periods the dates of snapshots stand, and under which years the page shows annual values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zoneinfo import ZoneInfo

from kpibackfill.checks.finding import Finding, note, ok
from kpibackfill.config import Dated, Site
from kpibackfill.kpis.dating import Taken, convention
from kpibackfill.kpis.registry import Cadence
from kpibackfill.text import some

PERIODS: dict[Cadence, str] = {"annual": "year", "quarterly": "quarter", "monthly": "month"}


def check_dated(site: Site, zone: ZoneInfo, found: Sequence[Taken]) -> Iterator[Finding]:
    """One setting that is right for all cadences, or that the present one is.

    The page shows an annual value under the year of its snapshot's date, so that year's value is the only right one,
    whatever the snapshot's own content. Monthly and quarterly ones are judged by when they were made.
    """
    of = {cadence: [one for one in found if one.cadence == cadence] for cadence in PERIODS}
    there = [cadence for cadence in PERIODS if of[cadence]]
    told = {cadence: "period" if cadence == "annual" else convention(of[cadence], zone) for cadence in PERIODS}
    right = site.dated.model_copy(update={cadence: dated for cadence, dated in told.items() if dated})
    reasons = [_reason(name, of[name], right) for name in PERIODS if right.later(name) != site.dated.later(name)]
    if reasons:
        yield note(f"{' '.join(reasons)} So set {right.setting('annual', *there)} in [site].")
    elif there:
        stand = ", ".join(
            f"{cadence} ones for the {PERIODS[cadence]} {'before' if right.later(cadence) else 'of'} their date"
            for cadence in there
        )
        unknown = " and ".join(cadence for cadence in there if not told[cadence])
        untold = f" Whether that is so for the {unknown} ones, nothing in their rows tells." if unknown else ""
        yield ok(f"Snapshots stand for periods as dated says: {stand}.{untold}")
    yield from _on_new_year(site, of["annual"])


def _reason(cadence: str, snapshots: Sequence[Taken], right: Dated) -> str:
    if cadence == "annual":
        year = max((one.dated.year for one in snapshots), default=2024)
        return (
            "The page shows an annual value under the year of its snapshot's date, but as configured, a snapshot dated "
            f"in {year} gets the value of {year - 1}: it would show in the column of {year}."
        )
    if right.later(cadence):
        return (
            f"Most {cadence} snapshots were made before the end of the period they are dated in: they stand for the "
            "period before."
        )
    return f"Most {cadence} snapshots are dated within the period that they stand for."


def _on_new_year(site: Site, annual: Sequence[Taken]) -> Iterator[Finding]:
    """What the page shows for annual snapshots of 1 January, which cron takes for the year that has just ended."""
    days = sorted(one.dated for one in annual if (one.dated.month, one.dated.day) == (1, 1))
    if not days:
        return
    year, (first, last) = days[-1].year, site.dashboard.years
    shows = (
        f"Annual snapshots dated 1 January: {len(days)} of {len(annual)}. The page shows each under the year of its "
        f"date: that of {days[-1]}, even if cron took it for {year - 1}, shows under {year} and gets the value of "
        f"{year}."
    )
    empty = sorted({day.year - 1 for day in days if first < day.year <= last + 1} - {one.dated.year for one in annual})
    if empty:
        yield note(
            f"{shows} No annual snapshot is dated in {some(empty)}, so the page has no value there: take one dated "
            f"{empty[-1]}-12-31 with the site's snapshot form or drush."
        )
    else:
        yield ok(shows)
