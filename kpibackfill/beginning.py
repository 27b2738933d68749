"""This step begins a run: it checks every parameter, and opens the record where the run leaves one."""

from __future__ import annotations

import os
import resource
import sys
from datetime import date, datetime
from typing import Any

from kpibackfill import revert
from kpibackfill.archive.run_record import DECISIONS, RunRecord
from kpibackfill.config import Config, Target, load_config
from kpibackfill.decisions import decisions_file
from kpibackfill.decisions.decisions_file import Decisions
from kpibackfill.errors import KpiBackfillError, Refused
from kpibackfill.kpis import registry
from kpibackfill.kpis.registry import Kpi
from kpibackfill.lifecycle import closing
from kpibackfill.parameters import CADENCES, Parameters, injected_names, refuse_unknown, resolve, shown
from kpibackfill.run import RUN_VARIABLE, Run, decidable


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
    config, parameters, chosen = prepare(values)
    target_ = config.target(parameters.target)
    run_id = os.environ.get(RUN_VARIABLE)
    record: RunRecord | None = None
    if run_id:
        record = RunRecord(config.runs_dir, run_id)
        if record.receipt["state"] != "planned":
            raise Refused(
                f"{run_id}, as {RUN_VARIABLE} has it, is under way or has ended; nothing was read or written. "
                "Begin another run: that variable is for the run that `kpibackfill run` starts.",
                code="order",
            )
        if record.receipt["parameters"] != parameters.as_notebook():
            other = Refused(
                "The notebook asks for something else than the run was begun with; nothing was read or written. "
                "Give parameters on the command line, and leave the notebook's own at their defaults.",
                code="parameter",
            )
            closing.close(record, other.state, other)
            raise other
    elif archives_by_itself():
        record = RunRecord.create(config, target_, parameters, "papermill")
    return Run(parameters, config, target_, chosen, record, _kept_decisions(config, parameters, record))


def prepare(values: dict[str, Any], config: Config | None = None) -> tuple[Config, Parameters, tuple[Kpi, ...]]:
    """Configuration, resolved parameters and chosen KPIs; the demo is built where it is asked for and absent."""
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
    if parameters.decisions:
        decisions_file.read(parameters.decisions, decidable(config))
    _build_demo(target)
    return config, parameters, chosen


def _kept_decisions(config: Config, parameters: Parameters, record: RunRecord | None) -> Decisions | None:
    """The decisions that the run goes by; the record gets the file as it is."""
    if not parameters.decisions:
        return None
    try:
        found = decisions_file.read(parameters.decisions, decidable(config))
    except KpiBackfillError as error:
        if record is not None:
            closing.close_failed(record, error)
        raise
    if record is not None:
        record.add(DECISIONS, found.raw)
    return found


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
    from pathlib import Path

    path = Path(url.database)
    if not path.exists():
        from kpibackfill.demo import build_demo

        try:
            build_demo(path)
        except KpiBackfillError as error:
            if error.code != "demo_exists":  # else another process was faster
                raise
