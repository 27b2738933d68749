"""This step begins a run: it checks every parameter, and opens the record where the run leaves one.

A step that fails ends on record."""

from __future__ import annotations

import functools
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from kpibackfill import revert
from kpibackfill.archive.models import StartedBy
from kpibackfill.archive.run_record import DECISIONS, RUN_METADATA, RunRecord
from kpibackfill.config import Config, Site, Target, load_config, masked_url
from kpibackfill.decisions import decisions_file
from kpibackfill.decisions.decisions_file import Decisions
from kpibackfill.errors import KpiBackfillError, Refused
from kpibackfill.kpis import registry
from kpibackfill.kpis.registry import Kpi
from kpibackfill.lifecycle import closing
from kpibackfill.parameters import CADENCES, Parameters, injected_names, refuse_unknown, resolve, shown
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


def begin(
    *,
    target: str = "demo",
    from_year: int | None = None,
    to_year: int | None = None,
    snapshot_types: str | list[str] = "annually,annual",
    kpis: str | list[str] = "",
    include_risky: bool = False,
    apply: bool = False,
    approved_plan: str = "",
    decisions: str = "",
    revert_of: str = "",
    reason: str = "",
    operator: str = "",
    as_of: str | datetime | date | None = None,
) -> Run:
    """Check what was asked for and begin a run.

    Parameters
    ----------
    target : a target of ``kpibackfill.toml``.
    from_year, to_year : inclusive; by default last year, and `from_year`.
    snapshot_types : text with commas, or a list.
    kpis : KPI ids instead of the default set, text with commas or a list.
    include_risky : add the risky KPIs to the default set.
    apply : exactly ``True`` writes; anything else than a bool is refused.
    approved_plan : fingerprint or run id of the reviewed dry run that this run must equal.
    decisions : path of a CSV with a person's decisions on single rows.
    revert_of : id of the run whose before-images are to be restored.
    reason, operator : why, in a sentence, and who.
    as_of : the instant that "last year" and the current month go by; a local time is the site's.

    Returns
    -------
    Run : what the steps after it take, and where its record is.

    Raises
    ------
    KpiBackfillError : with one or two lines that say what is wrong; nothing was read or written.
    """
    values = dict(locals())
    refuse_unknown(injected_names(_executed_cells()))
    run_id, config = os.environ.get(RUN_VARIABLE), load_config()
    if not run_id:
        run = prepare(values, config)
        return recorded(run, "papermill") if archives_by_itself() else run
    record = RunRecord(config.runs_dir, run_id)
    if record.receipt.state != "planned":
        raise Refused(
            f"{run_id}, as {RUN_VARIABLE} has it, is under way or has ended; nothing was read or written. "
            "Begin another run: that variable is for the run that `kpibackfill run` starts.",
            code="order",
        )
    run = prepare(values, config, record)
    if dict(record.receipt.parameters) != run.parameters.as_notebook():
        other = Refused(
            "The notebook asks for something else than the run was begun with; nothing was read or written. "
            "Give parameters on the command line, and leave the notebook's own at their defaults.",
            code="parameter",
        )
        closing.close(record, "refused", other)
        raise other
    return replace(run, record=record)


def recorded(run: Run, started_by: StartedBy) -> Run:
    """The run with a record, which keeps the decisions file as it was read."""
    record = RunRecord.create(run.config, run.target, run.parameters, started_by)
    if run.decisions is not None:
        record.add(DECISIONS, run.decisions.raw)
    return replace(run, record=record)


def prepare(values: dict[str, Any], config: Config | None = None, record: RunRecord | None = None) -> Run:
    """A run that is on no record yet: its parameters resolved, its KPIs chosen, its decisions read.

    The demo is built if it is the target and absent. The decisions are those in the `record`, if it has them, so that
    a file that somebody edits meanwhile is read once.
    """
    # A dump of this process, or of the kernel that it starts, would hold the environment with its passwords.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    config = config or load_config()
    name = values.get("target", "demo")
    if not isinstance(name, str):
        raise Refused(f"target must be text, not {shown(name)}. Nothing was read or written.", code="parameter")
    target = config.target(name)
    undone = values.get("revert_of")
    parameters = resolve(revert.inherit(values, config) if isinstance(undone, str) and undone else values, target)
    _ = target.store_url, target.sources_url
    chosen = tuple(
        registry.choose(registry.load(config.site.kpi_modules), parameters.kpis, include_risky=parameters.include_risky)
    )
    for snapshot_type in parameters.snapshot_types:
        for entry in chosen:
            if CADENCES[snapshot_type] not in entry.cadences:
                raise Refused(
                    f"{entry.kpi_id} has no {CADENCES[snapshot_type]} window, so snapshot_types {snapshot_type!r} is "
                    "refused; nothing was read or written. Name the KPIs that have one with kpis.",
                    code="parameter",
                )
    decisions = _decisions(config, parameters, record)
    _build_demo(target)
    return Run(parameters, config, target, chosen, decisions=decisions)


def _decisions(config: Config, parameters: Parameters, record: RunRecord | None) -> Decisions | None:
    if not parameters.decisions:
        return None
    kept = record and record.folder / DECISIONS
    if kept and kept.is_file():
        return decisions_file.parse(kept.read_bytes(), Path(parameters.decisions).name, decidable(config))
    return decisions_file.read(parameters.decisions, decidable(config))


def archives_by_itself() -> bool:
    """Whether this is the kernel of a papermill execution: a notebook's kernel without a JupyterLab session."""
    kernel = getattr(_shell(), "kernel", None)
    return kernel is not None and "JPY_SESSION_NAME" not in os.environ


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _executed_cells() -> list[str]:
    shell = _shell()
    return [str(source) for source in shell.user_ns.get("In", [])] if shell is not None else []


def _build_demo(target: Target) -> None:
    url = target.store_url
    if target.name != "demo" or url.get_backend_name() != "sqlite" or not url.database:
        return
    path = Path(url.database)
    if not path.exists():
        from kpibackfill.demo import build_demo

        try:
            build_demo(path)
        except KpiBackfillError as error:
            if error.code != "demo_exists":  # else another process was faster
                raise


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
