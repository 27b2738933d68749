"""What reviewers do to the record, for a notebook: approve, settle, replay. A revert is the parameter ``revert_of``."""

from __future__ import annotations

from typing import Any

from kpibackfill import approval
from kpibackfill.config import load_config
from kpibackfill.execution import replay as replaying
from kpibackfill.execution.replay import Replay
from kpibackfill.lifecycle import settle as settling


def approve(run: str, note: str, by: str = "") -> dict[str, Any]:
    """Put on record that you looked at a dry run and approve of its plan.

    Parameters
    ----------
    run : the dry run's whole id.
    note : why, in a sentence.
    by : who; by default the system's user.

    Returns
    -------
    The approval: `run_id`, `by`, `note`, `plan` (its fingerprint), `system_user`, `rows` (how many are planned).

    Raises
    ------
    Refused : it is no closed dry run, its plan is empty, or its files were altered; nothing was changed.
    """
    return approval.approve(load_config(), run, note=note, by=by)


def settle(run: str) -> dict[str, Any]:
    """Find out whether a run that was cut off while it was writing has written, and put that on record.

    Parameters
    ----------
    run : its whole id.

    Returns
    -------
    The settlement: `run_id`, `outcome` (``applied``, ``not_in_effect`` or ``changed_since``), `settled_at`, `by`, and
    `rows`, each with what was `found` (``written``, ``as_before`` or ``changed_since``). Of a run that had ended and
    only lacked the ledger's line of it: `run_id`, its state as `outcome`, and no `rows`.

    Raises
    ------
    Refused : the run is still running, or nothing about it is unknown.
    """
    return settling.settle(load_config(), run)


def replay(run: str) -> Replay:
    """Ask a run again: its parameters, as of its own instant, as a dry run; and compare the numbers to the last digit.

    Parameters
    ----------
    run : its whole id.

    Returns
    -------
    Replay : its text says whether the numbers are the same; ``frame()`` has the differing rows with then, now and why.

    Raises
    ------
    Refused : there is no such run, it computed nothing, or its files were altered.
    """
    return replaying.replay(load_config(), run)
