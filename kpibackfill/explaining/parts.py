"""What an explanation of one value is made of, and the registry of the functions that give it.

A site explains a KPI of its own in the module that registers it::

    @kb.explains("events_held")
    def parts_of_events_held(connection, site, window):
        ...
        return kb.Explained([kb.Parts("event type", {"Tour": 4, "Meetup": 8})], left_out={"inactive": 3})
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from kpibackfill.database.query_log import RecordedConnection
    from kpibackfill.kpis.registry import SiteAt, Value, Window

Of = Literal["value", "basis"]


@dataclass(frozen=True, slots=True)
class Parts:
    """One way to take a value apart.

    ``values`` are by label, in the order of showing. Together they give the KPI's value, or its basis (``of``): their
    sum, or the ``result`` of the KPI's own rule on them, such as a share.
    """

    by: str
    values: Mapping[str, float]
    of: Of = "value"
    result: float | None = None

    @property
    def total(self) -> float | None:
        """What the parts give; ``None`` without parts."""
        return math.fsum(self.values.values()) if self.values and self.result is None else self.result


@dataclass(frozen=True, slots=True)
class Explained:
    """How one value comes about.

    Of all that was ``considered`` (``what``: such as registrations), some was ``left_out`` and some ``added``, each
    with its reason; what remains is the KPI's value or its basis (``arrives_at``). ``parts`` take that apart. Without
    `considered`, what was left out is not held against the value. ``population`` says what the KPI's population
    counts (such as participants), and ``notes`` are short sentences.
    """

    parts: Sequence[Parts] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    added: Mapping[str, int] = field(default_factory=dict)
    considered: int | None = None
    what: str = "considered"
    arrives_at: Of = "value"
    notes: Sequence[str] = ()
    population: str = ""

    @property
    def told(self) -> list[Parts]:
        """The parts that say anything: those in which something counts."""
        return [parts for parts in self.parts if any(parts.values.values())]

    def problems(self, value: Value) -> list[str]:
        """A sentence for each way in which this does not add up to the KPI's own value."""
        own = {"value": value.value, "basis": value.basis}
        found = []
        if self.considered is not None:
            remaining = self.considered - sum(self.left_out.values()) + sum(self.added.values())
            if not _same(remaining, own[self.arrives_at]):
                found.append(_problem("What was considered less what was left out", remaining, own, self.arrives_at))
        return found + [
            _problem(f"The parts by {parts.by}", parts.total, own, parts.of)
            for parts in self.parts
            if not _same(parts.total, own[parts.of])
        ]


Explain = Callable[["RecordedConnection", "SiteAt", "Window"], Explained]

_explains: dict[str, Explain] = {}


def explains(kpi_id: str) -> Callable[[Explain], Explain]:
    """Register the decorated function as the explanation of a KPI: connection, site and window in, ``Explained`` out.

    It is called in the same read-only transaction as the KPI, and what it gives is held against the KPI's own value.

    Parameters
    ----------
    kpi_id : as it was registered with ``kpi``.

    Returns
    -------
    A decorator that gives the function back as it is.
    """

    def register(explain: Explain) -> Explain:
        _explains[kpi_id] = explain
        return explain

    return register


def explanation_of(kpi_id: str) -> Explain | None:
    """The function that explains the KPI, if its module gives one."""
    load_built_in()
    return _explains.get(kpi_id)


def load_built_in() -> None:
    """Have the built-in explanations and comparisons registered."""
    for name in ("membership", "workshops", "workshop_definitions", "evaluations", "rates"):
        importlib.import_module(f"kpibackfill.explaining.{name}")


def _same(given: float | None, own: float | None) -> bool:
    # Without any part a KPI may say 0 or nothing.
    return (given or 0) == (own or 0)


def _problem(what: str, given: float | None, own: Mapping[str, float | None], of: Of) -> str:
    return (
        f"{what} give{'s' * what.startswith('What')} {given or 0:.15g}, and the KPI's own {of} is {own[of] or 0:.15g}: "
        "this explanation does not hold. Please report it."
    )
