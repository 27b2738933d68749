"""Whether the ledger vouches for what a run's files say, before anything is done by them."""

from __future__ import annotations

from kpibackfill.archive import files, ledger
from kpibackfill.archive.run_record import PLAN, RECEIPT, RunRecord
from kpibackfill.errors import Refused


def refuse_altered(record: RunRecord) -> None:
    """Refuse a run whose files are not those that the ledger lists.

    Raises
    ------
    Refused : a file is missing or altered, or nothing vouches for what the run says; the message names it.
    """
    problem = altered(record)
    if problem:
        raise Refused(f"{problem}; nothing was written. `kpibackfill verify` says more.", code="altered")


def altered(record: RunRecord) -> str:
    """Which file of a run is not the one that the ledger lists, in a few words; empty where none is."""
    sealed: dict[str, str] = {}
    for entry in ledger.entries(record.runs_dir):
        if entry["run_id"] == record.run_id:
            sealed |= entry["files"]
    goes_by = [name for name in (RECEIPT, PLAN) if (record.folder / name).exists()]
    for name in [*goes_by, *sealed]:
        path = record.folder / name
        if name not in sealed:
            what = "is in no line of the ledger that can be relied on"
        elif not path.is_file():
            what = "is missing since it was archived"
        elif files.sha256(path) != sealed[name]:
            what = "was altered since it was archived"
        else:
            continue
        return f"{record.run_id}/{name} {what}"
    return ""
