"""The pages on explaining and on adding a KPI: their code blocks run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kpibackfill.demo import build_demo

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Language, file and text of each block, in order."""
    return [(found[1], found[2] or "", found[3]) for found in BLOCK.finditer((DOCS / page).read_text("utf-8"))]


def shell(command: list[str], folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KPIBACKFILL", "JPY"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def follow(page: str, folder: Path) -> dict[str, str]:
    """Do what the page says, in the folder; returns what each command printed."""
    printed = {}
    for language, name, text in blocks(page):
        if name:
            with (folder / name).open("a", encoding="utf-8") as file:
                file.write(("\n\n" if file.tell() else "") + text)
        elif language == "console":
            for command in text.splitlines():
                printed[command] = shell([sys.executable, "-m", *shlex.split(command)], folder)
    return printed


@pytest.mark.slow
def test_the_page_on_adding_a_kpi_ends_with_a_kpi_that_is_listed_computed_explained_and_tested(tmp_path: Path) -> None:
    printed = follow("adding-a-kpi.md", tmp_path)
    assert "events_held" in printed["kpibackfill kpis"]
    run = printed["kpibackfill run --from-year 2022 --to-year 2024 --kpis events_held"]
    assert sum(" new " in line for line in run.splitlines()) == 4
    assert "The plan has" in run
    explained = printed["kpibackfill explain events_held --year 2024"]
    assert "inactive" in explained
    assert "is wrong" not in explained
    code = "\n".join(text for language, name, text in blocks("adding-a-kpi.md") if language == "python" and not name)
    assert shell([sys.executable, "-c", code], tmp_path).strip() in (DOCS / "adding-a-kpi.md").read_text("utf-8")
    tested = shell([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_our_kpis.py"], tmp_path)
    assert "1 passed" in tested


def test_the_page_on_explaining_quotes_what_the_demo_shows(tmp_path: Path) -> None:
    (tmp_path / "kpibackfill.toml").write_text('[targets.demo]\nstore = "sqlite:///demo.sqlite"\n', "utf-8")
    build_demo(tmp_path / "demo.sqlite", until_year=2025)
    code = "\n".join(text for language, _, text in blocks("explaining.md") if language == "python")
    printed = shell([sys.executable, "-c", f"{code}\nprint(detection)\nprint(explanation)"], tmp_path)
    page = " ".join((DOCS / "explaining.md").read_text("utf-8").replace("\n> ", " ").split())
    assert printed.splitlines()[0] in page
    assert (tmp_path / "waterfall.png").read_bytes().startswith(b"\x89PNG")
    rests = re.search(r"based on (314 of 526 registrations that count)", printed)
    looked_at = re.search(r"all registrations for events in the period +(600)", printed)
    assert rests
    assert looked_at
    assert rests[1] in page
    assert f"here {looked_at[1]} registrations" in page
    assert follow("explaining.md", tmp_path)["kpibackfill explain workshop_attendees --year 2020"] in printed
