"""What all commands share: how failures are printed, exit statuses, JSON, progress."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from kpibackfill.cli import completing
from kpibackfill.errors import Bug, KpiBackfillError
from kpibackfill.text import json_escape, printable

if TYPE_CHECKING:
    from kpibackfill.archive.run_record import RunRecord
    from kpibackfill.config import Config

PROGRESS_SECONDS = 15
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass
class CommandState:
    """What is known about the current command; each click context has it as its `obj`."""

    json: bool = False
    config: Path | None = None
    record: RunRecord | None = None
    status: int = 2
    """The exit status if only printing the outcome fails."""

    def began(self, record: RunRecord) -> None:
        self.record = record


def _note_json(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    """Note that failures, too, are to be printed as JSON."""
    ctx.ensure_object(CommandState).json = value


class Command(click.Command):
    """A command, with the option --json that each of them has."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        text = "Print one JSON document to standard output."
        self.params.append(click.Option(["--json"], is_flag=True, expose_value=False, callback=_note_json, help=text))


class Cli(click.Group):
    """Prints expected failures in one or two lines and gives every outcome its exit status."""

    command_class = Command

    def main(self, *args: Any, **extra: Any) -> Any:
        _keep_off_standard_streams()
        return super().main(*args, **extra)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        # Reading the options may fail, too, and that failure has to be printed as requested.
        extra.setdefault("obj", CommandState(json="--json" in args))
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            return self._misused(extra["obj"], error)
        except OSError as error:  # from printing help or the version
            if not _unheard(error):
                raise
            raise click.exceptions.Exit(2) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            self._misused(ctx.obj, error)
        except KpiBackfillError as error:
            _fail(ctx.obj, error.code, error.message, error.state, error.exit_code)
        except KeyboardInterrupt:
            said = "interrupted. The run's record says what was done."
            _fail(ctx.obj, "interrupted", "The run was interrupted.", status=130, said=said)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:  # noqa: BLE001  the last resort: a bug, printed with its traceback
            if isinstance(error, OSError) and _unheard(error):
                ctx.exit(ctx.obj.status)
            if isinstance(error, PermissionError) and error.filename is not None:
                # The archive belongs to another account; that is not a bug.
                message = f"{error.filename}: this account may not read or write it. Use its owner's account."
                _fail(ctx.obj, "rights", message)
            text = str(error) if isinstance(error, Bug) else traceback.format_exc()
            click.echo(printable(click.unstyle(text)), err=True)
            said = "this is a bug; please report it with the lines above."
            _fail(ctx.obj, "bug", type(error).__name__, status=70, said=said)

    def _misused(self, command_state: CommandState, error: click.UsageError) -> NoReturn:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            raise error
        command = error.ctx.command_path if error.ctx else "kpibackfill"
        problem = error.format_message().rstrip(".")
        problem = problem if len(problem) <= 300 else f"{problem[:200]} … {problem[-60:]}"
        message = f"{problem}. Nothing was read or written. For usage, see `{command} --help`."
        _fail(command_state, "usage", message, "refused")


def _fail(
    command: CommandState, code: str, message: str, state: str = "failed", status: int = 2, said: str = ""
) -> NoReturn:
    """Say what failed, as JSON too if requested, and exit; if the receipt says how the run ended, that is its state."""
    _say(said or message)
    record, run_id = command.record, None
    if record is not None:
        from kpibackfill.archive.run_record import receipt_of

        receipt, run_id = receipt_of(record.folder), record.run_id
        recorded = receipt.state if receipt else "planned"
        state = {"planned": state, "applying": "unknown"}.get(recorded, recorded)
    try:
        if command.json:
            print_json({"run_id": run_id, "state": state, "error": {"code": code, "message": message}})
    except OSError as error:
        if not _unheard(error):
            raise
    raise click.exceptions.Exit(status)


def _say(message: str) -> None:
    click.echo(f"{click.style('kpibackfill:', bold=True)} {printable(message)}", err=True)


def _keep_off_standard_streams() -> None:
    """Keep files opened later from getting the descriptor of a closed standard stream, and with it what is printed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _unheard(error: OSError) -> bool:
    """Whether printing itself failed, on a full disk or a closed pipe; if so, say that in a line."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if frame.f_code is not click.echo.__code__:
        return False
    # Otherwise Python would try again on exit and set an exit status of its own.
    os.dup2(os.open(os.devnull, os.O_WRONLY), frame.f_locals["file"].fileno())
    if not isinstance(error, BrokenPipeError):  # the reader of a closed pipe has read enough
        with suppress(OSError):  # if nothing can be printed at all, the exit status remains
            _say(f"the output could not be written ({error.strerror}).")
    return True


target_option = click.option(
    "--target", shell_complete=completing.target, default="demo", show_default=True, help="Target in kpibackfill.toml."
)


def narrowing(name: str, text: str, **more: Any) -> Callable[[Any], Any]:
    """An option that narrows what a command does; refused if empty, as an unset shell variable leaves it, for then it
    would not narrow anything."""
    return click.option(name, callback=_given, default="", help=text, **more)


def _given(ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    typed = ctx.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
    if typed and not value.strip():
        raise click.BadParameter("it is empty, perhaps because a variable is not set; give it a value or leave it out")
    return value


decisions_option = narrowing(
    "--decisions", "CSV file with decisions about individual rows.", shell_complete=completing.file
)


def command_state() -> CommandState:
    state: CommandState = click.get_current_context().obj
    return state


def configuration() -> Config:
    """The configuration named by --config or the environment, or the nearest one."""
    from kpibackfill.config import load_config

    return load_config(command_state().config)


def absolute(path: str) -> str:
    try:
        return str(Path(path).expanduser().resolve()) if path else ""
    except (RuntimeError, ValueError):  # ~nobody, a NUL
        return path  # opening it will report the error


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Show progress: one line that is overwritten on a terminal; in a file, a line now and then during long work."""
    terminal = sys.stderr is not None and sys.stderr.isatty()  # None if it was closed at the start
    last: float | None = None

    def show(text: str) -> None:
        nonlocal last
        if terminal:
            click.echo(f"\r\x1b[2K{text}", err=True, nl=False)
        elif last is None:
            last = time.monotonic()
        elif text and time.monotonic() - last > PROGRESS_SECONDS:
            click.echo(text, err=True)
            last = time.monotonic()

    try:
        yield show
    finally:
        show("")


def answer(document: Callable[[], Any], text: Callable[[], str], status: int = 0) -> None:
    """Print what a command found, as a JSON document where --json is given, otherwise as text; exit if it failed."""
    if command_state().json:
        print_json(document())
    else:
        click.echo(text())
    if status:
        raise click.exceptions.Exit(status)


def print_json(document: Any) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    click.echo(printable(text, escape=json_escape))
