"""The months of years as windows, and how they are written: the grid on which values are taken apart."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from datetime import datetime

from kpibackfill.database.expressions import Span, after
from kpibackfill.kpis.registry import SiteAt, Window


def month_windows(first: datetime, last: datetime) -> list[Window]:
    """The months from one moment to another; a window's id counts the months of the calendar."""
    return [month_window(number) for number in range(month_number(first), month_number(last) + 1)]


def month_number(moment: datetime) -> int:
    return moment.year * 12 + moment.month - 1


def month_window(number: int) -> Window:
    year, month = divmod(number, 12)
    end = datetime(year, month + 1, monthrange(year, month + 1)[1], 23, 59, 59)
    return Window(number, datetime(year, month + 1, 1), end, "monthly")


def month_name(number: int) -> str:
    """``2024-03``."""
    return f"{number // 12}-{number % 12 + 1:02}"


def local_spans(windows: Iterable[Window]) -> list[Span]:
    """The windows over a column of local times."""
    return [(window.window_id, window.start, after(window.end)) for window in windows]


def unix_spans(windows: Iterable[Window], site: SiteAt) -> list[Span]:
    """The windows over a column of unix times."""
    spans = [(window.window_id, site.unix(window.start), site.unix(after(window.end))) for window in windows]
    return [span for span in spans if span[1] < span[2]]
