"""What an explanation of a value consists of, and the registry of the functions that return one.

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
    """One way to break a value down.

    ``values`` are by label, in the order shown. Together they make up the KPI's value, or its basis (``of``): as their
    sum, or as the ``result`` of the KPI's own rule, such as a share.
    """

    by: str
    values: Mapping[str, float]
    of: Of = "value"
    result: float | None = None

    @property
    def total(self) -> float | None:
        """What the parts add up to; ``None`` without parts."""
        return math.fsum(self.values.values()) if self.values and self.result is None else self.result

    @property
    def title(self) -> str:
        return f"by {self.by}" + (", what the value is based on" if self.of == "basis" else "")


@dataclass(frozen=True, slots=True)
class Explained:
    """How one value is computed.

    Of everything ``considered`` (``what`` names it, such as registrations), some was ``left_out`` and some ``added``,
    each for a reason; what remains is the KPI's value or its basis (``arrives_at``), which ``parts`` break down.
    Without ``considered``, what was left out is not checked against the value. ``population`` names what the KPI's
    population counts, such as participants; ``notes`` are short sentences.
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
    def nonzero(self) -> list[Parts]:
        """The parts in which anything counts."""
        return [parts for parts in self.parts if any(parts.values.values())]

    def problems(self, value: Value) -> list[str]:
        """A sentence for each way in which this doesn't add up to the KPI's own value."""
        own = {"value": value.value, "basis": value.basis}
        given = [(f"The parts by {parts.by} come", parts.total, parts.of) for parts in self.parts]
        if self.considered is not None:
            remaining = self.considered - sum(self.left_out.values()) + sum(self.added.values())
            given.insert(0, ("What was considered minus what was left out comes", remaining, self.arrives_at))
        return [
            f"{what} to {number or 0:.15g}, but the KPI's own {of} is {own[of] or 0:.15g}: this explanation is wrong. "
            "Please report it."
            for what, number, of in given
            if (number or 0) != (own[of] or 0)  # without any parts a KPI may return 0 or nothing
        ]


Explain = Callable[["RecordedConnection", "SiteAt", "Window"], Explained]

_explains: dict[str, Explain] = {}


def explains(kpi_id: str) -> Callable[[Explain], Explain]:
    """Register the decorated function as the explanation of a KPI: connection, site and window in, ``Explained`` out.

    It is called in the same read-only transaction as the KPI, and its result is checked against the KPI's own value.

    Parameters
    ----------
    kpi_id : the id given to ``kpi``.

    Returns
    -------
    A decorator that returns the function unchanged.
    """

    def register(explain: Explain) -> Explain:
        _explains[kpi_id] = explain
        return explain

    return register


def explanation_of(kpi_id: str) -> Explain | None:
    load_built_in()
    return _explains.get(kpi_id)


def load_built_in() -> None:
    """Have the built-in explanations and comparisons registered."""
    for name in ("membership", "workshops", "evaluations", "rates"):
        importlib.import_module(f"kpibackfill.explaining.{name}")
