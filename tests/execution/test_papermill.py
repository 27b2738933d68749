"""Real papermill executions: the command line, plain papermill, and what a record says when one ends badly."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.archive.provenance import notebook_path
from kpibackfill.archive.run_record import RunRecord
from kpibackfill.archive.verify import verify
from kpibackfill.errors import Refused
from kpibackfill.lifecycle import closing
from kpibackfill.run import RUN_VARIABLE
from tests.archives import listed_runs
from tests.databases import add_cachetags, connect, dump, on
from tests.workbench import Workbench

pytestmark = pytest.mark.slow

# A site's own KPIs, each of which ends a kernel in its own way.
KPIS = """
import os, signal, time
import kpibackfill as kb

def ending(kpi_id):
    return kb.kpi(kpi_id, label=kpi_id, unit="count", family="test", description="Ends.", sources=["none"])

@ending("killed")
def killed(connection, site, windows):
    os.kill(os.getpid(), signal.SIGKILL)

@ending("left")
def left(connection, site, windows):
    raise SystemExit(0)

@ending("chatty")
def chatty(connection, site, windows):
    print("noise")
    os.system("echo noise")
    return [kb.Value(window.window_id, 1) for window in windows]

@ending("broken")
def broken(connection, site, windows):
    return [kb.Value(window.window_id, 1 / 0) for window in windows]

@ending("endless")
def endless(connection, site, windows):
    open("started", "w").close()
    time.sleep(600)

@ending("endless_on_record")
def endless_on_record(connection, site, windows):
    if "KPIBACKFILL_RUN" in os.environ:
        endless(connection, site, windows)
    return [kb.Value(window.window_id, 1) for window in windows]
"""
# A kernel is started with this module's name on its command line.
DIES_AS_A_KERNEL = """
import os, sys
if "ipykernel_launcher" in sys.orig_argv:
    os.kill(os.getpid(), 9)
"""
SESSION = """
import kpibackfill as kb
run = kb.begin(target="test", from_year=2024, kpis="endless_on_record", apply=True)
kb.apply_plan(run, kb.make_plan(run, kb.compare(kb.compute_kpis(run))))
"""


class Executions:
    """Processes that run at the same time; each is waited for when its result is needed."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        (bench.folder / "site_kpis.py").write_text(KPIS)
        path = os.pathsep.join(filter(None, [str(bench.folder), os.environ.get("PYTHONPATH")]))
        self._environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *command: str, stdout: Any = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**self._environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *options: str, **environment: Any) -> subprocess.Popen[str]:
        return self.start("kpibackfill", "run", "--target", "test", "--from-year", "2024", *options, **environment)

    def papermill(self, *options: str) -> subprocess.Popen[str]:
        out = self.bench.folder / f"out-{len(self._started)}.ipynb"
        wanted = ("-p", "target", "test", "-p", "from_year", "2024")
        return self.start("papermill", str(notebook_path()), str(out), "--no-progress-bar", *wanted, *options)

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def executions(bench: Workbench) -> Iterator[Executions]:
    started = Executions(bench)
    yield started
    started.close()


def receipt_of(folder: Path) -> dict[str, Any]:
    receipt: dict[str, Any] = json.loads((folder / "receipt.json").read_text())
    return receipt


@on("sqlite")
def test_parameters_that_papermill_would_let_pass_are_refused(executions: Executions) -> None:
    before = dump(executions.bench.database)
    refused = [
        (executions.papermill("-p", "apply", "false"), "apply must be exactly True or False, not 'false'"),
        (executions.papermill("-p", "apply", "yes"), "write -p apply True"),
        (executions.papermill("-p", "aply", "True"), "Did you mean 'apply'?"),
        (executions.papermill("-p", "from_year", "abc"), "from_year must be a whole number"),
    ]
    for process, words in refused:
        out, err = process.communicate()
        assert process.returncode not in (0, None)
        assert words in out + err
        # papermill's own traceback ends with our sentence; none of our frames is in it.
        assert "kpibackfill/run.py" not in out + err
        assert "site-packages/kpibackfill" not in out + err
    assert not executions.bench.runs
    assert dump(executions.bench.database) == before


@on("sqlite")
def test_plain_papermill_writes_and_leaves_a_record(executions: Executions) -> None:
    add_cachetags(executions.bench.database)
    before = dump(executions.bench.database)
    dry = executions.papermill("-p", "as_of", "2026-01-15")
    assert dry.wait() == 0, dry.communicate()
    assert dump(executions.bench.database) == before
    process = executions.papermill("-p", "apply", "True", "-r", "approved_plan", executions.bench.runs[0].name)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    first, second = map(receipt_of, executions.bench.runs)
    assert (first["state"], first["started_by"]) == ("dry_run", "papermill")
    assert first["parameters"]["as_of"] == "2026-01-15T00:00:00+00:00"
    assert (second["state"], second["plan"]) == ("applied", first["plan"])
    assert second["approval"]["reviewed_run"] == first["run_id"]
    after = dump(executions.bench.database)
    assert {name for name in after if after[name] != before[name]} == {"ms_fact_kpi_snapshot", "cachetags"}


def test_the_command_runs_dry_then_applies_what_was_seen(executions: Executions) -> None:
    before = dump(executions.bench.database)
    dry = executions.run("--json", "--exit-code")
    out, err = dry.communicate()
    assert (dry.returncode, err) == (1, "")
    document = json.loads(out)
    assert dump(executions.bench.database) == before
    assert (document["state"], document["apply"], document["target"]) == ("dry_run", False, "test")
    rows = document["rows"]
    assert document["years"] == {"2024": {"snapshots": 1, "kpi_rows": 5}}
    assert document["total_kpi_rows"] == len(rows) == 5
    wanted = {"snapshot_id", "snapshot_date", "kpi_id", "computed", "stored", "status", "basis", "population"}
    assert all(row.keys() >= wanted | {"warnings", "period_year", "period_month"} for row in rows)
    folder = Path(document["run_dir"])
    assert folder == executions.bench.runs[0]
    assert {path.name for path in folder.iterdir()} >= {
        "receipt.json", "plan.json", "drift.csv", "notebook.ipynb", "report.html", "SHA256SUMS"
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700

    applied = executions.run("--apply", "--approved-plan", document["run_id"])
    out, err = applied.communicate()
    assert (applied.returncode, err) == (0, "")
    assert f"Applied: {document['plan']['rows']} rows written." in out
    receipt = receipt_of(executions.bench.runs[1])
    assert (receipt["state"], receipt["plan"]) == ("applied", document["plan"])
    after = dump(executions.bench.database)
    assert {name for name in after if after[name] != before[name]} == {"ms_fact_kpi_snapshot"}


@on("sqlite")
def test_an_interrupted_session_lets_the_execution_that_it_started_close_its_record(executions: Executions) -> None:
    bench = executions.bench
    bench.configure(site={"kpi_modules": ["site_kpis"]})
    before = dump(bench.database)
    (bench.folder / "session.py").write_text(SESSION)
    session = executions.start("session")
    _wait_until((bench.folder / "started").is_file)
    session.send_signal(signal.SIGINT)
    _, err = session.communicate(timeout=300)
    assert "The run was interrupted" in err
    (folder,) = bench.runs
    receipt = receipt_of(folder)
    assert (receipt["state"], receipt["error"]["code"]) == ("failed", "interrupted")
    assert receipt["ended_at"] is not None
    assert dump(bench.database) == before


@on("sqlite")
def test_a_long_path_of_temporary_files_does_no_harm(executions: Executions) -> None:
    folder = executions.bench.folder / ("t" * 90)
    folder.mkdir()
    process = executions.run("--kpis", "education_nps", TMPDIR=str(folder))
    assert process.wait() == 0, process.communicate()


@on("sqlite")
def test_years_without_snapshots_are_not_a_failure(executions: Executions) -> None:
    process = executions.run("--from-year", "1999", "--to-year", "2001", "--json")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    document = json.loads(out)
    assert document["years"] == {year: {"snapshots": 0, "kpi_rows": 0} for year in ("1999", "2000", "2001")}
    assert (document["total_kpi_rows"], document["plan"]["rows"], document["rows"]) == (0, 0, [])


@on("sqlite")
def test_a_record_says_how_a_run_really_ended(executions: Executions) -> None:
    bench = executions.bench
    bench.configure(site={"kpi_modules": ["site_kpis"]})
    before = dump(bench.database)
    ended: dict[str, tuple[subprocess.Popen[str], int, str]] = {
        "killed": (executions.run("--kpis", "killed", "--json"), 2, "incomplete"),
        "left": (executions.run("--kpis", "left", "--json", "--apply"), 2, "kpi_contract"),
        "broken": (executions.run("--kpis", "broken", "--json"), 2, "kpi_contract"),
        "endless": (executions.run("--kpis", "endless", "--json"), 130, "interrupted"),
    }
    _wait_until((bench.folder / "started").is_file)
    ended["endless"][0].send_signal(signal.SIGTERM)
    for name, (process, status, code) in ended.items():
        out, err = process.communicate(timeout=300)
        assert process.returncode == status, (name, out, err)
        document = json.loads(out)
        state = "refused" if code == "kpi_contract" else "failed"
        assert (document["state"], document["error"]["code"]) == (state, code), name
        assert ("ZeroDivisionError (site_kpis, line" in err) == (name == "broken")
        receipt = receipt_of(bench.config.runs_dir / document["run_id"])
        assert (receipt["state"], receipt["error"]["code"]) == (state, code), name
        assert receipt["ended_at"] is not None
    assert dump(bench.database) == before


# What a site does after an apply: the database has committed by then, and the receipt says so, but not the ledger.
WAIT = ["sh", "-c", "touch started; sleep 300"]
NO_ROOM = ["sh", "-c", "for run in runs/2*; do mkdir $run/report.html; done"]


def kernel_of(process: subprocess.Popen[str]) -> int:
    """The kernel that a command has started, by /proc."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = path.read_text().rpartition(")")[2].split()[1]
            if int(parent) == process.pid and b"ipykernel" in (path.parent / "cmdline").read_bytes():
                return int(path.parent.name)
    raise AssertionError("it has no kernel")


@on("sqlite")
@pytest.mark.parametrize(("blow", "status"), [("kernel", 0), ("command", 130)])
def test_what_ends_a_run_after_its_commit_does_not_deny_it(executions: Executions, blow: str, status: int) -> None:
    bench = executions.bench
    bench.configure(after_apply=WAIT)
    process = executions.run("--apply", "--json")
    _wait_until((bench.folder / "started").is_file)
    if blow == "kernel":
        os.kill(kernel_of(process), signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    document = json.loads(out)
    assert document["state"] == "applied"
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert ("kernel died" in err) == (blow == "kernel")
    receipt = receipt_of(bench.runs[0])
    assert (receipt["state"], receipt["ended_at"] is None) == ("applied", False)
    assert verify(bench.config.runs_dir).findings == ()


@on("sqlite")
def test_a_notebook_that_a_command_after_the_apply_executes_leaves_the_run_alone(executions: Executions) -> None:
    bench = executions.bench
    program = ["papermill", str(notebook_path()), "after.ipynb", "-p", "target", "test", "-p", "from_year", "2023"]
    bench.configure(after_apply=[sys.executable, "-m", *program])
    process = executions.run("--apply", "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    receipts = {receipt["parameters"]["from_year"]: receipt for receipt in map(receipt_of, bench.runs)}
    applied, following = receipts[2024], receipts[2023]
    assert (applied["state"], applied["after_apply"]["outcome"]) == ("applied", "exit status 0")
    assert applied["run_id"] == json.loads(out)["run_id"]
    assert following["state"] == "dry_run"
    assert verify(bench.config.runs_dir).findings == ()


@on("sqlite")
def test_a_run_that_has_ended_cannot_be_begun_again(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    applied = bench.finish(from_year=2024, kpis="education_nps", apply=True)
    record = RunRecord(bench.config.runs_dir, applied["run_id"])
    before = record.receipt
    monkeypatch.setenv(RUN_VARIABLE, record.run_id)
    with pytest.raises(Refused, match="is under way or has ended; nothing was read or written"):
        kb.begin(target="test", from_year=2023)
    with pytest.raises(AssertionError, match="is applied"):
        closing.close(record, "refused")
    assert record.receipt == before


@on("sqlite")
def test_a_record_that_cannot_be_completed_after_the_commit_is_completed_by_settle(executions: Executions) -> None:
    bench = executions.bench
    bench.configure(after_apply=NO_ROOM)
    process = executions.run("--apply", "--json")
    out, err = process.communicate()
    assert process.returncode == 3, err
    document = json.loads(out)
    assert (document["state"], document["error"]["code"]) == ("applied", "record")
    for words in (
        "The rows are written",
        "report.html could not be written",
        f"settle {document['run_id']}` to complete it",
    ):
        assert words in document["error"]["message"]
    assert "nothing" not in document["error"]["message"]
    assert len(err.splitlines()) == 1
    (folder,) = bench.runs
    (folder / "report.html").rmdir()
    settled = bench.command("settle", document["run_id"])
    assert settled.exit_code == 0, settled.output
    assert (folder / "report.html").is_file()
    assert verify(bench.config.runs_dir).findings == ()
    assert listed_runs(bench.config.runs_dir)[0]["state"] == "applied"


@on("sqlite")
def test_a_kernel_that_is_killed_while_it_starts_is_not_a_bug(executions: Executions) -> None:
    (executions.bench.folder / "sitecustomize.py").write_text(DIES_AS_A_KERNEL)
    process = executions.run("--json")
    out, err = process.communicate()
    assert process.returncode == 2, err
    assert json.loads(out)["error"]["code"] == "incomplete"
    assert "kernel died" in err


@on("sqlite")
def test_what_prints_past_python_does_not_get_into_the_document(executions: Executions) -> None:
    executions.bench.configure(site={"kpi_modules": ["site_kpis"]})
    process = executions.run("--kpis", "chatty", "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["state"] == "dry_run"


@on("sqlite")
def test_an_outcome_that_cannot_be_printed_still_counts(executions: Executions) -> None:
    with Path("/dev/full").open("w") as full:
        process = executions.run("--apply", "--json", stdout=full)
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait() == 0, err
    assert "the output could not be written (No space left on device)" in err
    assert len(err.splitlines()) == 1
    assert receipt_of(executions.bench.runs[0])["state"] == "applied"


def _wait_until(happened: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@on("sqlite")
def test_what_a_run_finds_wrong_is_reported_in_two_lines(executions: Executions) -> None:
    bench = executions.bench
    with connect(bench.database.url) as connection:
        connection.execute(sa.text("DROP TABLE civicrm_participant"))
    missing = executions.run("--json")
    out, err = missing.communicate()
    assert missing.returncode == 2
    assert len(err.splitlines()) <= 2
    assert "civicrm_participant" in err
    assert json.loads(out)["error"]["code"] == "database"
    assert receipt_of(bench.runs[0])["state"] == "failed"


class InSession:
    """JupyterLab's kernel: the notebook's cells in a kernel that has a session's name."""

    def __init__(self, bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JPY_SESSION_NAME", str(bench.folder / "kpi_backfill.ipynb"))
        self._bench = bench

    def run_all(self, *, after_plan: Iterable[str] = (), **parameters: Any) -> nbformat.NotebookNode:
        """Run All, with further cells below the plan's."""
        notebook: nbformat.NotebookNode = nbformat.read(notebook_path(), as_version=4)
        below = 1 + next(place for place, cell in enumerate(notebook.cells) if "kb.make_plan(" in cell.source)
        notebook.cells[below:below] = map(nbformat.v4.new_code_cell, after_plan)
        cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        values = {"target": "test", "from_year": 2024, **parameters}
        cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
        nbclient.NotebookClient(
            notebook, kernel_name="python3", resources={"metadata": {"path": str(self._bench.folder)}}
        ).execute()
        return notebook


@on("sqlite")
def test_a_session_explores_without_a_record_and_hands_an_apply_to_papermill(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = InSession(bench, monkeypatch)
    before = dump(bench.database)
    explored = session.run_all()
    assert not bench.config.runs_dir.exists()
    assert "set <code>apply = True</code>" in json.dumps([cell.get("outputs", []) for cell in explored.cells])
    shown = session.run_all(apply=True, reason="a session's reason")
    (folder,) = bench.runs
    receipt = receipt_of(folder)
    assert (receipt["state"], receipt["started_by"]) == ("applied", "kpibackfill run")
    assert receipt["parameters"]["approved_plan"] == receipt["plan"]["fingerprint"]
    assert receipt["reason"] == "a session's reason"
    assert (folder / "notebook.ipynb").is_file()
    texts = json.dumps([cell.get("outputs", []) for cell in shown.cells])
    assert receipt["run_id"] in texts
    assert str(folder) in texts
    after = dump(bench.database)
    assert {name for name in after if after[name] != before[name]} == {"ms_fact_kpi_snapshot"}
    # A refusal is shown in the cell as one sentence.
    with pytest.raises(nbclient.exceptions.CellExecutionError) as raised:
        session.run_all(apply=True, approved_plan="0" * 64)
    assert "not the reviewed one" in str(raised.value)
    assert "Traceback" not in str(raised.value)


@on("sqlite")
def test_a_notebook_that_reviews_next_to_the_table_can_run_again_on_the_same_file(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = InSession(bench, monkeypatch)
    page = (Path(__file__).parents[2] / "docs" / "reviewing.md").read_text(encoding="utf-8")
    [cells] = re.findall(r"## Decide in JupyterLab.*?```python\n(.*?)```", page, re.DOTALL)
    asked: dict[str, Any] = {"from_year": 2016, "after_plan": cells.replace("103", "270").splitlines()}
    session.run_all(**asked)
    [path] = bench.folder.glob("decisions-*.csv")
    for decisions in ("", path.name, path.name):
        shown = session.run_all(**asked, decisions=decisions)
    assert list(bench.folder.glob("decisions-*.csv")) == [path]
    plan = next(cell for cell in shown.cells if "kb.make_plan(" in cell.source)
    assert "1 row: 1 to delete." in plan.outputs[0].data["text/plain"]
    assert path.read_text(encoding="utf-8-sig").count("no answers that year") == 1


@on("sqlite")
def test_a_session_puts_the_dry_run_on_record_if_its_plan_must_be_approved_first(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.configure(four_eyes=True)
    session = InSession(bench, monkeypatch)
    before = dump(bench.database)
    shown = session.run_all(apply=True, reason="runbook, step 4")
    (folder,) = bench.runs
    assert receipt_of(folder)["state"] == "dry_run"
    assert dump(bench.database) == before
    outcome = next(cell for cell in shown.cells if "kb.apply_plan(" in cell.source).outputs[0].data["text/html"]
    for line in ("Nothing was written", f'kb.approve("{folder.name}", note=', f'approved_plan = "{folder.name}"'):
        assert line in outcome
    assert "someone other than" in outcome
    kb.approve(folder.name, note="agrees", by="Ben")
    session.run_all(apply=True, reason="runbook, step 4", approved_plan=folder.name)
    receipt = receipt_of(bench.runs[-1])
    assert (receipt["state"], receipt["approval"]["by"]) == ("applied", "Ben")
    assert dump(bench.database) != before
