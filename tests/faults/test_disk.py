"""A full disk under the folder of runs: before the transaction nothing is written, after the commit none is denied."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpibackfill.lifecycle.settle import as_json, settle
from tests.faults import tally
from tests.faults.harness import Site
from tests.faults.test_signals import command, only_run

# A site's own KPI that leaves no room for the record, nor for papermill's notebook.
FILLING = """
import subprocess
import kpibackfill as kb

@kb.kpi("filling", label="Filling", unit="count", family="test", description="Fills.", sources=["none"])
def filling(connection, site, windows):
    subprocess.run(["dd", "if=/dev/zero", "of={path}", "bs=4096"], capture_output=True)
    return [kb.Value(window.window_id, 1) for window in windows]
"""
sqlite_only = pytest.mark.parametrize("site", ["sqlite"], indirect=True)


@pytest.fixture
def small_disk(site: Site) -> Iterator[Path]:
    """A file system of 2 MB where the runs are kept."""
    runs = site.folder / "runs"
    runs.mkdir(mode=0o700)
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "none", str(runs)]
    if os.geteuid() != 0 or subprocess.run(mounted, capture_output=True).returncode != 0:
        pytest.skip("only where a file system may be mounted")
    yield runs
    subprocess.run(["umount", "--lazy", str(runs)], check=True)


@sqlite_only
def test_a_disk_that_is_full_before_the_transaction_keeps_it_from_beginning(site: Site, small_disk: Path) -> None:
    child, gate = site.at_gate()
    subprocess.run(["dd", "if=/dev/zero", f"of={small_disk / 'full'}", "bs=4096"], capture_output=True)
    gate.write_text("go")
    assert child.wait() == 2, child.errors
    assert "No space left" in child.errors
    assert len(child.errors.strip().splitlines()) <= 2
    (small_disk / "full").unlink()
    assert site.judge(child.run_id) == "before"
    tally.add("disk full before", site.name, "before")


@sqlite_only
def test_a_disk_that_is_full_while_a_notebook_runs_is_reported_as_such(site: Site, small_disk: Path) -> None:
    site.configure(site={"kpi_modules": ["filling"]})
    (site.folder / "filling.py").write_text(FILLING.format(path=small_disk / "full"))
    process = command(site, "--target", "test", "--from-year", "2024", "--kpis", "filling", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "No space left" in err
    assert len(err.strip().splitlines()) == 1
    assert json.loads(out)["error"]["code"] == "record"
    (small_disk / "full").unlink()
    assert site.judge(only_run(site)) == "before"
    tally.add("disk full before", site.name, "before")


@sqlite_only
def test_a_disk_that_is_full_after_the_commit_does_not_deny_it(site: Site, small_disk: Path) -> None:
    child, gate = site.at_gate(fill=str(small_disk / "full"))
    gate.write_text("go")
    assert child.wait() == 3, child.errors
    assert "committed" in child.errors
    assert "settle" in child.errors
    assert site.found(child.run_id) == "after"
    (small_disk / "full").unlink()
    assert as_json(child.run_id, settle(site.config, child.run_id))["outcome"] == "applied"
    assert site.judge(child.run_id) == "after"
    tally.add("disk full after", site.name, "after")
