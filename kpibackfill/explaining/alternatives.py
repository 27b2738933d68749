"""Alternative definitions of a KPI: the registry of the functions that compute them, and what these share.

A site registers those of its own KPI in the module that registers the KPI::

    @kb.compares("events_held", own="active events")
    def other_definitions(connection, site, windows):
        ...
        return {"all events": {window.window_id: 14 for window in windows}}

Each built-in function counts once by month, in all the groups that any definition looks at, and derives the definitions
from those counts: one more definition doesn't cost one more query.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping, Sequence
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

One of several easily matches by chance, so they are compared only where the KPI's own value doesn't match."""
Outcomes = Mapping[int, Outcome]
"""By the id of a window."""
Alternatives = Mapping[str, Outcomes]
"""By the definition in a few words."""
Compare = Callable[["RecordedConnection", "SiteAt", "Sequence[Window]"], Alternatives]
Rule = Callable[[Sequence[int]], float | None]
"""The value for some months, by their numbers."""


_compares: dict[str, tuple[str, Compare]] = {}


def compares(kpi_id: str, *, own: str = OWN) -> Callable[[Compare], Compare]:
    """Register the decorated function as the source of alternative definitions, with which ``detect`` compares.

    Like the KPI's own function it receives a connection, the site and the windows, here one per year, and it is called
    in the same read-only transaction. It returns a dict: for each definition, in a few words, the value (a number or
    ``None``) by window id.

    Parameters
    ----------
    kpi_id : the id given to ``kpi``.
    own : the KPI's own definition in a few words, to distinguish it from the others.

    Returns
    -------
    A decorator that returns the function unchanged.
    """

    def register(compare: Compare) -> Compare:
        _compares[kpi_id] = own, compare
        return compare

    return register


def comparison_of(kpi_id: str) -> tuple[str, Compare]:
    """The KPI's own definition in a few words, and the function that computes the alternative ones, if any."""
    load_built_in()
    return _compares.get(kpi_id, (OWN, lambda _connection, _site, _windows: {}))


def grid(windows: Sequence[Window]) -> list[Window]:
    """The months of the years, and the one before."""
    return month_windows(range(months_of(windows[0])[0] - 1, months_of(windows[-1])[-1] + 1))


def shifted(windows: Sequence[Window]) -> list[Window]:
    """The windows one month earlier, with negative ids: what a year covers if each month is dated in the next one."""
    return [
        window_of(-window.window_id, range(month_number(window.start) - 1, month_number(window.end)))
        for window in windows
    ]


def by_months(windows: Sequence[Window], rule: Rule, shift: int = 0) -> Outcomes:
    """What the rule yields for the months of each window, moved by `shift` months."""
    return {window.window_id: rule([month + shift for month in months_of(window)]) for window in windows}


def until(windows: Sequence[Window], rule: Rule) -> Outcomes:
    """The same for a year that was not over yet: a value for each month it may have been counted up to."""
    return {
        window.window_id: {calendar.month_name[last]: rule(months_of(window)[:last]) for last in range(1, 12)}
        for window in windows
    }
