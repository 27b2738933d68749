"""This step begins a run: it checks every parameter, and opens the record if the run leaves one.

A step that fails ends the run on record."""

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
    """One run: what was requested, for which target, and where its record is (``None`` while exploring)."""

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
        years = dict.fromkeys((str(self.parameters.from_year), str(self.parameters.to_year)))
        return f"Run of {self.target.name}, {'–'.join(years)}"

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
        # By the metadata of this output `kpibackfill archive` knows the run of a notebook.
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
    """Check the parameters and begin a run.

    Parameters
    ----------
    target : a target of ``kpibackfill.toml``.
    from_year, to_year : the years, inclusive; by default last year, and `from_year`.
    snapshot_types : text with commas, or a list.
    kpis : KPI ids instead of the default set, as text with commas or a list.
    include_risky : add the risky KPIs to the default set.
    apply : exactly ``True`` writes; anything other than a bool is refused.
    approved_plan : fingerprint or run id of the reviewed dry run whose plan this run's must equal.
    decisions : path of a CSV with a person's decisions on single rows.
    revert_of : id of the run whose before-images are to be restored.
    reason, operator : why, in a sentence, and who (by default the system's user).
    as_of : the instant that defines "last year" and the current month; a local time is in the site's time zone.

    Returns
    -------
    Run : the first argument of the steps that follow; `run_id` and `record` are ``None`` if it leaves no record.

    Raises
    ------
    KpiBackfillError : one or two lines say what is wrong; nothing was read or written.
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
            f"{run_id}, named by {RUN_VARIABLE}, is under way or has ended; nothing was read or written. "
            "Unset that variable to begin another run: only `kpibackfill run` sets it.",
            code="order",
        )
    run = prepare(values, config, record)
    if dict(record.receipt.parameters) != run.parameters.as_notebook():
        other = Refused(
            "The notebook's parameters are not those that the run was begun with; nothing was read or written. "
            "Give them on the command line, and leave the notebook's own at their defaults.",
            code="parameter",
        )
        closing.close(record, "refused", other)
        raise other
    return replace(run, record=record)


def recorded(run: Run, started_by: StartedBy) -> Run:
    """Open the run's record, which keeps the decisions file as it was read."""
    record = RunRecord.create(run.config, run.target, run.parameters, started_by)
    if run.decisions is not None:
        record.add(DECISIONS, run.decisions.raw)
    return replace(run, record=record)


def prepare(values: dict[str, Any], config: Config | None = None, record: RunRecord | None = None) -> Run:
    """Prepare a run without a record: resolve its parameters, choose its KPIs and read its decisions.

    The demo is built if it is the target and missing. The decisions are those in the `record`, if it has them, so a
    file that someone edits in the meantime is read only once.
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
                    "refused; nothing was read or written. Use kpis to name the KPIs that have one.",
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
            if error.code != "demo_exists":  # otherwise another process was faster
                raise


def step(function: Callable[P, R]) -> Callable[P, R]:
    """Close the record as refused or failed if the decorated step raises; nothing was written then.

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
