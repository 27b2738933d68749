"""How a run's record ends: its final state, the report, and the ledger's line that seals its files."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kpibackfill.archive import files, provenance
from kpibackfill.archive.run_record import NOTEBOOK, RECEIPT, REPORT, SETTLEMENT, RunRecord, line_of
from kpibackfill.errors import KpiBackfillError, OutcomeUnknown
from kpibackfill.reporting import index, report


def close(record: RunRecord, state: str, error: KpiBackfillError | None = None, **facts: Any) -> None:
    """Give the receipt its final state, render the report, and seal all files in the ledger."""
    receipt = record.receipt
    if receipt["state"] not in ("planned", state):
        raise AssertionError(f"{record.run_id} is {receipt['state']}, so it can't end as {state}")
    told = {"code": error.code, "message": error.message} if error else None
    receipt |= facts | {"state": state, "error": told, "ended_at": datetime.now(UTC).isoformat(timespec="seconds")}
    page, missing = report.closing_page(receipt, record.folder)
    receipt["report"] = missing
    # Where somebody has settled the run meanwhile, its receipt is sealed as it is. What can't be written now is left
    # to `finish`: a run that is sealed takes no further file.
    _seal_closed(record, receipt, {RECEIPT: files.readable(receipt), REPORT: page})
    index.write(record.runs_dir)


def close_failed(record: RunRecord, error: BaseException) -> None:
    """Give a run that raised its final state, unless its outcome is known already or is unknown."""
    if isinstance(error, OutcomeUnknown):
        return
    receipt = record.receipt
    if receipt["ended_at"] is not None:
        finish(record)
    if receipt["ended_at"] is not None or receipt["state"] != "planned":
        return
    if isinstance(error, KpiBackfillError):
        close(record, error.state, error)
    elif isinstance(error, KeyboardInterrupt):
        close(record, "failed", KpiBackfillError("The run was interrupted; nothing was written.", code="interrupted"))
    elif isinstance(error, SystemExit):  # papermill calls this a success
        ended = KpiBackfillError(
            "A cell ended the notebook before its last step; nothing was written.", code="incomplete"
        )
        close(record, "failed", ended)
    else:
        message = f"{type(error).__name__} in kpibackfill; nothing was written. The traceback is in the notebook."
        close(record, "failed", KpiBackfillError(message, code="bug"))


def finish(record: RunRecord) -> None:
    """Do what is left to do of a closing that was cut off; nothing, where the run has no final state."""
    receipt = record.receipt
    if receipt["ended_at"] is None:
        if receipt["state"] == "applied":
            close(record, "applied")
    elif not record.sealed:
        there = (record.folder / REPORT).is_file()
        _seal_closed(record, receipt, {} if there else {REPORT: report.closing_page(receipt, record.folder)[0]})


def off_record(record: RunRecord, error: KpiBackfillError) -> OutcomeUnknown:
    """What to say where rows are written, and that can't be put on record."""
    what = error.message.removesuffix(f"; {files.OF_A_RUN}").rstrip(".")
    return OutcomeUnknown(
        f"The rows are written: the database has committed them. But their record is incomplete: {what}. Make room or "
        f"give rights; `kpibackfill settle {record.run_id}` completes it then.",
        code="record",
    )


def archive_notebook(record: RunRecord) -> None:
    """Seal the executed notebook, which is complete only after the run was closed."""
    notebook = record.folder / NOTEBOOK
    notebook.chmod(0o600)
    files.sync(notebook)  # papermill only writes it
    files.sync(record.folder)
    digest = provenance.cells_digest(notebook.read_bytes())
    shipped = provenance.cells_digest(provenance.notebook_path().read_bytes())
    record.seal("archived", [NOTEBOOK], cells=digest, notebook="as shipped" if digest == shipped else "edited")
    index.write(record.runs_dir)


def close_settled(record: RunRecord, document: Mapping[str, Any], changes: list[dict[str, Any]]) -> None:
    """Add a settlement, and seal what the run could not seal itself; what it wrote stays as it is."""
    receipt = record.receipt
    adding = {SETTLEMENT: files.readable(document)}
    if not (record.folder / REPORT).is_file():
        adding[REPORT] = report.closing_page(receipt, record.folder, document)[0]
    sealed = {name for entry in record.events() for name in entry["files"]}
    names = [path.name for path in record.folder.iterdir() if path.name not in {*sealed, *adding}]
    record.seal("settled", names, adding, changes=changes, **line_of("settled", receipt, document))
    index.write(record.runs_dir)


def _seal_closed(record: RunRecord, receipt: Mapping[str, Any], adding: Mapping[str, str]) -> None:
    names = [path.name for path in record.folder.iterdir() if path.name not in (NOTEBOOK, *adding)]
    record.seal("closed", names, adding, **line_of("closed", receipt))
