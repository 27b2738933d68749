"""The record of one run: its folder, its receipt, and the ledger's lines about it.

The package writes the receipt, never the notebook, and always as a whole. Its ``state`` says what is known to have
happened: ``planned`` (nothing is written yet), ``applying`` (a transaction may be under way), and at the end
``dry_run``, ``applied``, ``refused`` or ``failed``. A closed receipt is never changed.
"""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kpibackfill.archive import files, ledger, provenance
from kpibackfill.archive.models import (
    RUN_ID,
    Archived,
    AskedParameters,
    AskedTarget,
    Begun,
    Closed,
    Document,
    End,
    Event,
    Guards,
    PlanDocument,
    Receipt,
    Settled,
    Settlement,
    StartedBy,
    read,
)
from kpibackfill.config import Config, Target, masked_url, web_address
from kpibackfill.errors import KpiBackfillError, Refused
from kpibackfill.parameters import Parameters, system_user

RECEIPT, PLAN, DECISIONS, SETTLEMENT = "receipt.json", "plan.json", "decisions.csv", "settlement.json"
DRIFT, NOTEBOOK, REPORT, SUMS = "drift.csv", "notebook.ipynb", "report.html", "SHA256SUMS"
INDEX = "index.html"
"""In the folder of all runs; it is generated from the ledger, and is not evidence."""
# The key of the run's id in the metadata of an output of its notebook.
RUN_METADATA = "kpibackfill"
_RUN_ID = re.compile(RUN_ID[1:-1])


class RunRecord:
    """A handle on the folder ``runs/<run id>/``; all that it knows is on disk."""

    def __init__(self, runs_dir: Path, run_id: str) -> None:
        if not is_run_id(run_id):
            raise Refused(
                f"{run_id!r:.80} is not a full run id, which is required here; nothing was written. "
                "`kpibackfill runs` lists them.",
                code="run_id",
            )
        self.runs_dir = runs_dir
        self.run_id = run_id
        self.folder = runs_dir / run_id
        if self.folder.is_symlink():
            raise Refused(
                f"{self.folder} is a link, which may lead out of the archive; nothing was read. "
                "Run `kpibackfill verify` for details.",
                code="altered",
            )

    @classmethod
    def create(cls, config: Config, target: Target, parameters: Parameters, started_by: StartedBy) -> RunRecord:
        """Create the folder, the first receipt and the ledger's line ``begun``."""
        began = datetime.now(UTC)
        years = "-".join(dict.fromkeys([f"{parameters.from_year}", f"{parameters.to_year}"]))
        kind = "apply" if parameters.apply else "dry-run"
        run_id = f"{began:%Y%m%dT%H%M%SZ}-{target.name}-{years}-{kind}-{secrets.token_hex(3)}"
        record = cls(config.runs_dir, run_id)
        files.make_folder(record.runs_dir)
        files.make_folder(record.folder)
        receipt = Receipt(
            run_id=run_id,
            state="planned",
            error=None,
            started_at=began.isoformat(timespec="seconds"),
            ended_at=None,
            started_by=started_by,
            parameters=AskedParameters(**parameters.as_notebook()),
            notes=parameters.notes,
            reason=parameters.reason,
            operator=parameters.operator,
            system_user=system_user(),
            host=socket.gethostname(),
            target=AskedTarget(
                name=target.name,
                store=masked_url(target.store_url),
                sources=masked_url(target.sources_url),
                timezone=target.timezone,
                dashboards=web_address(target.dashboards),
                **dict(guards(target)),
            ),
            site=config.site.model_dump(mode="json"),
            code=provenance.code(),
            versions=provenance.versions(),
        )
        record.write(RECEIPT, receipt)
        ledger.append(record.runs_dir, Begun.of(receipt))
        return record

    @property
    def receipt(self) -> Receipt:
        """The receipt as it is on disk.

        Raises
        ------
        Refused : there is no such run, or the receipt can't be read because it was altered.
        KpiBackfillError : the receipt can't be read.
        """
        try:
            return _document(self.folder / RECEIPT, Receipt)
        except FileNotFoundError:
            raise Refused(f"There is no run {self.run_id} in {self.runs_dir}.", code="unknown_run") from None
        except KpiBackfillError:
            if self.sealed:
                self.require_unaltered()
            raise

    @property
    def closed(self) -> bool:
        return self.receipt.ended_at is not None

    @property
    def settlement(self) -> Settlement | None:
        """What was found out about a run that was cut off while it was writing; ``None`` if nobody settled it."""
        path = self.folder / SETTLEMENT
        return _document(path, Settlement) if path.is_file() else None

    def add(self, name: str, content: bytes | str) -> None:
        """Add a file to the run, before the run is closed."""
        files.write(self.folder / name, content)

    def write(self, name: str, document: Receipt | PlanDocument) -> None:
        """Add or replace a JSON document of the run."""
        files.write(self.folder / name, files.readable(document.as_json()))

    def update(self, **members: Any) -> None:
        """Update members of the receipt, unless someone has settled the run in the meantime."""
        receipt = self.receipt
        if receipt.ended_at is not None:
            raise AssertionError(f"{self.run_id} is closed")
        with ledger.writing(self.runs_dir):
            if not self.sealed:
                self.write(RECEIPT, receipt.changed(**members))

    @property
    def sealed(self) -> bool:
        """Whether a line of the ledger says how the run ended."""
        return any(isinstance(event, End) for event in self.events())

    def events(self) -> list[Event]:
        """The ledger's events of the run."""
        return list(ledger.events(self.runs_dir, self.run_id))

    @property
    def altered(self) -> str:
        """Which file of the run differs from the ledger, in a few words; empty if none does."""
        sealed = {name: digest for event in self.events() for name, digest in event.files.items()}
        documents = [name for name in (RECEIPT, PLAN) if (self.folder / name).exists()]
        for name in [*documents, *sealed]:
            path = self.folder / name
            if name not in sealed:
                problem = "is not in any intact line of the ledger"
            elif not path.is_file():
                problem = "was removed since it was archived"
            elif files.sha256(path) != sealed[name]:
                problem = "was altered since it was archived"
            else:
                continue
            return f"{self.run_id}/{name} {problem}"
        return ""

    def require_unaltered(self) -> None:
        """Refuse a run whose files are not those that the ledger lists.

        Raises
        ------
        Refused : a file is missing or altered, or nothing vouches for it; the message names it.
        """
        if problem := self.altered:
            raise Refused(f"{problem}; nothing was written. Run `kpibackfill verify` for details.", code="altered")

    def seal(self, event: Closed | Settled | Archived, names: Iterable[str], adding: Mapping[str, str]) -> None:
        """Add files of the run's folder to ``SHA256SUMS`` and, with the event, to the ledger.

        Both are written under the ledger's lock, so anyone who holds it finds them in agreement. A run ends once and
        gets its notebook once: if another process was faster, nothing is done.

        Parameters
        ----------
        names : files that are already in the folder.
        adding : files to write, by name, under the same lock.
        """
        with ledger.writing(self.runs_dir) as book:
            once = (Closed, Settled) if isinstance(event, Closed | Settled) else type(event)
            if any(isinstance(earlier, once) for earlier in self.events()):
                return
            existing = sorted(name for name in names if name != SUMS and name[0] != ".")
            added = {name: files.sha256(self.folder / name) for name in existing}
            added |= {name: files.write(self.folder / name, content) for name, content in adding.items()}
            path = self.folder / SUMS
            sums = digests_of(path.read_text(encoding="utf-8")) if path.is_file() else {}
            digest = files.write(path, sum_lines(sums | added))
            book.append(event.changed(files={**added, SUMS: digest}))


def guards(target: Target) -> Guards:
    """What an apply to the target requires, as a receipt's ``target`` has it."""
    return Guards(wants_approval=target.wants_approval, four_eyes=target.four_eyes)


def sum_lines(digests: Mapping[str, str]) -> str:
    """The text of ``SHA256SUMS``, as ``sha256sum -c`` reads it."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def digests_of(sums: str) -> dict[str, str]:
    """The digests in the text of ``SHA256SUMS``, by file name."""
    return {name: digest for digest, _, name in (line.partition("  ") for line in sums.splitlines())}


def is_run_id(text: str) -> bool:
    return _RUN_ID.fullmatch(text) is not None


def _document(path: Path, model: type[Document]) -> Document:
    """Read a JSON document of a run's folder; raise FileNotFoundError if it does not exist."""
    try:
        return read(model, path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise KpiBackfillError(
            f"{path} can't be read: {error}. Run `kpibackfill verify` for details.", code="record"
        ) from None


def receipt_of(folder: Path) -> Receipt | None:
    """The receipt in a run's folder; ``None`` if there is none that can be read."""
    try:
        return None if folder.is_symlink() else read(Receipt, (folder / RECEIPT).read_bytes())
    except (OSError, ValueError):
        return None


def open_record(runs_dir: Path, run_id: str) -> RunRecord:
    """Open the record of an existing run."""
    record = RunRecord(runs_dir, run_id)
    _ = record.receipt
    return record


def as_json(receipt: Receipt, folder: Path) -> dict[str, Any]:
    """What ``run --json`` prints about a finished run."""
    members = receipt.changed(**{name: getattr(receipt, name) for name in _PRINTED}).as_json()
    return {
        "run_id": receipt.run_id,
        "run_dir": str(folder),
        "target": receipt.target.name,
        "state": receipt.state,
        "apply": receipt.parameters.apply,
        **{name: members[name] for name in _PRINTED},
    }


_PRINTED = ("kpi_id_prefix", "years", "total_kpi_rows", "plan", "rows", "page", "page_after", "notes")
