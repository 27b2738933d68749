"""Sentences about drift, plans and runs that terminal, notebook and report share, and the commands that come next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from kpibackfill.archive.models import AskedParameters, Guards, Receipt, Settlement, State, Written
from kpibackfill.parameters import command_options
from kpibackfill.reporting.rows import DIFFERS, ReadableDrift
from kpibackfill.text import count, one_line


def drift_sentence(rows: Sequence[ReadableDrift]) -> str:
    """``55 rows: 1 unsupported, 4 changed, 2 new, 48 unchanged.``, and what moved since the last record."""
    if not rows:
        return "There is nothing to compare."
    found = [row.status for row in rows]
    statuses = [status for status in (*DIFFERS, "unchanged", "no_data") if status in found]
    parts = ", ".join(f"{found.count(status):,} {status.replace('_', ' ')}" for status in statuses)
    return f"{count(len(rows), 'row')}: {parts}. {moved_sentence(row.moved for row in rows)}".rstrip()


def moved_sentence(moved: Iterable[str]) -> str:
    """What moved since it was last recorded; empty where nothing did."""
    found = list(moved)
    number = {word: found.count(word) for word in ("source", "store", "both", "vanished")}
    parts = {
        "source": f"{count(number['source'], 'row')} now compute{'s' * (number['source'] == 1)} differently "
        "(sources, settings or code have changed)",
        "store": f"someone changed {count(number['store'], 'stored row')}",
        "both": f"both happened to {count(number['both'], 'row')}",
        "vanished": f"{count(number['vanished'], 'row')} vanished, as when a snapshot is rebuilt",
    }
    said = [sentence for word, sentence in parts.items() if number[word]]
    return f"Since it was last recorded: {'; '.join(said)}." if said else ""


def actions_sentence(actions: Sequence[str]) -> str:
    """``30 rows: 19 to insert, 11 to update.``"""
    if not actions:
        return "The plan is empty: there is nothing to write."
    counts = ", ".join(f"{actions.count(name)} to {name}" for name in ("insert", "update", "delete") if name in actions)
    return f"{count(len(actions), 'row')}: {counts}."


def written_sentence(written: Written) -> str:
    """``19 rows inserted, 11 rows updated.``"""
    parts = [
        f"{count(number, 'row')} {word}"
        for number, word in ((written.insert, "inserted"), (written.update, "updated"), (written.delete, "deleted"))
        if number
    ]
    return f"{', '.join(parts)}." if parts else "nothing was written, since the plan was empty."


def empty_sentence(receipt: Receipt) -> str:
    """That a plan is empty, and that this is as it should be where no row differs."""
    statuses = {row.status for row in receipt.rows}
    if "unchanged" in statuses and not statuses & {*DIFFERS} and not receipt.parameters.revert_of:
        return "The stored values equal the computed ones: there is nothing to do."
    return "The plan is empty."


def settlement_sentence(run_id: str, found: Settlement | State) -> str:
    """What a settlement found, or how the run had ended already."""
    if not isinstance(found, Settlement):
        return f"{run_id} ended as {found}, which is on record now."
    text = {
        "applied": f"{run_id} was applied: its transaction was committed.",
        "not_in_effect": f"{run_id} is not in effect: the database holds none of its changes.",
        "changed_since": f"{run_id} can't be settled as a whole: someone has changed its rows since.",
    }[found.outcome]
    others = {"changed_since": "Changed by someone else since"}
    if found.outcome == "applied":
        others["as_before"] = "Restored by someone else since"
    for state, words in others.items():
        named = [f"({row.snapshot_id}, {row.kpi_id})" for row in found.rows if row.found == state]
        text += f" {words}: {', '.join(named)}." if named else ""
    return text


def state_words(state: str, settled: bool) -> str:
    """A run's state, and that a settlement found it."""
    return one_line(state).replace("_", " ") + (" (settled)" if settled else "")


def ways_to_apply(
    parameters: AskedParameters, target: Guards, run_id: str, approved_plan: str = ""
) -> tuple[str, list[str]]:
    """How to apply exactly the plan of a run with these parameters: in words, and as commands, the last the apply.

    `approved_plan` names the plan where the run is not on record; `target` is the receipt's.
    """
    apply = apply_command(parameters, target, approved_plan or run_id)
    if not target.wants_approval:
        return "apply exactly this plan", [apply]
    by = f" by someone other than {parameters.operator}" if target.four_eyes else ""
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
