"""The run that is hit by a fault: a process per run, forked from one that has imported everything already.

As `python -m tests.faults.child` it reads a JSON order a line and answers with two lines: the run's process id, and
how that process ended. The run goes through the product's own steps with a record as `kpibackfill run` opens it, and
the blow is dealt from outside the product: by a trace function that counts the lines of its code as they are reached.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import matplotlib.pyplot  # noqa: F401  imported once, for all forks
import papermill  # noqa: F401

import kpibackfill as kb
from kpibackfill import apply, plots, revert
from kpibackfill.archive import files, ledger, run_record
from kpibackfill.database import engine, fact_table
from kpibackfill.errors import KpiBackfillError
from kpibackfill.lifecycle import settle
from kpibackfill.reporting import index, report
from kpibackfill.run import RUN_VARIABLE, prepare, recorded

# Where a blow may fall: every line of these that apply_plan executes.
WATCHED = {
    module.__file__: Path(str(module.__file__)).stem for module in (apply, engine, fact_table, run_record, ledger)
} | {module.__file__: Path(str(module.__file__)).stem for module in (files, settle, index)}
_KEPT = (plots, report, revert)  # imported now, not in each fork


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait for the runs
    for line in sys.stdin:
        order = json.loads(line)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _start_and_note_end(order)


def _start_and_note_end(order: dict[str, Any]) -> None:
    """Without a thread: a fork would not have it, but might have a lock that it holds."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        _run_and_exit(order)
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    _tell(order, "ended", str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    os._exit(0)


def _run_and_exit(order: dict[str, Any]) -> None:
    folder = Path(order["folder"])
    for number, name in (
        (0, os.devnull),
        (1, folder / f"{order['name']}.stdout"),
        (2, folder / f"{order['name']}.stderr"),
    ):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = 70
    try:
        os.chdir(folder)
        os.environ["KPIBACKFILL_CONFIG"] = str(folder / "kpibackfill.toml")
        status = _run(order)
    except KpiBackfillError as error:
        sys.stderr.write(f"{type(error).__name__} {error.code}: {error.message}\n")
        status = error.exit_code
    except KeyboardInterrupt:
        status = 130
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.settrace(None)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(order: dict[str, Any]) -> int:
    begun = recorded(prepare(order["parameters"]), "kpibackfill run")
    record = begun.record
    assert record is not None
    _tell(order, "run", record.run_id)
    os.environ[RUN_VARIABLE] = record.run_id
    run = kb.begin(**begun.parameters.as_notebook())
    plan = kb.make_plan(run, kb.compare(kb.compute_kpis(run)))
    _tell(order, "plan", plan.fingerprint)
    _wait(order, "gate")
    counter = Counter(order)
    sys.settrace(counter)
    try:
        kb.apply_plan(run, plan)
    finally:
        sys.settrace(None)
        _tell(order, "reached", json.dumps(counter.reached))
    return 0


class Counter:
    """Counts the watched lines as they are reached, and deals the blow at the one that was ordered."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._at = order.get("at")
        self._signal = order.get("signal", signal.SIGKILL)
        self._commit_delay = order.get("commit_delay")
        self._fill = order.get("fill")
        self._list = order.get("list", False)
        self.count = 0
        self.reached: list[str] = []

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Callable[..., Any] | None:
        return self._line if frame.f_code.co_filename in WATCHED else None

    def _line(self, frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        if event == "line":
            self.count += 1
            if self._list:
                self.reached.append(f"{WATCHED[frame.f_code.co_filename]}:{frame.f_lineno}")
            if self.count == self._at:
                os.kill(os.getpid(), self._signal)
            if (self._commit_delay is not None or self._fill) and frame.f_code.co_name == "writing" and _commits(frame):
                self._at_commit()
        return self._line

    def _at_commit(self) -> None:
        if self._fill:
            fill(Path(self._fill))
        else:
            threading.Timer(self._commit_delay or 0, os.kill, (os.getpid(), self._signal)).start()


def fill(path: Path) -> None:
    """Leave no room on the file system where `path` is."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def _commits(frame: FrameType) -> bool:
    lines = Path(frame.f_code.co_filename).read_text(encoding="utf-8").splitlines()
    return lines[frame.f_lineno - 1].strip() == "connection.commit()"


def _tell(order: dict[str, Any], what: str, text: str) -> None:
    path = Path(order["folder"]) / f"{order['name']}.{what}"
    path.with_suffix(".new").write_text(text, encoding="utf-8")
    path.with_suffix(".new").replace(path)


def _wait(order: dict[str, Any], what: str) -> None:
    """Where the order names a gate (a FIFO), wait until the test opens it."""
    if what in order:
        Path(order[what]).read_bytes()


if __name__ == "__main__":
    main()
