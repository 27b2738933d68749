"""Nothing that is read is ever run, nothing leaves the folder of runs, and nobody else reads what is in it."""

from __future__ import annotations

import os
import re
import stat
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kpibackfill.archive.run_record import RunRecord
from kpibackfill.cli import main as _main  # noqa: F401  the commands are there
from kpibackfill.config import load_config
from kpibackfill.errors import KpiBackfillError, Refused
from tests.databases import connect, on
from tests.faults import tally
from tests.workbench import Workbench

MARKS = "MARK'%s\"; DROP TABLE ms_snapshot; --"


def test_no_value_of_the_data_appears_in_a_statement(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at every statement that an apply and a second one send, with texts that would break out of quotes."""
    with connect(bench.database.url) as connection:
        table = sa.table("ms_snapshot", sa.column("id"), sa.column("source"))
        connection.execute(sa.update(table).values(source=MARKS[:32]).where(table.c.id == 273))
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        sent.append((statement, parameters))

    bench.configure(site={"attendance_label": MARKS, "workshop_word": MARKS, "evaluation_webform": MARKS[:32]})
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        receipt = bench.finish(apply=True, reason=MARKS, operator=MARKS, from_year=2024, include_risky=True)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert receipt["state"] == "applied"
    written = {row["after"] for row in receipt["written"]["rows"]}
    assert len(sent) > 10
    for statement, _ in sent:
        assert "MARK" not in statement
        assert receipt["run_id"] not in statement
        assert not any(repr(value) in statement for value in written if value not in (0.0, 1.0))
        assert "DROP" not in statement
    assert any("MARK" in repr(parameters) for _, parameters in sent)
    tally.add("statements looked at", bench.database.name, "", len(sent))


@on("sqlite")
@pytest.mark.parametrize(
    "run_id", ["../x", "/etc/passwd", "..", "", ".", "a/b", "20260101T000000Z-a-2024-apply-000000/../..", "x\0y"]
)
def test_a_run_id_does_not_leave_the_folder_of_runs(bench: Workbench, run_id: str) -> None:
    with pytest.raises(Refused, match="not a full run id"):
        RunRecord(bench.config.runs_dir, run_id)
    bench.config.runs_dir.mkdir()
    if "\0" not in run_id:
        for command in ("show", "settle", "approve", "revert", "replay"):
            options = ["--note", "x"] if command == "approve" else []
            result = bench.command(command, run_id, *options)
            assert result.exit_code == 2, (command, result.output)
            assert "Traceback" not in result.output
    assert list(bench.config.runs_dir.iterdir()) == []


@on("sqlite")
def test_only_after_apply_and_kpi_modules_run_code(bench: Workbench, tmp_path: Path) -> None:
    """`after_apply` is no shell's, and nothing else of the configuration is evaluated, templated or imported."""
    witness = tmp_path / "witness"
    payload = f"$(touch {witness}); `touch {witness}` {{{{ 7*7 }}}} __import__('os').system('touch {witness}')"
    bench.configure(
        after_apply=["/bin/echo", payload],
        dashboards=f"javascript:{payload}",
        site={"attendance_label": payload, "workshop_word": payload, "manual_kpis": [payload]},
    )
    receipt = bench.finish(apply=True, from_year=2024, kpis="education_nps", reason="{{ 7*7 }}")
    assert receipt["state"] == "applied"
    assert not witness.exists()
    (folder,) = bench.runs
    page = (folder / "report.html").read_text()
    assert re.search(r"""(href|src)=["']?\s*javascript""", page, flags=re.IGNORECASE) is None
    assert receipt["reason"] == "{{ 7*7 }}"
    assert "{{ 7*7 }}" in unescape(page)


@on("sqlite")
def test_a_missing_module_is_reported(bench: Workbench) -> None:
    before = set(sys.modules)
    bench.configure(site={"kpi_modules": ["no_such_module_of_ours"]})
    with pytest.raises(KpiBackfillError):
        bench.steps()
    assert "no_such_module_of_ours" not in set(sys.modules) - before


@on("sqlite")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_runs_files_are_its_owners_whatever_the_umask(bench: Workbench, mask: int) -> None:
    path = bench.folder / "decisions.csv"
    path.write_text("kpi_id,decision,year,value,reason,reviewer\neducation_nps,set,2024,12.5,why,ada\n")
    path.chmod(0o644)
    before = os.umask(mask)
    try:
        bench.finish(apply=True, from_year=2024, kpis="education_nps", decisions=str(path))
    finally:
        os.umask(before)
    for found in [bench.config.runs_dir, *bench.config.runs_dir.rglob("*")]:
        assert stat.S_IMODE(found.stat().st_mode) == (0o700 if found.is_dir() else 0o600), found


@on("sqlite")
def test_a_symbolic_link_in_the_folder_of_runs_is_not_written_through(bench: Workbench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    bench.finish(apply=False, from_year=2024, kpis="education_nps")
    index = bench.config.runs_dir / "index.html"
    index.unlink()
    index.symlink_to(outside)
    bench.finish(apply=False, from_year=2024, kpis="education_nps")
    assert outside.read_text() == "untouched"
    assert load_config().runs_dir == bench.config.runs_dir
