"""kill -9 at every step of an apply, within its commit, and at random moments: before or after, as the record says."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults import tally
from tests.faults.harness import Child, Site

LONG = pytest.mark.faults
BATCH = 10


def steps(site: Site) -> list[int]:
    """Each line that an apply executes, as the number of line events until it is first reached.

    What has nothing to do with the database, such as how a record's files are written, is tried on one of them.
    """
    child = site.run(list=True)
    assert child.wait() == 0, child.errors
    site.restore()
    first: dict[str, int] = {}
    for number, line in enumerate(json.loads(child.wait_for("reached")), 1):
        if site.name == "sqlite" or line.startswith(("apply:", "engine:", "store:")):
            first.setdefault(line, number)
    return list(first.values())


def hit(site: Site, children: Iterable[tuple[str, Child]], kind: str) -> None:
    """Judge each run after its end; runs share a ledger, and after every few a whole one must succeed."""
    for number, (what, child) in enumerate(children, 1):
        status = child.wait()
        try:
            image = site.judge(child.run_id)
            if status != 0:  # otherwise it was faster than the blow
                tally.add(kind, site.name, image)
            if number % BATCH == 0:
                following = site.run()
                assert following.wait() == 0, child.errors
                planned = site.plan(following.run_id)
                assert (image == "before") == bool(planned)
                assert not planned or site.judge(following.run_id) == "after"
        except AssertionError as error:
            raise AssertionError(f"hit {what} (ended with {status}), then: {error}") from error
        site.restore()
        if number % BATCH == 0:
            shutil.rmtree(site.config.runs_dir)


def at_steps(site: Site, numbers: Iterable[int], signal_number: int) -> None:
    hit(
        site,
        ((f"at line event {n}", site.start(at=n, signal=signal_number)) for n in numbers),
        f"{signal.Signals(signal_number).name} at a step",
    )


def test_some_kills_and_interrupts_of_apply(site: Site, chance: random.Random) -> None:
    for number, signal_number in ((2, signal.SIGKILL), (1, signal.SIGINT)):
        at_steps(site, [chance.randrange(1, 1000) for _ in range(number)], signal_number)
    during_commit(site, chance, 1)


@LONG
def test_a_kill_at_every_step_of_apply(site: Site) -> None:
    at_steps(site, steps(site), signal.SIGKILL)


@LONG
def test_interrupts_at_many_steps_of_apply(site: Site, chance: random.Random) -> None:
    at_steps(site, chance.sample(steps(site), 40), signal.SIGINT)


def during_commit(site: Site, chance: random.Random, times: int) -> None:
    delays = [chance.uniform(0, 0.004) for _ in range(times)]
    hit(
        site,
        ((f"{delay:.6f} s into the commit", site.start(commit_delay=delay)) for delay in delays),
        "SIGKILL within the commit",
    )


@LONG
def test_many_kills_within_the_commit(site: Site, chance: random.Random) -> None:
    during_commit(site, chance, 40)


@LONG
def test_kills_at_random_moments(site: Site, chance: random.Random) -> None:
    def killed(seconds: float) -> Child:
        child = site.start()
        child.wait_for("run")
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        return child

    whole = site.start()
    whole.wait_for("run")
    began = time.monotonic()
    assert whole.wait() == 0
    moments = [chance.uniform(0, time.monotonic() - began) for _ in range(40)]
    site.restore()
    hit(site, ((f"{s:.6f} s after its begin", killed(s)) for s in moments), "SIGKILL at a random moment")


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_a_crash_leaves_no_dump_of_memory_and_environment(site: Site) -> None:
    child, gate = site.at_gate(at=50, signal=signal.SIGABRT)
    limits = Path(f"/proc/{child.pid}/limits").read_text(encoding="utf-8")
    assert re.search(r"Max core file size +0 ", limits), limits
    gate.write_text("go")
    assert child.wait() == -signal.SIGABRT
    assert not [path for path in site.folder.rglob("*core*") if path.is_file()]
    assert site.judge(child.run_id) == "before"
