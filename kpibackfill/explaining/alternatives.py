"""The plausible alternative definitions of a KPI: the registry of the functions that compute them, and what they share.

A site names those of a KPI of its own in the module that registers it::

    @kb.compares("events_held", own="active events")
    def other_definitions(connection, site, windows):
        ...
        return {"all events": {window.window_id: 14 for window in windows}}

Each built-in function counts once by month, in all the groups that some definition looks at, and puts the definitions
together from that: one more definition costs no query more.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kpibackfill.explaining.parts import load_built_in
from kpibackfill.explaining.windows import month_number, month_windows, months_of, window_of

if TYPE_CHECKING:
    from kpibackfill.database.query_log import RecordedConnection
    from kpibackfill.kpis.registry import SiteAt, Window

OWN = "the KPI's own definition"
DECEMBER = "December to November"
UNTIL = "up to the end of a month"
Outcome = float | None | Mapping[str, float | None]
"""What a definition yields for a year: one value, or several, each with a detail such as the month counted up to.

Among several, one would match many a number by chance: they count only where the KPI's own value doesn't match."""
Outcomes = Mapping[int, Outcome]
"""By the id of a window."""
Alternatives = Mapping[str, Outcomes]
"""By the definition in a few words."""
Compare = Callable[["RecordedConnection", "SiteAt", "Sequence[Window]"], Alternatives]
Rule = Callable[[Sequence[int]], float | None]
"""The value for some months, by their numbers."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A KPI's own definition in a few words, and the function that computes the alternative ones, if any."""

    own: str = OWN
    alternatives: Compare = lambda _connection, _site, _windows: {}


_compares: dict[str, Comparison] = {}


def compares(kpi_id: str, *, own: str = OWN) -> Callable[[Compare], Compare]:
    """Register the decorated function as the alternative definitions that ``detect`` compares stored values with.

    Like the KPI's own function it gets a connection, the site and the windows, and it reads in the same transaction.
    It returns a dict: for each definition, in a few words, the value (a number or ``None``) by window id.

    Parameters
    ----------
    kpi_id : as it was registered with ``kpi``.
    own : the KPI's own definition in a few words, to tell it from the others.

    Returns
    -------
    A decorator that returns the function unchanged.
    """

    def register(compare: Compare) -> Compare:
        _compares[kpi_id] = Comparison(own, compare)
        return compare

    return register


def comparison_of(kpi_id: str) -> Comparison:
    """What was registered for the KPI; without that, its own definition only."""
    load_built_in()
    return _compares.get(kpi_id, Comparison())


def grid(windows: Sequence[Window]) -> list[Window]:
    """The months of the years, and the one before."""
    return month_windows(range(months_of(windows[0])[0] - 1, months_of(windows[-1])[-1] + 1))


def shifted(windows: Sequence[Window]) -> list[Window]:
    """The windows a month earlier, with negative ids: what a year covers where each month is dated in the next."""
    return [
        window_of(-window.window_id, range(month_number(window.start) - 1, month_number(window.end)))
        for window in windows
    ]


def by_months(windows: Sequence[Window], rule: Rule, shift: int = 0) -> Outcomes:
    """What the rule yields for the months of each window; or for those a `shift` away, as where each month's snapshot
    is dated in the next."""
    return {window.window_id: rule([month + shift for month in months_of(window)]) for window in windows}


def until(windows: Sequence[Window], rule: Rule) -> Outcomes:
    """The same for a year that was not over: a value for each month that it may have been counted up to."""
    return {
        window.window_id: {calendar.month_name[last]: rule(months_of(window)[:last]) for last in range(1, 12)}
        for window in windows
    }
