"""Decides how an execution of the notebook ended: by its receipt, and by the exception where that is not enough."""

from __future__ import annotations

import traceback
from typing import get_args

from kpibackfill.archive import files
from kpibackfill.archive.models import FinalState
from kpibackfill.archive.run_record import NOTEBOOK, RunRecord
from kpibackfill.errors import Bug, KpiBackfillError, OutcomeUnknown
from kpibackfill.lifecycle import closing


def conclude(record: RunRecord, raised: BaseException | None) -> list[str]:
    """Judge a run by its receipt, and return remarks: papermill reports even cells that never ran as completed.

    What goes wrong once the run's end is on record is not a failure but a remark.
    """
    try:
        closing.finish(record)
    except KpiBackfillError as unwritten:
        if record.receipt.state == "applied":
            raise closing.off_record(record, unwritten) from None
        raise
    receipt = record.receipt
    if receipt.state == "applying":
        raise OutcomeUnknown(
            f"The run ended while it was writing, so it is unknown whether it wrote anything. "
            f"Run `kpibackfill settle {record.run_id}` to find out, before any other run.",
            code="outcome_unknown",
        ) from None
    if receipt.state not in get_args(FinalState):
        closing.close_failed(record, _ended_early(raised))
        receipt = record.receipt
    if isinstance(raised, KeyboardInterrupt):
        raise raised
    error = receipt.error
    if error is not None and error.code != "bug":
        failure = KpiBackfillError(error.message, code=error.code)
        failure.state = receipt.state
        raise failure from None
    if raised is not None and not (error is None and _is_outside(raised)):
        raise Bug(_traceback(raised)) from None
    if error is not None:
        raise Bug(error.message)
    return [] if raised is None else [f"The notebook did not finish ({_in_a_line(raised)}), but its run did."]


def archived(record: RunRecord) -> list[str]:
    """Seal the notebook; if that fails, neither the run's outcome nor an error under way changes."""
    try:
        if (record.folder / NOTEBOOK).is_file():
            closing.archive_notebook(record)
    except (KpiBackfillError, OSError, ValueError, LookupError) as error:
        return [f"The notebook of {record.run_id} was not archived ({_in_a_line(error)})."]
    return []


def _is_outside(raised: BaseException) -> bool:
    """Whether the cause is outside our code, such as a killed process or a full disk."""
    expected = getattr(raised, "ename", "") in ("KpiBackfillError", "Refused", "OutcomeUnknown")
    return expected or bool(_died(raised)) or isinstance(raised, OSError)


def _ended_early(raised: BaseException | None) -> BaseException:
    what = "The notebook ended before its last step" if raised is None else _died(raised)
    if raised is not None and not what:
        return raised
    return KpiBackfillError(f"{what}; nothing was written. Run again.", code="incomplete")


def _died(raised: BaseException) -> str:
    """What ended a kernel or a cell from outside; empty if nothing did."""
    if type(raised).__name__ == "CellTimeoutError":
        return "A cell timed out"
    # What jupyter_client raises, as a RuntimeError, if the kernel was killed while it started or could not start.
    if str(raised).startswith("Kernel didn't respond"):
        return "The notebook's kernel did not start in time"
    killed = type(raised).__name__ == "DeadKernelError" or str(raised).startswith("Kernel died before")
    return "The notebook's kernel died" if killed else ""


def _in_a_line(error: BaseException) -> str:
    said = getattr(error, "evalue", "") or str(error).removesuffix(f"; {files.OF_A_RUN}")
    return _died(error) or " ".join(said.split())[:300].rstrip(".") or type(error).__name__


def _traceback(raised: BaseException) -> str:
    lines = getattr(raised, "traceback", None)
    return "\n".join(lines) if lines else "".join(traceback.format_exception(raised))
