"""A full disk under the folder of runs: before the transaction nothing is written, after the commit none is denied."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpibackfill.record.settle import settle
from tests.faults import tally
from tests.faults.harness import Site

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
def test_a_disk_that_is_full_after_the_commit_does_not_deny_it(site: Site, small_disk: Path) -> None:
    child, gate = site.at_gate(fill=str(small_disk / "full"))
    gate.write_text("go")
    assert child.wait() == 3, child.errors
    assert "committed" in child.errors
    assert "settle" in child.errors
    assert site.found(child.run_id) == "after"
    (small_disk / "full").unlink()
    assert settle(site.config, child.run_id)["outcome"] == "applied"
    assert site.judge(child.run_id) == "after"
    tally.add("disk full after", site.name, "after")
