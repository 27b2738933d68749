"""What the archive's commands print for people: tables and lines; each value from the archive stays on its line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kpibackfill.archive.diff import RowDifference, RunDifference
from kpibackfill.archive.history import RecordedChange, origin_of, published_change
from kpibackfill.archive.runs import RunSummary
from kpibackfill.archive.verify import Verdict
from kpibackfill.numbers import Unit, published, too_few
from kpibackfill.reporting.sentences import state_words
from kpibackfill.text import count, one_line


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> list[str]:
    """Lines of a table with columns as wide as what is in them."""
    cells = [list(heads), *([one_line(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    signs = [">" if at in set(right) else "<" for at in range(len(heads))]
    return [
        "  ".join(f"{text:{sign}{width}}" for text, sign, width in zip(line, signs, widths, strict=True)).rstrip()
        for line in cells
    ]


def pairs(values: Mapping[str, object]) -> list[str]:
    """Lines of names and values."""
    width = max(map(len, values), default=0)
    return [f"  {name:{width}}  {one_line(value)}" for name, value in values.items()]


def runs_text(runs: Sequence[RunSummary]) -> str:
    if not runs:
        return "No runs match."
    rows = [
        (run.run_id, state_words(run.state, run.settled), run.planned, run.written, run.operator, _remarks(run))
        for run in runs
    ]
    return "\n".join(table(["run", "state", "planned", "written", "operator", ""], rows, right=(2, 3)))


def _remarks(run: RunSummary) -> str:
    found = [
        f"“{run.reason}”" if run.reason else "",
        f"reverts {run.revert_of}" if run.revert_of else "",
        *(f"approved by {approval.by}" for approval in run.approvals),
        f"notebook {run.notebook}" if run.notebook != "as shipped" else "",
    ]
    return "; ".join(filter(None, found))


def history_text(changes: Sequence[RecordedChange]) -> str:
    if not changes:
        return "No run has written a matching row."
    rows = [
        (
            change.at[:16].replace("T", " "),
            change.year,
            change.snapshot_id,
            change.kpi_id,
            change.action,
            *published_change(change),
            change.run_id,
            change.operator,
            "; ".join(filter(None, [origin_of(change), change.reason])),
        )
        for change in changes
    ]
    heads = ["when (UTC)", "year", "snapshot", "KPI", "action", "from", "to", "run", "operator", "reason"]
    return "\n".join(table(heads, rows, right=(2, 5, 6)))


def diff_text(found: RunDifference) -> str:
    """What differs between two runs: rows and why first, then parameters, code, SQL and packages."""
    one, other = found.runs
    lines = [
        f"one    {one_line(one)}",
        f"other  {one_line(other)}",
        "",
        f"{count(found.compared, 'row')} in both, {len(found.rows):,} of them different.",
    ]
    if found.rows:
        rows = [
            (
                row.year,
                row.snapshot_id,
                row.kpi_id,
                *_amounts(row, row.computed, found.units.get(row.kpi_id)),
                *_amounts(row, row.stored, found.units.get(row.kpi_id)),
                row.why,
            )
            for row in found.rows
        ]
        heads = ["year", "snapshot", "KPI", "computed: one", "other", "stored: one", "other", "why"]
        lines += table(heads, rows, right=(1, 3, 4, 5, 6))
    for only, name in zip(found.only, ("one", "other"), strict=True):
        if only:
            lines.append(f"{count(len(only), 'row')} only in {name}.")
    for title in ("parameters", "settings", "databases", "packages"):
        if differing := getattr(found, title):
            rows_ = [(name, *("–" if value is None else value for value in pair)) for name, pair in differing.items()]
            lines += ["", *table([title.capitalize(), "one", "other"], rows_)]
    code = found.code
    lines += ["", "The code is the same." if code.same else "The code is not the same:"]
    if not code.same:
        commits = zip(code.git_commit, code.modified, strict=True)
        texts = (f"{commit or 'no checkout'} ({count(len(files), 'file')} modified)" for commit, files in commits)
        lines += pairs(dict(zip(("one", "other"), texts, strict=True)))
    heads = ["KPI", "definition", "SQL", "bound values", "groups returned"]
    rows_ = [(kpi_id, kpi.definition, kpi.sql, kpi.bound_values, kpi.result) for kpi_id, kpi in found.kpis.items()]
    return "\n".join([*lines, "", *table(heads, rows_)])


def _amounts(row: RowDifference, pair: tuple[float | None, float | None], unit: Unit | None) -> list[str]:
    """The two values as people read them; both are withheld where one rests on too few people."""
    basis = next((basis for basis in row.basis if too_few(unit, basis)), None)
    return [published(value, unit, basis) for value in pair]


def verify_text(verdict: Verdict) -> str:
    """Findings, notes, and the head digest to keep elsewhere."""
    lines = [*(f"FINDING  {one_line(finding)}" for finding in verdict.findings)]
    lines += [f"note     {one_line(note)}" for note in verdict.notes]
    found = count(len(verdict.findings), "finding") if verdict.findings else "all match the ledger"
    looked = f"{count(verdict.lines, 'line')}, {count(verdict.runs, 'run')}, {count(verdict.files, 'file')}"
    lines.append(f"Checked {looked}: {found}.")
    if verdict.target is not None and verdict.rows is not None and verdict.recorded is not None:
        recorded, rows = count(verdict.recorded, "row"), count(verdict.rows, "row")
        lines.insert(-1, f"Checked {verdict.target}: {recorded} on record compared with the {rows} of its table.")
    return "\n".join([*lines, f"Head: {verdict.head or 'none'}"])
