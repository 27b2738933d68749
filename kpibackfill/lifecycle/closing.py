"""Closes a run's record: its final state, the report, and the ledger's line that seals its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kpibackfill.archive import files, provenance
from kpibackfill.archive.models import Archived, Change, Closed, Failure, FinalState, Receipt, Settled, Settlement, now
from kpibackfill.archive.run_record import NOTEBOOK, RECEIPT, REPORT, SETTLEMENT, RunRecord
from kpibackfill.errors import KpiBackfillError, OutcomeUnknown, Refused
from kpibackfill.reporting import index, report


def close(record: RunRecord, state: FinalState, error: KpiBackfillError | None = None, **members: Any) -> None:
    """Give the receipt its final state and these members, render the report, and seal all files in the ledger."""
    receipt = record.receipt
    if receipt.state not in ("planned", state):
        raise AssertionError(f"{record.run_id} is {receipt.state}, so it can't end as {state}")
    failure = Failure(code=error.code, message=error.message) if error else None
    receipt = receipt.changed(**members, state=state, error=failure, ended_at=now())
    page, missing = report.closing_page(receipt, record.folder)
    receipt = receipt.changed(report=missing)
    # If someone has settled the run in the meantime, its receipt is sealed as it is. What can't be written now is left
    # to `finish`: a sealed run accepts no more files.
    _seal_closed(record, receipt, {RECEIPT: files.readable(receipt.as_json()), REPORT: page})
    index.write(record.runs_dir)


def close_failed(record: RunRecord, error: BaseException) -> None:
    """Give a run that raised an exception its final state, unless it has one already or its outcome is unknown."""
    if isinstance(error, OutcomeUnknown):
        return
    receipt = record.receipt
    if receipt.ended_at is not None:
        finish(record)
    if receipt.ended_at is not None or receipt.state != "planned":
        return
    if isinstance(error, KpiBackfillError):
        failure = error
    elif isinstance(error, KeyboardInterrupt):
        failure = KpiBackfillError("The run was interrupted; nothing was written.", code="interrupted")
    elif isinstance(error, SystemExit):  # papermill calls this a success
        message = "A cell ended the notebook before its last step; nothing was written."
        failure = KpiBackfillError(message, code="incomplete")
    else:
        message = f"{type(error).__name__} in kpibackfill; nothing was written. The traceback is in the notebook."
        failure = KpiBackfillError(message, code="bug")
    close(record, "refused" if isinstance(failure, Refused) else "failed", failure)


def finish(record: RunRecord) -> None:
    """Complete a closing that was cut off; do nothing if the run has no final state."""
    receipt = record.receipt
    if receipt.ended_at is None:
        if receipt.state == "applied":
            close(record, "applied")
    elif not record.sealed:
        there = (record.folder / REPORT).is_file()
        _seal_closed(record, receipt, {} if there else {REPORT: report.closing_page(receipt, record.folder)[0]})


def off_record(record: RunRecord, error: KpiBackfillError) -> OutcomeUnknown:
    """The error for rows that were written but can't be put on record."""
    what = error.message.removesuffix(f"; {files.OF_A_RUN}").rstrip(".")
    return OutcomeUnknown(
        f"The rows are written: the database has committed them. But their record is incomplete: {what}. Free disk "
        f"space or grant rights, then run `kpibackfill settle {record.run_id}` to complete it.",
        code="record",
    )


def archive_notebook(record: RunRecord) -> None:
    """Seal the executed notebook, which is complete only after the run is closed."""
    notebook = record.folder / NOTEBOOK
    notebook.chmod(0o600)
    files.sync(notebook)  # papermill doesn't
    files.sync(record.folder)
    digest = provenance.cells_digest(notebook.read_bytes())
    shipped = provenance.cells_digest(provenance.notebook_path().read_bytes())
    event = Archived(run_id=record.run_id, cells=digest, notebook="as shipped" if digest == shipped else "edited")
    record.seal(event, [NOTEBOOK], {})
    index.write(record.runs_dir)


def close_settled(record: RunRecord, settlement: Settlement, changes: tuple[Change, ...]) -> None:
    """Add a settlement, and seal what the run could not seal itself; what it wrote stays as it is."""
    receipt = record.receipt
    adding = {SETTLEMENT: files.readable(settlement.as_json())}
    if not (record.folder / REPORT).is_file():
        adding[REPORT] = report.closing_page(receipt, record.folder, settlement)[0]
    sealed = {name for event in record.events() for name in event.files}
    names = [path.name for path in record.folder.iterdir() if path.name not in {*sealed, *adding}]
    record.seal(Settled.of(receipt, settlement, changes), names, adding)
    index.write(record.runs_dir)


def _seal_closed(record: RunRecord, receipt: Receipt, adding: Mapping[str, str]) -> None:
    names = [path.name for path in record.folder.iterdir() if path.name not in (NOTEBOOK, *adding)]
    record.seal(Closed.of(receipt), names, adding)
