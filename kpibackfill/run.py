"""What a run is, from its beginning on, and how each step of it ends on record where it fails."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from kpibackfill.archive.run_record import RUN_METADATA, RunRecord
from kpibackfill.config import Config, Site, Target, masked_url
from kpibackfill.decisions.decisions_file import Decisions
from kpibackfill.kpis import registry
from kpibackfill.kpis.registry import Kpi
from kpibackfill.lifecycle import closing
from kpibackfill.parameters import Parameters
from kpibackfill.reporting import markup

# Set for the kernel by `kpibackfill run`: the id of the run whose record is open already.
RUN_VARIABLE = "KPIBACKFILL_RUN"

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """One run: what was asked for, of which target, and where its record is (``None`` while exploring)."""

    parameters: Parameters
    config: Config
    target: Target
    kpis: tuple[Kpi, ...]
    record: RunRecord | None = None
    decisions: Decisions | None = None

    @property
    def site(self) -> Site:
        return self.config.site

    @property
    def run_id(self) -> str | None:
        return self.record.run_id if self.record else None

    def __repr__(self) -> str:
        return f"Run of {self.target.name}, {self.parameters.from_year}–{self.parameters.to_year}"

    def _repr_html_(self) -> str:
        return markup.render(
            "run",
            p=self.parameters.as_notebook(),
            target=masked_url(self.target.store_url),
            kpis=[registry.as_dict(entry) for entry in self.kpis],
            notes=self.parameters.notes,
            run_id=self.run_id,
        )

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        # By the metadata of this output `kpibackfill archive` knows whose notebook it is.
        return {}, {RUN_METADATA: {"run_id": self.run_id}} if self.run_id else {}


def step(function: Callable[P, R]) -> Callable[P, R]:
    """Close the record as refused or failed when the decorated step raises: nothing was written then.

    The first argument is the run, or something that has a ``run``.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            first: Any = next(iter((*args, *kwargs.values())), None)
            run = first if isinstance(first, Run) else getattr(first, "run", None)
            if isinstance(run, Run) and run.record is not None:
                closing.close_failed(run.record, error)
            raise

    return wrapper


def decidable(config: Config) -> dict[str, str]:
    """The unit of each KPI id that a person may decide on: the registry's, and ``manual_kpis``, which have none."""
    units: dict[str, str] = dict.fromkeys(config.site.manual_kpis, "")
    return units | {kpi_id: entry.unit for kpi_id, entry in registry.load(config.site.kpi_modules).items()}


def kept_by_hand(config: Config) -> list[str]:
    """The KPI ids that only decisions set: those of ``manual_kpis`` that no module registers."""
    return [kpi_id for kpi_id, unit in decidable(config).items() if not unit]
