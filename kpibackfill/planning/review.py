"""Writes a run's decisions file for its reviewer, fills it in and checks it, also in a notebook.

The file is where the reviewer works, never in the run's own folder, which is closed; a run that uses it keeps a copy.
"""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpibackfill.archive import files
from kpibackfill.archive.models import ReviewRow
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.archive.runs import resolve_run
from kpibackfill.config import Config, load_config
from kpibackfill.decisions import decisions_file
from kpibackfill.decisions.decisions_file import COLUMNS, ROW_COLUMNS, Decision, Decisions
from kpibackfill.decisions.number_parsing import spelled
from kpibackfill.errors import Refused
from kpibackfill.kpis import registry
from kpibackfill.numbers import FEW, NOT_FOR_PUBLICATION, Unit, amount, too_few
from kpibackfill.reporting import markup
from kpibackfill.reporting.csv_export import MARK, no_formula
from kpibackfill.reporting.rows import SHOWN, Kpis
from kpibackfill.run import decidable
from kpibackfill.text import count

if TYPE_CHECKING:
    import pandas as pd

    from kpibackfill.planning.plan import Plan


@dataclass(frozen=True, repr=False, eq=False)
class Review:
    """A decisions file: its path and its content."""

    path: Path
    frame: pd.DataFrame

    def __repr__(self) -> str:
        return f"{self.path}: {count(len(self.frame), 'row')}"

    def _repr_html_(self) -> str:
        kpis = registry.load()
        here = self.path.resolve().is_relative_to(Path.cwd())
        return markup.render(
            "review",
            path=os.path.relpath(self.path) if here else str(self.path),
            rows=[_shown(line, kpis) for line in self.frame.to_dict("records")],
            decided=sum(text != "" for text in self.frame["decision"]),
        )


def review(run: str | Plan, output: str | Path | None = None, *, config: Config | None = None) -> Review:
    """Write the decisions file of a dry run: one line per planned or unsupported row, for a person to fill in.

    For the plan on screen without `output`, an existing file is returned as it was filled in, or else the file that the
    plan uses; so a notebook with this call can be run again.

    Parameters
    ----------
    run : the dry run's id, the beginning or end of one, or ``latest``; or, in a session, the plan on screen.
    output : where to write it; by default ``decisions-<run>.csv`` in the current folder.
    config : a configuration to use instead of the nearest one.

    Returns
    -------
    Review : `path` and `frame` (a row per line of the file, each cell as text); in a notebook, a table with what is
    decided so far and a link that opens the file.

    Raises
    ------
    Refused : it is not a finished dry run, or the file already exists; nothing was overwritten.
    """
    config = config or load_config()
    if isinstance(run, str):
        run_id = resolve_run(config.runs_dir, run)
        rows, units = _archived(config, run_id)
    else:
        if output is None and run.run.parameters.decisions:
            return _read(run.run.parameters.decisions)
        run_id = run.run.run_id or f"{run.run.target.name}-{run.fingerprint[:8]}"
        rows = [candidate.review_row(run.shown.get(candidate.key)) for candidate in run.candidates]
        units = decidable(config)
    path = Path(output).expanduser() if output else Path.cwd() / f"decisions-{run_id}.csv"
    _refuse_archived(path, config)
    if os.path.lexists(path.resolve()):  # false for a path that is too long: writing it fails
        if output is None and not isinstance(run, str):
            return _read(path)
        raise Refused(f"{path} already exists and was left unchanged; give another output.", code="decisions")
    lines = [_line(row, units.get(row.kpi_id, "")) for row in rows]
    _write(path, _csv(COLUMNS, lines))
    return Review(path, _frame(COLUMNS, lines))


def decide(
    path: str | Path,
    kpi_id: str,
    decision: str,
    *,
    snapshot_id: int | None = None,
    year: int | None = None,
    value: float | None = None,
    reason: str = "",
    reviewer: str = "",
) -> Review:
    """Fill in a decision in a decisions file; a ``set`` adds the file or the line if it is missing.

    Accepting, rejecting or removing a row that the file does not have, for example because it was applied, leaves the
    file unchanged and warns, so a notebook with this call can be run again.

    Parameters
    ----------
    path : the file, as `review` or a spreadsheet wrote it.
    kpi_id : a KPI of the registry, or of the site's ``manual_kpis``.
    decision : ``accept``, ``reject``, ``defer``, ``set`` or ``remove``.
    snapshot_id, year : which row; a ``set`` may give only the year, for all its target snapshots.
    value, reason, reviewer : the value to set (a count, points, or a rate as a fraction), why, and who decided.

    Returns
    -------
    Review : the file as it is now, as `review` returns it.

    Raises
    ------
    Refused : the file would not be accepted with this decision; it was left unchanged.

    Example: ``kb.decide("decisions.csv", "education_nps", "accept", snapshot_id=283, reviewer="Ann")``
    """
    config = load_config()
    path, raw = decisions_file.content(path, new=True)
    _refuse_archived(path, config)
    header, lines, delimiter = decisions_file.table(raw, path.name) if raw else (list(COLUMNS), [], ",")
    header += [name for name in COLUMNS if name not in header]
    given = {"kpi_id": kpi_id, "decision": decision, "reason": reason, "reviewer": reviewer}
    given |= {"value": "" if value is None else spelled(value, decimal_comma=delimiter != ",")}
    key = {"snapshot_id": snapshot_id, "year": year}
    given |= {name: "" if whole is None else str(whole) for name, whole in key.items()}
    meant = [
        line
        for line in lines
        if line.get("kpi_id") == kpi_id
        and decisions_file.same_whole(line.get("snapshot_id", ""), snapshot_id)
        and (snapshot_id is not None or decisions_file.same_whole(line.get("year", ""), year))
    ]
    known = decidable(config)
    on_a_row = decision.lower() in decisions_file.ON_NUMBERS and kpi_id in known and snapshot_id is not None
    if on_a_row and raw and not meant:
        warnings.warn(
            f"{path.name} has no row for snapshot {snapshot_id}, {kpi_id}: there is nothing to decide, "
            "and the file was left unchanged.",
            stacklevel=2,
        )
        return Review(path, _frame(header, lines))
    changed = {name: text for name, text in given.items() if name != "year" or text}
    filled = [{**line, **changed} if line in meant else line for line in lines] + ([] if meant else [given])
    text = _csv(header, filled, delimiter)
    decisions_file.parse(text.encode(), path.name, known)
    _write(path, text)
    return Review(path, _frame(header, filled))


def check_decisions(path: str | Path) -> pd.DataFrame:
    """Read a decisions file as a run would, without a database.

    Parameters
    ----------
    path : the file.

    Returns
    -------
    DataFrame, one row per line that decides anything: `line` (int), `kpi_id`, `decision`, `snapshot_id`, `year`
    (Int64, missing if not given), `value` (float), `reason`, `reviewer`.

    Raises
    ------
    Refused : a line is unknown, incomplete or contradicts another; the message names it.
    """
    import pandas as pd

    found: Decisions = decisions_file.read(path, decidable(load_config()))
    names = [field.name for field in fields(Decision) if field.name != "numbers"]
    frame = pd.DataFrame([[getattr(line, name) for name in names] for line in found.lines], columns=names)
    return frame.astype({"line": "int64", "snapshot_id": "Int64", "year": "Int64", "value": "float64"})


def _read(file: str | Path) -> Review:
    path, raw = decisions_file.content(file)
    header, lines, _ = decisions_file.table(raw, path.name)
    return Review(path, _frame(header, lines))


def _refuse_archived(path: Path, config: Config) -> None:
    if path.resolve().is_relative_to(config.runs_dir):
        raise Refused(f"{path} is in the archive, whose files are closed; name another file.", code="decisions")


def _archived(config: Config, run_id: str) -> tuple[Sequence[ReviewRow], Mapping[str, str]]:
    record = RunRecord(config.runs_dir, run_id)
    receipt = record.receipt
    if receipt.state != "dry_run" or not record.closed:
        raise Refused(f"{run_id} is not a finished dry run; only those can be reviewed.", code="decisions")
    record.require_unaltered()
    return receipt.review, receipt.units


def _line(row: ReviewRow, unit: str) -> dict[str, str]:
    """A row as people read it; the numbers of a rate based on fewer than five people are withheld, as everywhere."""
    line = {name: "" if getattr(row, name) is None else str(getattr(row, name)) for name in ROW_COLUMNS}
    remarks = list(row.warnings)
    if row.computed is not None and unit == "fraction" and too_few("fraction", row.basis):
        line |= {"stored": FEW if line["stored"] else "", "computed": FEW, "basis": FEW, "population": FEW}
        remarks.insert(0, NOT_FOR_PUBLICATION)
    return line | {"remarks": "; ".join(remarks), "numbers": row.numbers}


def _shown(cells: Mapping[str, str], kpis: Kpis) -> dict[str, Any]:
    """A line as people read it; a column that the file lacks is empty."""
    line = {**dict.fromkeys(COLUMNS, ""), **cells}
    kpi = kpis.get(line["kpi_id"])
    unit = kpi.unit if kpi else None
    texts = {f"{name}_text": _amount(line[name], unit) for name in ("stored", "computed", "value")}
    on_page = SHOWN.get(line["shown"], line["shown"])
    return {**line, **texts, "label": kpi.label if kpi else line["kpi_id"], "shown_text": on_page}


def _amount(text: str, unit: Unit | None) -> str:
    """A number of the file in its unit; other text, such as that of a withheld number, unchanged."""
    try:
        return amount(float(text), unit)
    except ValueError:
        return text


def _csv(header: Sequence[str], lines: Iterable[Mapping[str, str]], delimiter: str = ",") -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, delimiter=delimiter, restval="", extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: no_formula(line.get(name, "")) for name in header} for line in lines)
    return MARK + text.getvalue()


def _write(path: Path, text: str) -> None:
    # A link stays one: the file that it leads to is replaced.
    then = "nothing else was changed. Free disk space, grant rights, or name another file."
    files.write(path.resolve(), text, then=then)


def _frame(header: Sequence[str], lines: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([[line.get(name, "") for name in header] for line in lines], columns=list(header), dtype=str)
