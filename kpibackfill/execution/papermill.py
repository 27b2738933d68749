"""This step runs the notebook with papermill, shows its progress, and judges the end by the receipt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kpibackfill.archive.models import PageAfter
from kpibackfill.archive.provenance import notebook_path
from kpibackfill.archive.run_record import NOTEBOOK, RunRecord
from kpibackfill.config import Config
from kpibackfill.errors import KpiBackfillError, OutcomeUnknown
from kpibackfill.lifecycle.outcome import archived, conclude
from kpibackfill.parameters import command_options
from kpibackfill.progress import METADATA_KEY
from kpibackfill.reporting import markup
from kpibackfill.reporting.page_table import page_after_sentence, warm_commands
from kpibackfill.run import RUN_VARIABLE, Run, prepare, recorded

# How long a kernel may take to start: on a busy machine its imports alone take longer than the usual minute.
START_SECONDS = 300


@dataclass(frozen=True, repr=False)
class HandedOver:
    """How a papermill execution that a session started ended, and where its record is.

    A dry run was started because an approval was missing; `four_eyes` says whether someone else must give it.
    """

    outcome: Mapping[str, Any]
    folder: Path
    four_eyes: bool = False

    def _repr_html_(self) -> str:
        return markup.render(
            "handed_over",
            outcome=self.outcome,
            folder=str(self.folder),
            four_eyes=self.four_eyes,
            page=self._page_sentence,
            warm_commands=warm_commands(self.page_after),
        )

    def __repr__(self) -> str:
        return f"{self.outcome['state']}: {self.outcome['run_id']}. {self._page_sentence}".rstrip()

    @property
    def page_after(self) -> PageAfter | None:
        """What the page shows since an apply."""
        found = self.outcome.get("page_after")
        return None if found is None else PageAfter.model_validate(found, strict=False)

    @property
    def _page_sentence(self) -> str:
        return page_after_sentence(self.page_after, datetime.now(UTC))


@dataclass(frozen=True)
class RunOutcome:
    """A run that ended without a failure: its record, and remarks on what went wrong after its end was on record."""

    record: RunRecord
    remarks: tuple[str, ...]


def run_notebook(
    values: Mapping[str, Any],
    config: Config,
    progress: Callable[[str], None] | None = None,
    begun: Callable[[RunRecord], None] | None = None,
) -> RunOutcome:
    """Execute the notebook with these parameters.

    `progress` is called with one sentence at a time, and `begun` with the record as soon as there is one.

    Raises
    ------
    KpiBackfillError : an expected failure, as the receipt has it; nothing was written.
    OutcomeUnknown : the run ended while it was writing, or what it wrote can't be put on record.
    Bug : the notebook raised something else; the message is its traceback.
    """
    run = recorded(prepare(dict(values), config), "kpibackfill run")
    record = run.record
    assert record is not None
    if begun is not None:
        begun(record)
    raised: BaseException | None = None
    try:
        with _environment(KPIBACKFILL_CONFIG=str(config.path), **{RUN_VARIABLE: record.run_id}), _signals():
            _execute(record, run.parameters.as_notebook(), progress)
    except BaseException as error:  # noqa: BLE001  concluded below, by the receipt
        raised = error
    try:
        remarks = conclude(record, raised)
    finally:
        archiving = archived(record)
    return RunOutcome(record, (*remarks, *archiving))


def hand_over(run: Run, fingerprint: str, *, apply: bool = True) -> HandedOver:
    """Start the papermill execution of what a session shows, and return its outcome for the cell.

    The fingerprint of the plan on screen is passed as ``approved_plan`` unless a reviewed one was named, so what is
    written is what was seen. Without `apply` it is a dry run, which must be on record before it can be approved.
    """
    parameters = {**run.parameters.as_notebook(), "apply": apply}
    if apply:
        parameters["approved_plan"] = parameters["approved_plan"] or fingerprint
    options = command_options(parameters)
    environment = {name: value for name, value in os.environ.items() if name != "JPY_SESSION_NAME"}
    with subprocess.Popen(
        [sys.executable, "-m", "kpibackfill", "--config", str(run.config.path), "run", *options, "--json"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that an interrupt of the session reaches it only once, from here
    ) as child:
        try:
            printed, errors = child.communicate()
        except KeyboardInterrupt:
            # It closes its record and reports how it ended.
            child.send_signal(signal.SIGINT)
            printed, errors = child.communicate()
    try:
        outcome = json.loads(printed)
    except ValueError:
        raise KpiBackfillError(
            f"The papermill execution ended without an outcome: {errors.strip()[-500:]}", code="hand_over"
        ) from None
    if "error" in outcome:
        kind = OutcomeUnknown if child.returncode == OutcomeUnknown.exit_code else KpiBackfillError
        raise kind(outcome["error"]["message"], code=outcome["error"]["code"])
    return HandedOver(outcome, RunRecord(run.config.runs_dir, outcome["run_id"]).folder, run.target.four_eyes)


def _execute(record: RunRecord, parameters: Mapping[str, Any], progress: Callable[[str], None] | None) -> None:
    with _private_files(), _kernel() as kernel:
        _papermill(record, parameters, progress, kernel)


def _papermill(
    record: RunRecord, parameters: Mapping[str, Any], progress: Callable[[str], None] | None, kernel: Any
) -> None:
    import logging

    with _without("rfc3987_syntax"):
        from papermill import execute_notebook
        from papermill.clientwrap import PapermillNotebookClient
        from papermill.engines import NBClientEngine, papermill_engines

    class Client(PapermillNotebookClient):  # type: ignore[misc]
        def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
            content = msg.get("content", {})
            if progress is not None and METADATA_KEY in content.get("metadata", {}):
                progress(content["data"]["text/plain"])
            return super().process_message(msg, cell, cell_index)

        def create_kernel_manager(self) -> Any:
            return kernel

    class Engine(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **_options: Any) -> Any:
            Client(nb_man, kernel_name=kernel_name, startup_timeout=START_SECONDS).execute()

    logging.getLogger("papermill").setLevel(logging.ERROR)
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    # Tasks that an interrupt leaves behind fail with their kernel, some after the run has reported how it ended.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    papermill_engines.register("kpibackfill", Engine)
    execute_notebook(
        notebook_path(),
        record.folder / NOTEBOOK,
        parameters=dict(parameters),
        engine_name="kpibackfill",
        kernel_name="python3",
        progress_bar=False,
    )


@contextmanager
def _private_files() -> Iterator[None]:
    """Make files that are created meanwhile, papermill's included, readable by their owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _kernel() -> Iterator[Any]:
    """Start a kernel that imports what the notebook needs while papermill is imported in this process."""
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync

    ahead = "--IPKernelApp.exec_lines=['import kpibackfill.apply, kpibackfill.compute, kpibackfill.plots']"
    # The kernel's sockets are files that only their owner can reach, and not in the current folder, their default.
    # Their path can't be longer than about 100 bytes.
    elsewhere = "/tmp" if len(os.fsencode(tempfile.gettempdir())) > 60 else None
    with tempfile.TemporaryDirectory(prefix="kpibackfill-", dir=elsewhere) as folder:
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        arguments = [ahead, "--HistoryManager.hist_file=:memory:"]
        # What a kernel prints there is about itself; its outputs, errors included, come through its sockets.
        unheard: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        run_sync(manager.start_kernel)(extra_arguments=arguments, **unheard)
        try:
            yield manager
        finally:
            if manager.has_kernel:
                run_sync(manager.shutdown_kernel)(now=True)


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Hide an optional module from imports. This one takes longer than all of papermill: a grammar with which
    jsonschema checks internationalized addresses, and a notebook has none."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*values, "JPY_SESSION_NAME")}
    os.environ.update(values)
    os.environ.pop("JPY_SESSION_NAME", None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the run as Ctrl-C does: the kernel is shut down and the record closed."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
