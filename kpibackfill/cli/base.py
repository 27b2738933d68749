"""What all commands share: expected failures in one or two lines, exit statuses, JSON, progress."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from kpibackfill.cli import completing
from kpibackfill.errors import Bug, KpiBackfillError
from kpibackfill.text import json_escape, printable

if TYPE_CHECKING:
    from kpibackfill.config import Config

PROGRESS_SECONDS = 15
# What is known of the command under way: of a run its id, its receipt's state, what is no failure of it, and the exit
# status where only telling of it fails.
_TOLD = {"config": None, "json": False, "run_id": None, "state": None, "remarks": (), "status": 2}
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Cli(click.Group):
    """Tells expected failures in one or two lines and gives every ending its exit status."""

    def main(self, *args: Any, **extra: Any) -> Any:
        _keep_off_standard_streams()
        return super().main(*args, **extra)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        # How failures are to be told has to be known before the options are read, since that may fail as well.
        extra.setdefault("obj", {**_TOLD, "json": "--json" in args})
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            return self._misused(extra["obj"], error)
        except OSError as error:  # help and version were to be printed
            if not _unheard(error):
                raise
            raise click.exceptions.Exit(2) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            self._misused(ctx.obj, error)
        except KpiBackfillError as error:
            click.echo(f"{click.style('kpibackfill:', bold=True)} {printable(error.message)}", err=True)
            self._told(ctx.obj, error.code, error.message, error.state)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("kpibackfill: interrupted; what the run's record says holds.", err=True)
            self._told(ctx.obj, "interrupted", "The run was interrupted.", "failed")
            ctx.exit(130)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:  # noqa: BLE001  the last resort, told as a bug with its traceback
            if isinstance(error, OSError) and _unheard(error):
                ctx.exit(ctx.obj["status"])
            if isinstance(error, PermissionError) and error.filename is not None:
                # An archive is its owner's: others are told, not shown a traceback.
                message = f"{error.filename}: this account may not read or write it. Take the account of its owner."
                click.echo(f"{click.style('kpibackfill:', bold=True)} {printable(message)}", err=True)
                self._told(ctx.obj, "rights", message, "failed")
                ctx.exit(2)
            text = str(error) if isinstance(error, Bug) else traceback.format_exc()
            click.echo(printable(click.unstyle(text)), err=True)
            click.echo("kpibackfill: this is a bug; please report it with the lines above.", err=True)
            self._told(ctx.obj, "bug", type(error).__name__, "failed")
            ctx.exit(70)

    def _misused(self, told: Mapping[str, Any], error: click.UsageError) -> NoReturn:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            raise error
        command = error.ctx.command_path if error.ctx else "kpibackfill"
        problem = error.format_message().rstrip(".")
        problem = problem if len(problem) <= 300 else f"{problem[:200]} … {problem[-60:]}"
        message = f"{problem}. Nothing was read or written; `{command} --help` shows what there is."
        click.echo(f"{click.style('kpibackfill:', bold=True)} {printable(message)}", err=True)
        self._told(told, "usage", message, "refused")
        raise click.exceptions.Exit(2)

    def _told(self, told: Mapping[str, Any], code: str, message: str, state: str) -> None:
        """The document of a failure; what a receipt says of a run's end holds, however the command ended."""
        if not told["json"]:
            return
        state = {None: state, "planned": state, "applying": "unknown"}.get(told["state"], told["state"])
        try:
            print_json({"run_id": told["run_id"], "state": state, "error": {"code": code, "message": message}})
        except OSError as error:
            if not _unheard(error):
                raise


def _keep_off_standard_streams() -> None:
    """Let no file that is opened later get the number of a stream that was closed, and with it what is printed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _unheard(error: OSError) -> bool:
    """Whether it is printing that failed, on a full disk or a closed pipe; told in a line then."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if frame.f_code is not click.echo.__code__:
        return False
    # Python would try once more when it ends, and end with a status of its own.
    os.dup2(os.open(os.devnull, os.O_WRONLY), frame.f_locals["file"].fileno())
    if not isinstance(error, BrokenPipeError):  # whoever closes a pipe has read enough
        with suppress(OSError):  # where nothing can be said at all, the exit status still tells
            click.echo(f"kpibackfill: the output could not be written ({error.strerror}).", err=True)
    return True


target_option = click.option(
    "--target",
    shell_complete=completing.target,
    default="demo",
    show_default=True,
    help="A target of kpibackfill.toml.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


def narrowing(name: str, text: str, **more: Any) -> Callable[[Any], Any]:
    """An option that narrows what a command does. A shell variable that is not set leaves it empty, which must not pass
    for an option that was left out."""
    return click.option(name, callback=_given, default="", help=text, **more)


def _given(ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    typed = ctx.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
    if typed and not value.strip():
        raise click.BadParameter("it is empty, as where a variable is not set; give it a value or leave it out")
    return value


decisions_option = narrowing("--decisions", "CSV file with decisions on single rows.", shell_complete=completing.file)


def begin(ctx: click.Context, as_json: bool) -> None:
    """Say at once whether failures, too, are to be told as JSON."""
    ctx.obj["json"] = as_json


def config_of(ctx: click.Context) -> Config:
    """The configuration that --config, the environment or the folder names."""
    from kpibackfill.config import load_config

    return load_config(ctx.obj["config"])


def absolute(path: str) -> str:
    try:
        return str(Path(path).expanduser().resolve()) if path else ""
    except (RuntimeError, ValueError):  # ~nobody, a NUL
        return path  # which opening it will tell of


def progress_line() -> Callable[[str], None]:
    """Writes one line that is renewed on a terminal; where the output goes to a file, a line at a time of long work."""
    terminal = sys.stderr is not None and sys.stderr.isatty()  # none where it was closed from the beginning
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

    return show


def print_json(document: Any) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    click.echo(printable(text, escape=json_escape))
