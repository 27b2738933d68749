"""Following the pages of the documentation, step by step on the demo, ends as they say."""

from __future__ import annotations

import csv
import getpass
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import kpibackfill as kb
from kpibackfill.demo import build_demo
from tests.pages import ROOT, blocks, configure, shown_commands, text_of

pytestmark = pytest.mark.slow
README = (ROOT / "README.md").read_text(encoding="utf-8")
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith(("KPIBACKFILL", "JPY"))}
"""The environment of a terminal, wherever the tests were started."""


def of(page: str, language: str) -> list[str]:
    """The page's blocks in that language."""
    return [block.text for block in blocks(page) if block.language == language]


def typed(folder: Path, text: str) -> str:
    """What a block of commands prints in a terminal; ``pip install`` is left out."""
    lines = [line for line in text.splitlines() if "pip install" not in line]
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e"],
        input="\n".join(lines),
        cwd=folder,
        env=OUTSIDE | {"PATH": path, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def last_run(folder: Path) -> str:
    return max((folder / "runs").glob("2*"), key=os.path.getmtime).name


def test_the_readme_leads_to_a_report(tmp_path: Path) -> None:
    printed = typed(tmp_path, next(text for text in of(README, "console") if "pip install" in text))
    assert "Dry run: nothing was written." in printed
    assert (tmp_path / "kpis" / "runs" / last_run(tmp_path / "kpis") / "report.html").is_file()


def test_plain_papermill_works_as_the_readme_says(tmp_path: Path) -> None:
    configure(tmp_path, next(text for text in of(README, "toml") if "[targets.dev]" in text))
    typed(tmp_path, "kpibackfill notebooks notebooks")
    typed(tmp_path, next(text for text in of(README, "console") if "out.ipynb" in text))
    assert (tmp_path / "runs" / last_run(tmp_path) / "notebook.ipynb").is_file()


def test_papermill_applies_with_the_types_of_the_page_on_parameters(tmp_path: Path) -> None:
    typed(tmp_path, "kpibackfill notebooks . && kpibackfill demo")
    typed(tmp_path, of(text_of("parameters.md"), "console")[0])
    receipt = json.loads((tmp_path / "runs" / last_run(tmp_path) / "receipt.json").read_bytes())
    assert receipt["state"] == "applied"


def test_values_are_set_by_hand(tmp_path: Path) -> None:
    page = text_of("hand-managed-values.md")
    (manual,) = of(page, "toml")
    configure(tmp_path, f"[targets.live]\nstore = ''\n{manual}")
    (tmp_path / "by-hand.csv").write_text(of(page, "csv")[0], encoding="utf-8")
    dry_run, apply = of(page, "console")[0].splitlines()
    assert "The plan has 2 rows" in typed(tmp_path, dry_run)
    assert "2 rows written" in typed(tmp_path, apply.replace("RUN", last_run(tmp_path)))


def test_a_copy_is_made_and_verified(tmp_path: Path) -> None:
    page = text_of("keeping-a-copy.md")
    typed(tmp_path, "kpibackfill notebooks . && kpibackfill demo && kpibackfill run --from-year 2024 --apply")
    verified = typed(tmp_path, of(page, "console")[0])
    (head,) = re.findall(r"Head: (\w{64})", verified)
    remote = tmp_path / "bin" / "aws"
    remote.parent.mkdir()
    remote.write_text("#!/bin/sh\ncp -r runs restored/\n", encoding="utf-8")
    remote.chmod(0o700)
    typed(tmp_path, of(page, "sh")[-1])
    for text in of(page, "console")[1:]:
        assert typed(tmp_path, text.replace("DIGEST", head))


def test_the_cells_for_a_session_without_the_password_lead_to_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = text_of("connecting.md")
    configure(tmp_path, next(text for text in of(page, "toml") if "kpi_writer" in text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEV_DB_PASSWORD", "another")
    monkeypatch.setattr(getpass, "getpass", lambda: "choose-a-password")
    asks, checks = of(page, "python")
    exec(asks)
    assert os.environ["DEV_DB_PASSWORD"] == "choose-a-password"
    (call,) = [line for line in checks.splitlines() if line.startswith("kb.")]
    assert of(page, "text")[0].removeprefix("ok").strip() in set(eval(call)["text"])


def test_a_decision_is_made_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, "[targets.demo]\nstore = ''\n")
    monkeypatch.chdir(tmp_path)
    build_demo(tmp_path / "demo.sqlite", until_year=2025)
    run = kb.begin(target="demo", from_year=2018)
    plan = kb.make_plan(run, kb.compare(kb.compute_kpis(run)))
    names: dict[str, Any] = {"kb": kb, "plan": plan}
    exec(of(text_of("reviewing.md"), "python")[0], names)
    with Path(names["review"].path).open(encoding="utf-8-sig", newline="") as file:
        decided = [row for row in csv.DictReader(file) if row["decision"]]
    assert [(row["snapshot_id"], row["kpi_id"], row["decision"]) for row in decided] == [
        ("103", "education_nps", "remove")
    ]


def test_the_comparison_finds_what_its_page_says(tmp_path: Path) -> None:
    page = text_of("comparison.md")
    (tmp_path / "venv").symlink_to(sys.prefix)
    ours, _, papermills, *_ = of(page, "bash")
    build_demo(tmp_path / "demo.sqlite", until_year=2025)  # the page's, also after this year
    printed = typed(tmp_path, ours.replace(" && venv/bin/kpibackfill demo", ""))
    shown, why, frame = of(page, "text")[:3]
    assert shown in printed
    assert " ".join(why.split()) in printed
    computed, stored = of(page, "sql")[:2]
    with closing(sqlite3.connect(tmp_path / "demo.sqlite")) as demo:
        differ = dict(demo.execute(computed).fetchall()).items() ^ dict(demo.execute(stored).fetchall()).items()
    in_run = re.findall(r"(?m)^\d{4} +(\d+) .* (?:changed|new) ", printed)
    assert {str(snapshot_id) for snapshot_id, _ in differ} == set(in_run)
    for name, text in (("computed.sql", computed), ("stored.sql", stored), ("compare.py", of(page, "python")[0])):
        (tmp_path / name).write_text(text, encoding="utf-8")
    typed(tmp_path, papermills)
    cells = json.loads((tmp_path / "out.ipynb").read_bytes())["cells"]
    texts = [output["data"]["text/plain"] for cell in cells for output in cell["outputs"] if "data" in output]
    assert " ".join(frame.split()) in " ".join("".join(texts[-1]).split())


def test_the_workflow_of_the_first_live_run_works_as_it_stands(tmp_path: Path) -> None:
    page = text_of("first-live-run.md")
    configure(tmp_path, next(text for text in of(README, "toml") if "[targets.dev]" in text))
    steps = list(shown_commands(page))
    in_readme = [arguments for arguments in shown_commands(README) if "dev" in arguments]
    assert [arguments for arguments in steps if arguments in in_readme] == in_readme

    run_id, ended = "", []
    for arguments in steps:
        if arguments[0] in ("explain", "revert"):
            continue
        typed(tmp_path, shlex.join(["kpibackfill", *arguments]).replace("RUN_ID", run_id))
        if arguments[0] == "run":
            run_id = last_run(tmp_path)
            receipt = json.loads((tmp_path / "runs" / run_id / "receipt.json").read_bytes())
            ended.append((receipt["target"]["name"], receipt["state"], receipt["plan"]["rows"] > 0))
    assert ended == [
        ("dev", "dry_run", True),
        ("dev", "applied", True),
        ("dev", "dry_run", False),
        ("dev", "dry_run", True),
        ("live", "dry_run", True),
        ("live", "applied", True),
    ]
    live = next(path.name for path in (tmp_path / "runs").glob("*-live-2024-dry-run-*"))
    typed(tmp_path, shlex.join(["python", "-c", of(page, "python")[0].replace("RUN_ID", live)]))


def test_the_scheduled_script_notifies_someone_when_rows_differ(tmp_path: Path) -> None:
    configure(tmp_path, "[targets.live]\nstore = ''\n", until_year=None)  # the script asks for last year
    page = text_of("scheduling.md")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    script = of(page, "sh")[0]
    for path, text in (
        (tmp_path / "bin" / "mail", '#!/bin/sh\necho "$2" > sent\n'),
        (tmp_path / "passwords.env", "export LIVE_DB_PASSWORD='x'\n"),
        (tmp_path / "nightly.sh", script.replace("/home/ann/kpis", str(tmp_path))),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o700)
    typed(tmp_path, "sh nightly.sh")
    assert (tmp_path / "sent").read_text() == "KPI rows differ from what is computed\n"
    assert "The plan has" in (tmp_path / "nightly.log").read_text()
