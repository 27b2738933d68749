"""The connection is cut or frozen before, within and after the commit: the outcome is found out, not guessed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest

from kpibackfill.archive.run_record import RunRecord
from kpibackfill.errors import Refused
from kpibackfill.lifecycle.settle import settle
from tests.faults import tally
from tests.faults.harness import Site
from tests.faults.proxy import Blow, Proxy, commits

LONG = pytest.mark.faults
on_servers = pytest.mark.parametrize("site", ["mariadb", "postgresql"], indirect=True)


class Nth:
    """Chooses the n-th message that it is asked about."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, _connection: int, _message: bytes) -> bool:
        self._left -= 1
        return self._left == 0


def cut(site: Site, blow: Blow, when: Callable[[int, bytes], bool]) -> tuple[str, int, bool]:
    """A run whose connection is hit while it applies: the image after it, its exit status, whether the blow fell."""
    assert site.server is not None
    with Proxy(site.server.port, when, blow, armed=False) as proxy:
        site.configure(proxy.port)
        child, gate = site.at_gate()
        proxy.armed = True
        gate.write_text("go")
        status = child.wait()
        site.configure()
        # Its record has another port than the one that works now: settle with the test's own configuration.
        image = site.judge(child.run_id)
        if proxy.struck.is_set():
            tally.add(f"connection cut {blow} a message", site.name, image)
        state = RunRecord(site.config.runs_dir, child.run_id).receipt.as_json()["state"]
        assert (status, state) in {(0, "applied"), (2, "failed")}, child.errors
        assert (status == 0) == (image == "after"), child.errors
        assert "Traceback" not in child.errors
        return image, status, proxy.struck.is_set()


@on_servers
@pytest.mark.parametrize(("blow", "image"), [("before", "before"), ("after", "after")])
def test_a_commit_whose_answer_is_lost_is_found_out(site: Site, blow: Blow, image: str) -> None:
    assert cut(site, blow, commits) == (image, 0 if image == "after" else 2, True)


@LONG
@on_servers
@pytest.mark.parametrize("blow", ["before", "after"])
def test_a_cut_at_every_message_of_an_apply(site: Site, blow: Blow) -> None:
    for number in range(1, 200):
        _, _, struck = cut(site, blow, Nth(number))
        site.restore()
        if not struck:
            assert number > 10
            return
    raise AssertionError("an apply of so many messages")


@LONG
@on_servers
def test_a_commit_that_arrives_after_its_run_was_killed_is_waited_for(site: Site) -> None:
    assert site.server is not None
    with Proxy(site.server.port, commits, "freeze", armed=False) as proxy:
        site.configure(proxy.port)
        child, gate = site.at_gate()
        proxy.armed = True
        gate.write_text("go")
        assert proxy.struck.wait(60)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        site.configure()
        with pytest.raises(Refused, match="may still be running"):
            settle(site.config, child.run_id)
        proxy.thaw()
        tally.add("killed while the commit was frozen", site.name, site.judge_later(child.run_id))


@LONG
@on_servers
def test_a_server_that_does_not_come_back_leaves_the_outcome_to_settle(site: Site) -> None:
    """Without the answer and without a server nothing can be known: exit status 3, until it can be reached."""
    assert site.server is not None
    with Proxy(site.server.port, commits, "after", refuse_after=True, armed=False) as proxy:
        site.configure(proxy.port)
        child, gate = site.at_gate()
        proxy.armed = True
        gate.write_text("go")
        child.wait()
        site.configure()
    assert child.wait() == 3, child.errors
    assert "settle" in child.errors
    assert json.loads((site.config.runs_dir / child.run_id / "receipt.json").read_text())["state"] == "applying"
    tally.add("server gone at commit", site.name, site.judge(child.run_id))
