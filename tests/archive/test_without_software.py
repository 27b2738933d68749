"""What docs/reading-the-archive.md shows works as shown, without this package."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pymysql  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa

from kpibackfill.archive import ledger
from kpibackfill.archive.verify import verify
from tests.archives import approved
from tests.workbench import Workbench

PAGE = Path(__file__).parents[2] / "docs" / "reading-the-archive.md"


def shown(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def python(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the page's script of that name; -I and -S keep installed packages out."""
    (source,) = (text for text in shown("python") if text.startswith(f"# {name}\n"))
    command = [sys.executable, "-I", "-S", "-c", source, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def applied(runs_dir: Path) -> Path:
    return next(runs_dir.glob("*apply*"))


def test_the_chain_is_recomputed_to_the_head_that_verify_prints(runs_dir: Path) -> None:
    assert python("check_ledger.py", runs_dir.parent).stdout.strip() == verify(runs_dir).head
    path = runs_dir / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b"the yearly backfill", b"the yearly backfall", 1))
    assert "was altered" in python("check_ledger.py", runs_dir.parent).stderr


def test_a_line_that_a_crash_cut_off_does_no_harm(runs_dir: Path) -> None:
    path = runs_dir / "ledger.jsonl"
    path.write_bytes(path.read_bytes() + b'{"schema": 1, "at": "20')
    ledger.append(runs_dir, approved(applied(runs_dir).name, by="Bea", note="seen"))
    cut = len(path.read_bytes().splitlines()) - 1
    ended = python("check_ledger.py", runs_dir.parent)
    assert ended.stdout.splitlines()[0].startswith(f"line {cut} was cut off")
    assert ended.stdout.splitlines()[-1] == verify(runs_dir).head, ended.stderr
    assert "files are as the ledger says" in python("check_files.py", runs_dir.parent).stdout
    test_each_jq_line_answers(runs_dir)


def test_the_files_are_held_against_the_ledger(runs_dir: Path) -> None:
    assert python("check_files.py", runs_dir.parent).stdout == "17 files are as the ledger says\n"
    (applied(runs_dir) / "drift.csv").write_text("")
    assert "drift.csv was altered" in python("check_files.py", runs_dir.parent).stderr


def test_the_plans_fingerprint_is_recomputed(runs_dir: Path) -> None:
    path = applied(runs_dir) / "plan.json"
    plan = json.loads(path.read_bytes())
    assert python("check_plan.py", runs_dir, str(path)).stdout.strip() == plan["fingerprint"]
    plan["rows"][0]["value_f4"] += 1
    path.write_text(json.dumps(plan))
    assert "the plan was altered" in python("check_plan.py", runs_dir, str(path)).stderr


def test_the_fingerprint_of_the_groups_is_recomputed_by_the_bare_driver(bench: Workbench) -> None:
    (source,) = (text for text in shown("python") if text.startswith("# fingerprint.py\n"))
    names: dict[str, Any] = {}
    exec(source, names)
    receipt = bench.finish(include_risky=True)
    with closing(bare_driver(bench.database.url)) as connection:
        cursor = connection.cursor()
        for entry in receipt["kpis"]:
            for query in entry["queries"]:
                cursor.execute(query["sql"], query["parameters"])
                assert names["fingerprint"](cursor.fetchall()) == query["fingerprint"], entry["kpi_id"]


def bare_driver(text: str) -> Any:
    """A connection of the driver itself, as someone without this software opens one."""
    url = sa.make_url(text)
    server: dict[str, Any] = {"host": url.host, "port": url.port, "user": url.username, "password": url.password or ""}
    if url.get_backend_name() == "sqlite":
        return sqlite3.connect(str(url.database))
    if url.get_backend_name() == "postgresql":
        return psycopg.connect(dbname=url.database, **server)
    return pymysql.connect(database=url.database, **server)


def test_the_digest_of_the_cells_is_recomputed(runs_dir: Path) -> None:
    events = [json.loads(line) for line in (runs_dir / "ledger.jsonl").read_bytes().splitlines()]
    (archived,) = (e for e in events if e["event"] == "archived" and e["run_id"] == applied(runs_dir).name)
    notebook = applied(runs_dir) / "notebook.ipynb"
    assert python("check_cells.py", runs_dir, str(notebook)).stdout.strip() == archived["cells"]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_each_runs_sums_are_what_sha256sum_expects(runs_dir: Path) -> None:
    for folder in runs_dir.glob("2*"):
        checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        assert len(checked.stdout.splitlines()) == len(list(folder.iterdir())) - 1


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq")
def test_each_jq_line_answers(runs_dir: Path) -> None:
    run = applied(runs_dir).name
    lines = [line for text in shown("sh") for line in text.splitlines() if line.startswith("jq ")]
    assert len(lines) == 5
    for line in lines:
        ended = subprocess.run(
            line.replace("runs/RUN", f"runs/{run}"), shell=True, cwd=runs_dir.parent, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout or "approved" in line, line
