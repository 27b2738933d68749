"""What a person types next to apply the plan that a run shows."""

from __future__ import annotations

import shlex

from kpibackfill.archive.models import AskedParameters, Guards
from kpibackfill.parameters import command_options


def ways_to_apply(
    parameters: AskedParameters, target: Guards, run_id: str, approved_plan: str = ""
) -> tuple[str, list[str]]:
    """What to do to apply exactly the plan of a run with these parameters, and the commands for it, the last the apply.

    `approved_plan` names the plan where the run is on no record; `target` is the receipt's.
    """
    apply = apply_command(parameters, target, approved_plan or run_id)
    if not target.wants_approval:
        return "apply exactly this plan", [apply]
    by = f", by somebody else than {parameters.operator}," if target.four_eyes else ""
    name = " --by NAME" if target.four_eyes else ""
    return f"have this plan approved{by} and apply exactly this one", [
        f'kpibackfill approve {run_id}{name} --note "…"',
        apply,
    ]


def apply_command(parameters: AskedParameters, target: Guards, approved_plan: str) -> str:
    """The command that would apply exactly the plan of a run with these parameters."""
    reason = parameters.reason or ("…" if target.wants_approval else "")
    wanted = {**dict(parameters), "apply": True, "operator": "", "approved_plan": approved_plan, "reason": reason}
    return shlex.join(["kpibackfill", "run", *command_options(wanted)])
