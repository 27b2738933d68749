"""The registry of KPIs, and the contract that a KPI meets: windows in, one value per window out.

A site adds its own KPIs in a module listed under ``kpi_modules`` in its configuration::

    import kpibackfill as kb

    @kb.kpi(
        "events_held",
        label="Events held",
        unit="count",
        family="workshops",
        description="Active events that started in the year.",
        sources=["civicrm_event"],
    )
    def events_held(connection, site, windows):
        ...
        return [kb.Value(window_id, value=12, basis=12, population=15, warnings=["3 events are inactive"])]
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args
from zoneinfo import ZoneInfo

from kpibackfill.errors import Refused
from kpibackfill.numbers import Unit

if TYPE_CHECKING:
    from kpibackfill.config import Site
    from kpibackfill.database.query_log import RecordedConnection

Cadence = Literal["annual", "quarterly", "monthly"]
MONTHS: dict[Cadence, int] = {"annual": 12, "quarterly": 3, "monthly": 1}


@dataclass(frozen=True, slots=True)
class Window:
    """A snapshot's period, ``start`` to ``end`` in the site's local time: inclusive, whole seconds, no time zone.

    A ``Value`` refers to its window by ``window_id``; ``cadence`` is ``annual``, ``quarterly`` or ``monthly``.
    """

    window_id: int
    start: datetime
    end: datetime
    cadence: Cadence = "annual"


@dataclass(frozen=True, slots=True)
class Value:
    """A KPI's value for one window.

    ``value`` is in the KPI's unit (``None``: nothing to compute from); it is based on ``basis`` observations out of
    ``population``; ``warnings`` are short sentences that name no person and quote no answer.
    """

    window_id: int
    value: float | None
    basis: int | None = None
    population: int | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class SiteAt:
    """A site's settings and time zone, and the instant that counts as now in a run."""

    settings: Site
    zone: ZoneInfo
    as_of: datetime
    """Aware: "last year" and the current month are the site's at this instant."""

    @property
    def current_month(self) -> datetime:
        """The first moment of the current month, in local time without a time zone."""
        return self.as_of.astimezone(self.zone).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0
        )

    def unix(self, local: datetime) -> int:
        """The unix time of a local time without a time zone.

        A time in the gap when clocks go forward is read as if they had not gone forward yet. A time that occurs twice
        when clocks go back is the first of the two.
        """
        return int(local.replace(tzinfo=self.zone, fold=0).timestamp())


Compute = Callable[["RecordedConnection", SiteAt, Sequence[Window]], Iterable[Value]]


@dataclass(frozen=True, slots=True)
class Kpi:
    """A registered KPI: how people see it, what it reads, and the function that computes it."""

    kpi_id: str
    label: str
    unit: Unit
    family: str
    description: str
    sources: tuple[str, ...]
    compute: Compute
    risky: bool = False
    reads_store: bool = False
    cadences: tuple[Cadence, ...] = ("annual",)

    @property
    def built_in(self) -> bool:
        return self.compute.__module__ in _BUILT_IN

    @property
    def source_text(self) -> str:
        """The source text of the module that defines the KPI, for the record."""
        return inspect.getsource(inspect.getmodule(self.compute) or self.compute)


_registry: dict[str, Kpi] = {}
_KPI_ID = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,63}")
_BUILT_IN = tuple(
    f"kpibackfill.kpis.{name}" for name in ("membership", "workshops", "evaluations", "ethnicity", "instructors")
)


def kpi(
    kpi_id: str,
    *,
    label: str,
    unit: Unit,
    family: str,
    description: str,
    sources: Iterable[str],
    risky: bool = False,
    reads_store: bool = False,
    cadences: Iterable[Cadence] = ("annual",),
) -> Callable[[Compute], Compute]:
    """Register the decorated function as a KPI.

    Parameters
    ----------
    kpi_id : at most 64 characters, lower case; the fact table's ``kpi_id`` without the site's prefix.
    label : a few words, used in titles.
    unit : ``count``, ``points`` (such as an NPS) or ``fraction`` (0 to 1, shown as a percentage).
    family : the group under which it is listed.
    description : one sentence that lets an analyst check the number.
    sources : the tables it reads.
    risky : computed only on request, since its data change on their own.
    reads_store : it reads the store even if the sources are in another database.
    cadences : the kinds of window that it can compute.

    Returns
    -------
    A decorator that returns the function unchanged.

    Raises
    ------
    Refused : the id is taken or invalid; or a unit, a source or a cadence is invalid.
    """

    if isinstance(sources, str) or isinstance(cadences, str):
        raise _unfit(kpi_id, "lists of sources and cadences, not plain text")
    sources, cadences = tuple(sources), tuple(cadences)
    words: tuple[Any, ...] = (kpi_id, label, family, description, *sources)
    if not all(isinstance(text, str) for text in words) or not _KPI_ID.fullmatch(kpi_id):
        raise _unfit(kpi_id, "an id of at most 64 lowercase letters, digits, _ . -, and text for its label and sources")
    if unit not in get_args(Unit) or not set(cadences) <= set(MONTHS):
        raise _unfit(kpi_id, f"one of the units {', '.join(get_args(Unit))}, and cadences from {', '.join(MONTHS)}")

    def register(compute: Compute) -> Compute:
        known = _registry.get(kpi_id)
        if known is not None and known.compute.__module__ != compute.__module__:
            raise Refused(
                f"{compute.__module__} registers the KPI {kpi_id!r}, but {known.compute.__module__} already uses "
                "that id; choose another.",
                code="duplicate_kpi",
            )
        _registry[kpi_id] = Kpi(
            kpi_id, label, unit, family, description, sources, compute, risky, reads_store, cadences
        )
        return compute

    return register


def _unfit(kpi_id: object, wanted: str) -> Refused:
    message = f"The KPI {kpi_id!r} needs {wanted}; nothing was read or written. Fix its module."
    return Refused(message, code="kpi_contract")


def load(modules: Iterable[str] = ()) -> dict[str, Kpi]:
    """All KPIs by id in the order of registration: the built-in ones, then those in the site's ``modules``."""
    for name in _BUILT_IN:
        importlib.import_module(name)
    for name in modules:
        try:
            with redirect_stdout(sys.stderr):  # what a module prints must not get into a JSON document
                importlib.import_module(name)
        except Refused:
            raise
        except (Exception, SystemExit) as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise Refused(
                f"kpi_modules: {name!r} could not be imported ({said}); nothing was read or "
                "written. Fix the module, or remove it from kpibackfill.toml.",
                code="kpi_module",
            ) from error
    # Importing one of the built-in modules first must not change the order in which KPIs are shown.
    order = {name: number for number, name in enumerate(_BUILT_IN)}
    return dict(sorted(_registry.items(), key=lambda item: order.get(item[1].compute.__module__, len(order))))


def choose(registry: dict[str, Kpi], ids: Sequence[str], *, include_risky: bool) -> list[Kpi]:
    """The KPIs that a run computes: the named ones, or the conservative set, plus the risky ones on request."""
    if not ids:
        return [kpi for kpi in registry.values() if include_risky or not kpi.risky]
    for kpi_id in ids:
        if kpi_id not in registry:
            near = difflib.get_close_matches(kpi_id, registry, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else "`kpibackfill kpis` lists them."
            raise Refused(f"There is no KPI {kpi_id!r}; nothing was read or written. {hint}", code="unknown_kpi")
    return [kpi for kpi in registry.values() if kpi.kpi_id in set(ids)]


def as_dict(entry: Kpi) -> dict[str, Any]:
    """A KPI as ``kpibackfill kpis --json`` and the record show it."""
    return {
        "kpi_id": entry.kpi_id,
        "label": entry.label,
        "unit": entry.unit,
        "family": entry.family,
        "risky": entry.risky,
        "description": entry.description,
        "sources": list(entry.sources),
        "cadences": list(entry.cadences),
    }
