"""The real command and plain papermill, ended from outside or by a cell: the record never says what did not happen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kpibackfill.archive.provenance import notebook_path
from kpibackfill.archive.run_record import RunRecord, receipt_of
from tests.databases import dump
from tests.faults import tally
from tests.faults.harness import FEW, Site
from tests.faults.proxy import Proxy, commits
from tests.servers import PASSWORD

pytestmark = [pytest.mark.faults, pytest.mark.slow]
on_one = pytest.mark.parametrize("site", ["postgresql"], indirect=True)
OPTIONS = [f"--{name.replace('_', '-')}={value}" if value is not True else f"--{name}" for name, value in FEW.items()]


def command(site: Site, *options: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kpibackfill", "run", *options],
        cwd=site.folder,
        env=os.environ | {"FAULTS_PASSWORD": PASSWORD},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_take_interrupts,
        **more,
    )


def _take_interrupts() -> None:
    """Python leaves Ctrl-C ignored if it started so, as under a shell that runs the tests in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def at_commit(site: Site, strike: Callable[[subprocess.Popen[str]], None]) -> tuple[subprocess.Popen[str], str]:
    """`kpibackfill run`, struck while its commit is held back on the way; then the commit goes on."""
    assert site.server is not None
    with Proxy(site.server.port, commits, "freeze") as proxy:
        site.configure(proxy.port)
        process = command(site, *OPTIONS)
        assert proxy.struck.wait(120), process.communicate(timeout=300)
        strike(process)
        time.sleep(0.5)
        proxy.thaw()
        _, err = process.communicate(timeout=120)
        site.configure()
        return process, err


def kernels(pid: int) -> list[int]:
    """The kernel that a command has started, by /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            arguments = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and b"ipykernel" in arguments:
            found.append(int(path.parent.name))
    return found


def only_run(site: Site) -> str:
    folders = [path.name for path in site.config.runs_dir.glob("2*")]
    assert len(folders) == 1
    return folders[0]


@on_one
@pytest.mark.parametrize(
    "blow", ["kernel SIGKILL", "papermill SIGKILL", "papermill SIGTERM", "papermill SIGINT", "papermill SIGHUP"]
)
def test_a_run_that_is_ended_while_it_commits(site: Site, blow: str) -> None:
    who, name = blow.split()

    def strike(process: subprocess.Popen[str]) -> None:
        (pid,) = kernels(process.pid) if who == "kernel" else (process.pid,)
        os.kill(pid, signal.Signals[name])

    process, err = at_commit(site, strike)
    time.sleep(3)  # an orphaned kernel ends what it does
    assert process.returncode in ({3} if who == "kernel" else {-9} if name == "SIGKILL" else {0, 3, 130}), err
    assert "Traceback" not in err
    assert PASSWORD not in err
    image = site.judge_later(only_run(site))
    assert "nothing was written" not in err or image == "before"
    tally.add("command ended from outside", site.name, image)


@on_one
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"])
def test_a_run_that_is_ended_before_it_writes(site: Site, name: str) -> None:
    assert site.server is not None
    with Proxy(site.server.port, lambda _, message: b"webform_submission" in message, "freeze") as proxy:
        site.configure(proxy.port)
        process = command(site, *OPTIONS)
        assert proxy.struck.wait(120), process.communicate(timeout=300)
        os.kill(process.pid, signal.Signals[name])
        time.sleep(0.5)
        proxy.thaw()
        _, err = process.communicate(timeout=120)
        site.configure()
    time.sleep(2)
    assert process.returncode == (-9 if name == "SIGKILL" else 130), err
    assert "Traceback" not in err
    assert PASSWORD not in err
    run_id = only_run(site)
    assert site.judge(run_id) == "before"
    receipt = RunRecord(site.config.runs_dir, run_id).receipt.as_json()
    assert receipt["state"] == ("planned" if name == "SIGKILL" else "failed")
    tally.add("command ended from outside", site.name, "before")


@on_one
@pytest.mark.parametrize("cell", ["raise ValueError('by a cell')", "raise SystemExit(0)", "import os; os._exit(0)"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_cell_that_ends_plain_papermill_before_or_after_apply(site: Site, cell: str, place: str) -> None:
    path = edited(site, cell, place)
    subprocess.run(
        [sys.executable, "-m", "papermill", str(path), "out.ipynb", *papermill_options(), "--no-progress-bar"],
        cwd=site.folder,
        env=os.environ | {"FAULTS_PASSWORD": PASSWORD},
        capture_output=True,
        timeout=120,
    )
    run_id = only_run(site)
    image = site.judge(run_id)
    assert image == place
    receipt = receipt_of(site.config.runs_dir / run_id)
    assert receipt is not None
    assert receipt.state == ("applied" if place == "after" else "planned")
    tally.add("cell that ends the notebook", site.name, image)


@on_one
def test_plain_papermill_killed_while_it_commits(site: Site) -> None:
    assert site.server is not None
    with Proxy(site.server.port, commits, "freeze") as proxy:
        site.configure(proxy.port)
        process = subprocess.Popen(
            [sys.executable, "-m", "papermill", str(notebook_path()), "out.ipynb", *papermill_options()],
            cwd=site.folder,
            env=os.environ | {"FAULTS_PASSWORD": PASSWORD},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert proxy.struck.wait(120)
        process.kill()
        process.wait()
        time.sleep(0.5)
        proxy.thaw()
        time.sleep(3)
        site.configure()
    tally.add("command ended from outside", site.name, site.judge_later(only_run(site)))
    assert dump(site.database)


def edited(site: Site, cell: str, place: str) -> Path:
    """The notebook with a cell of someone's own before or after the one that applies."""
    notebook = nbformat.read(notebook_path(), as_version=4)
    (index,) = [number for number, found in enumerate(notebook.cells) if "apply_plan(" in found.source]
    notebook.cells.insert(index + (place == "after"), nbformat.v4.new_code_cell(cell))
    path = site.folder / "edited.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def papermill_options() -> list[str]:
    return [part for name, value in FEW.items() for part in ("-p", name, str(value))]
