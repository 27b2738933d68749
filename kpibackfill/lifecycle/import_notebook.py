"""``kpibackfill archive``: import a plain papermill execution's notebook into the record that its kernel opened.

The kernel of such an execution knows neither its notebook's path nor its output's, so the record lacks the notebook
until someone imports it. The metadata of an output names the run.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kpibackfill.archive import files, provenance
from kpibackfill.archive.models import Archived
from kpibackfill.archive.run_record import NOTEBOOK, RUN_METADATA, RunRecord, open_record
from kpibackfill.errors import Refused
from kpibackfill.lifecycle import closing
from kpibackfill.parameters import DEFAULTS

# Parameters that the receipt has as they were given.
_PLAIN = ("target", "include_risky", "apply", "approved_plan", "revert_of", "reason", "operator")
_SLACK = timedelta(seconds=5)  # receipts have whole seconds


def import_notebook(runs_dir: Path, path: Path) -> RunRecord:
    """Copy an executed notebook into its run's folder and seal it there.

    Raises
    ------
    Refused : it is not the executed notebook of a run here, or its run already has a notebook.
    """
    content, named, papermill = _read(path)
    if len(named) != 1:
        what = "names no run" if not named else "names more than one run"
        raise _refused(f"{path} {what}: the outputs of its first step are not those of one execution")
    record = open_record(runs_dir, named.pop())
    if any(isinstance(event, Archived) for event in record.events()):
        raise _refused(f"{record.run_id} already has its notebook")
    _check(path, papermill, record)
    kept = record.folder / NOTEBOOK
    if kept.is_symlink() or not (kept.exists() and kept.samefile(path)):
        if os.path.lexists(kept):
            raise _refused(f"{record.run_id} has another notebook in its folder, which is not archived yet")
        files.write(kept, content)  # what was checked
    closing.archive_notebook(record)
    return record


def _read(path: Path) -> tuple[bytes, set[str], dict[str, Any]]:
    """A notebook, the runs that its outputs name, and what papermill says about its execution."""
    if path.exists() and not path.is_file():
        raise _refused(f"{path} is not a regular file")  # a device or a pipe may have no end
    try:
        content = path.read_bytes()
        notebook = json.loads(content)
        provenance.cells_digest(content)
        named = {
            str(output["metadata"][RUN_METADATA]["run_id"])
            for cell in notebook["cells"]
            for output in cell.get("outputs", [])
            if RUN_METADATA in output.get("metadata", {})
        }
        papermill = dict(notebook.get("metadata", {}).get("papermill", {}))
        return content, named, papermill | {"parameters": dict(papermill.get("parameters", {}))}
    except OSError as error:
        raise _refused(f"{path} can't be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _refused(f"{path} is not a notebook") from None


def _check(path: Path, papermill: dict[str, Any], record: RunRecord) -> None:
    """Refuse a notebook whose time or parameters are not those of the receipt."""
    receipt = record.receipt
    try:
        begun, ended = (papermill.get(name) and _instant(papermill[name]) for name in ("start_time", "end_time"))
    except (ValueError, TypeError):
        begun = ended = None
    if begun is None:
        raise _refused(f"{path} was not executed by papermill")
    started = _instant(receipt.started_at)
    if not begun - _SLACK <= started <= (ended or datetime.now(UTC)) + _SLACK:
        raise _refused(f"{path} was executed at another time than {record.run_id}")
    kept = receipt.parameters
    for name in _PLAIN:
        value = papermill["parameters"].get(name, DEFAULTS[name])
        given = value.strip() if isinstance(value, str) else value
        if given != getattr(kept, name) and not (name == "operator" and not given):
            raise _refused(f"{path} has {name} = {value!r}, but {record.run_id} has {getattr(kept, name)!r}")


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _refused(problem: str) -> Refused:
    return Refused(
        f"{problem}; nothing was archived. `kpibackfill runs` shows which runs lack their notebook.", code="archive"
    )
