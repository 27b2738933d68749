"""Computes a KPI's values, and holds a site's own KPIs to the contract."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from numbers import Integral, Number
from typing import Any

from sqlalchemy.exc import DBAPIError

from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.errors import KpiBackfillError, Refused
from kpibackfill.kpis.registry import Kpi, SiteAt, Value, Window
from kpibackfill.numbers import float4
from kpibackfill.parameters import one_line


def values_of(entry: Kpi, connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> dict[int, Value]:
    """One KPI's values by window, checked against the contract."""
    known = {window.window_id for window in windows}
    values: dict[int, Value] = {}
    with as_kpi_error(entry):
        given = entry.compute(connection, site, windows)
        if not isinstance(given, Iterable):
            raise _broken(entry, f"returned {type(given).__name__} instead of one kb.Value per window")
        for value in given:
            value = held_to_contract(entry, value)
            if value.window_id not in known or value.window_id in values:
                what = f"returned the window {value.window_id!r}, which was not requested or was returned twice"
                raise _broken(entry, what)
            values[value.window_id] = value
    return values


@contextmanager
def as_kpi_error(entry: Kpi) -> Iterator[None]:
    """Raise an error of a site's own KPI as a refusal that says where it broke.

    The error's text is left out, since it may quote an answer; the error itself is the cause, which Python and pytest
    show with its traceback. An error of a built-in KPI is a bug and stays as it is.
    """
    try:
        with redirect_stdout(sys.stderr):  # what a KPI prints must not get into a JSON document
            yield
    except (KpiBackfillError, DBAPIError):
        raise
    except (Exception, SystemExit) as error:
        if entry.built_in:
            raise
        module = entry.compute.__module__
        lines = [
            line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_globals.get("__name__") == module
        ]
        where = f"{module}, line {lines[-1]}" if lines else module
        raise _broken(entry, f"raised {type(error).__name__} ({where})") from error


def held_to_contract(entry: Kpi, value: Any) -> Value:
    """The value in plain Python numbers and texts instead of a driver's or NumPy's.

    No refusal quotes a text, since it may be someone's answer.
    """
    window_id: object = getattr(value, "window_id", None)
    if not isinstance(value, Value) or not isinstance(window_id, Integral):
        raise _broken(entry, f"returned {type(value).__name__} instead of a kb.Value with its window's id")
    try:
        number = None if value.value is None else float(_number(value.value))
        fits = number is None or math.isfinite(float4(number))
    except OverflowError:
        fits = False
    except TypeError:
        what = f"returned {type(value.value).__name__} as a value, which must be a number or None"
        raise _broken(entry, what) from None
    if not fits:
        raise _broken(entry, f"returned {value.value!r:.40}, which the fact table can't hold")
    try:
        basis, population = _count(value.basis), _count(value.population)
    except (TypeError, ValueError, OverflowError):
        raise _broken(entry, "returned a basis or population that is not a whole number, 0 or more") from None
    try:
        if isinstance(value.warnings, str):
            raise TypeError
        warnings = tuple(one_line("warnings", text) for text in value.warnings)
    except (TypeError, Refused):
        raise _broken(entry, "returned warnings that are not a list of one-line texts") from None
    return Value(int(window_id), number, basis, population, warnings)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Number):
        raise TypeError
    return value


def _count(value: Any) -> int | None:
    whole = None if value is None else int(_number(value))
    if whole is not None and not (whole == value and 0 <= whole < 2**63):
        raise ValueError
    return whole


def _broken(entry: Kpi, what: str) -> KpiBackfillError:
    return Refused(f"The KPI {entry.kpi_id!r} {what}; nothing was written. Fix its module.", code="kpi_contract")
