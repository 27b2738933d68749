"""The windows that explanations work with: years and their months."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from datetime import datetime

from kpibackfill.database.expressions import Span, after
from kpibackfill.kpis.registry import Cadence, Window


def year_window(year: int) -> Window:
    """A calendar year; the year is the window's id."""
    return window_of(year, range(year * 12, year * 12 + 12))


def month_windows(months: Iterable[int]) -> list[Window]:
    """A window for each month; its number is the window's id."""
    return [window_of(month, range(month, month + 1), "monthly") for month in months]


def window_of(window_id: int, months: range, cadence: Cadence = "annual") -> Window:
    """The window from the first of these months to the last."""
    year, month = divmod(months[0], 12)
    last_year, last = divmod(months[-1], 12)
    end = datetime(last_year, last + 1, monthrange(last_year, last + 1)[1], 23, 59, 59)
    return Window(window_id, datetime(year, month + 1, 1), end, cadence)


def months_of(window: Window) -> range:
    """The numbers of the window's months, which count the months of the calendar."""
    return range(month_number(window.start), month_number(window.end) + 1)


def month_number(moment: datetime) -> int:
    return moment.year * 12 + moment.month - 1


def month_name(number: int) -> str:
    """``2024-03``."""
    return f"{number // 12}-{number % 12 + 1:02}"


def local_spans(windows: Iterable[Window]) -> list[Span]:
    """The windows over a column of local times."""
    return [(window.window_id, window.start, after(window.end)) for window in windows]
