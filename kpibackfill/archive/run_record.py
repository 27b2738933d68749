"""The record of one run: its folder, its receipt, and the ledger's lines about it.

The receipt is written by the package, never by the notebook, and each time whole. Its ``state`` is what is known
to have happened: ``planned`` nothing written yet, ``applying`` a transaction may be under way, and at the end
``dry_run``, ``applied``, ``refused`` or ``failed``. A closed receipt is never changed.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kpibackfill.archive import files, ledger, provenance
from kpibackfill.config import Config, Target, masked_url, plain_settings, web_address
from kpibackfill.errors import KpiBackfillError, Refused
from kpibackfill.parameters import Parameters, system_user

SCHEMA = 1
RECEIPT, PLAN, DECISIONS, SETTLEMENT, DRIFT, NOTEBOOK, REPORT, SUMS = (
    "receipt.json",
    "plan.json",
    "decisions.csv",
    "settlement.json",
    "drift.csv",
    "notebook.ipynb",
    "report.html",
    "SHA256SUMS",
)
# What every receipt has, from the first on.
_RECEIPT_HAS = (
    "run_id",
    "state",
    "error",
    "started_at",
    "ended_at",
    "parameters",
    "target",
    "site",
    "code",
    "versions",
)
# Under this name the run's id stands in the metadata of an output of its notebook.
RUN_METADATA = "kpibackfill"
# The ledger's events that tell a run's end.
ENDS = ("closed", "settled")
FINAL = ("dry_run", "applied", "refused", "failed")
_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9_-]+-[0-9a-f]{6}")


class RunRecord:
    """A handle on the folder ``runs/<run id>/``; all that it knows is on disk."""

    def __init__(self, runs_dir: Path, run_id: str) -> None:
        if not is_run_id(run_id):
            raise Refused(
                f"{run_id!r:.80} is not a run id, of which whatever writes wants the whole; nothing was written. "
                "`kpibackfill runs` lists them.",
                code="run_id",
            )
        self.runs_dir = runs_dir
        self.run_id = run_id
        self.folder = runs_dir / run_id
        if self.folder.is_symlink():
            raise Refused(
                f"{self.folder} is a link, which may lead out of the archive; nothing was read. "
                "`kpibackfill verify` says more.",
                code="altered",
            )

    @classmethod
    def create(cls, config: Config, target: Target, parameters: Parameters, started_by: str) -> RunRecord:
        """Make the folder, the first receipt and the ledger's line ``begun``."""
        now = datetime.now(UTC)
        years = "-".join(dict.fromkeys([f"{parameters.from_year}", f"{parameters.to_year}"]))
        kind = "apply" if parameters.apply else "dry-run"
        run_id = f"{now:%Y%m%dT%H%M%SZ}-{target.name}-{years}-{kind}-{secrets.token_hex(3)}"
        record = cls(config.runs_dir, run_id)
        files.make_folder(record.runs_dir)
        files.make_folder(record.folder)
        receipt = {
            "schema": SCHEMA,
            "run_id": run_id,
            "state": "planned",
            "error": None,
            "started_at": now.isoformat(timespec="seconds"),
            "ended_at": None,
            "started_by": started_by,
            "parameters": parameters.as_notebook(),
            "notes": list(parameters.notes),
            "reason": parameters.reason,
            "operator": parameters.operator,
            "system_user": system_user(),
            "host": socket.gethostname(),
            "target": {
                "name": target.name,
                "store": masked_url(target.store_url),
                "sources": masked_url(target.sources_url),
                "timezone": target.timezone,
                "dashboards": web_address(target.dashboards),
                **guards(target),
            },
            "site": plain_settings(config.site),
            "code": provenance.code(),
            "versions": provenance.versions(),
        }
        files.write(record.folder / RECEIPT, files.readable(receipt))
        ledger.append(record.runs_dir, "begun", run_id, {}, **line_of("begun", receipt))
        return record

    @property
    def receipt(self) -> dict[str, Any]:
        """The receipt as it stands on disk."""
        try:
            return _document(self.folder / RECEIPT, *_RECEIPT_HAS)
        except FileNotFoundError:
            raise Refused(f"There is no run {self.run_id} in {self.runs_dir}.", code="unknown_run") from None

    @property
    def closed(self) -> bool:
        return self.receipt["ended_at"] is not None

    @property
    def settlement(self) -> dict[str, Any] | None:
        """What was found out about a run that was cut off while it was writing; ``None`` where nothing was asked."""
        path = self.folder / SETTLEMENT
        return _document(path, "run_id", "outcome", "settled_at", "rows") if path.is_file() else None

    def add(self, name: str, content: bytes | str) -> None:
        """Add a file of the run before the run is closed."""
        files.write(self.folder / name, content)

    def update(self, **facts: Any) -> None:
        """Write the receipt anew with more or newer facts, unless somebody has settled the run meanwhile."""
        receipt = self.receipt
        if receipt["ended_at"] is not None:
            raise AssertionError(f"{self.run_id} is closed")
        with ledger.writing(self.runs_dir):
            if not self.sealed:
                files.write(self.folder / RECEIPT, files.readable({**receipt, **facts}))

    @property
    def sealed(self) -> bool:
        """Whether a line of the ledger tells the run's end."""
        return any(entry["event"] in ENDS for entry in self.events())

    def events(self) -> list[dict[str, Any]]:
        """The ledger's lines about the run."""
        return list(ledger.entries(self.runs_dir, self.run_id))

    def seal(self, event: str, names: list[str], adding: Mapping[str, str] | None = None, **facts: Any) -> None:
        """Put files of the run's folder into ``SHA256SUMS`` and, with the event, into the ledger.

        Both under the ledger's lock, so that whoever holds it finds them agreeing. A run ends once, and is given its
        notebook once: where another process was faster, nothing is done.

        Parameters
        ----------
        names : files that lie in the folder already.
        adding : files to write, by name, under the same lock.
        """
        with ledger.writing(self.runs_dir) as book:
            if any(entry["event"] in (ENDS if event in ENDS else (event,)) for entry in self.events()):
                return
            lying = sorted(name for name in names if name != SUMS and name[0] != ".")
            added = {name: files.sha256(self.folder / name) for name in lying}
            added |= {name: files.write(self.folder / name, content) for name, content in (adding or {}).items()}
            sums = {name: digest for digest, _, name in (line.partition("  ") for line in self._sum_lines())} | added
            digest = files.write(self.folder / SUMS, sum_lines(sums))
            book.append(event, self.run_id, {**added, SUMS: digest}, **facts)

    def _sum_lines(self) -> list[str]:
        path = self.folder / SUMS
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def guards(target: Target) -> dict[str, bool]:
    """What an apply to the target wants, as a receipt's ``target`` says it."""
    return {"wants_approval": target.wants_approval, "four_eyes": target.four_eyes}


def line_of(event: str, receipt: Mapping[str, Any], settlement: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the ledger's line ``begun``, ``closed`` or ``settled`` tells by the receipt, and by the settlement."""
    asked = receipt["parameters"]
    if event == "begun":
        return {
            "target": receipt["target"]["name"],
            "years": [asked["from_year"], asked["to_year"]],
            "apply": asked["apply"],
            "operator": receipt["operator"],
            "reason": receipt["reason"],
            "revert_of": asked["revert_of"],
        }
    names = ("snapshot_id", "kpi_id", "decision", "value", "numbers", "reason", "reviewer")
    told = {
        "years": receipt.get("years", {}),
        "kpis": [entry["kpi_id"] for entry in receipt.get("kpis", [])],
        "plan": receipt.get("plan"),
        "approved_run": (receipt.get("approval") or {}).get("approved_run", ""),
        "decisions": [{name: decided[name] for name in names} for decided in receipt.get("decisions", [])],
    }
    if event == "settled":
        return told | ({"outcome": settlement["outcome"]} if settlement else {})
    changes = receipt.get("written", {}).get("rows", []) if receipt["state"] == "applied" else []
    return told | {"state": receipt["state"], "changes": changes}


def sum_lines(digests: Mapping[str, str]) -> str:
    """The text of ``SHA256SUMS``, as ``sha256sum -c`` reads it."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def is_run_id(text: str) -> bool:
    return _RUN_ID.fullmatch(text) is not None


def _document(path: Path, *names: str) -> dict[str, Any]:
    """A JSON document of a run's folder that has these members.

    Raises
    ------
    FileNotFoundError : there is none.
    KpiBackfillError : it can't be read.
    """
    try:
        document = json.loads(path.read_bytes())
        problem = "" if isinstance(document, dict) and document.keys() >= set(names) else "it lacks what it must tell"
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        problem = str(error)
    if problem:
        raise KpiBackfillError(f"{path} can't be read: {problem}. `kpibackfill verify` says more.", code="record")
    return dict(document)


def receipt_of(folder: Path) -> dict[str, Any]:
    """The receipt in a run's folder; empty where there is none that can be read."""
    try:
        document = json.loads((folder / RECEIPT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) and not folder.is_symlink() else {}


def open_record(runs_dir: Path, run_id: str) -> RunRecord:
    """The record of a run that exists."""
    record = RunRecord(runs_dir, run_id)
    _ = record.receipt
    return record


def as_json(receipt: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What ``run --json`` prints of a finished run."""
    return {
        "run_id": receipt["run_id"],
        "run_dir": str(folder),
        "target": receipt["target"]["name"],
        "state": receipt["state"],
        "apply": receipt["parameters"]["apply"],
        "years": receipt.get("years", {}),
        "total_kpi_rows": receipt.get("total_kpi_rows", 0),
        "plan": receipt.get("plan"),
        "rows": receipt.get("rows", []),
        "notes": receipt.get("notes", []),
    }
