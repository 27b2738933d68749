"""The command line: it executes the notebook and reads the archive; each command is a thin wrapper over one function."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kpibackfill import __version__
from kpibackfill.errors import KpiBackfillError, OutcomeUnknown

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Cli(click.Group):
    """Tells expected failures in one or two lines and gives every ending its exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KpiBackfillError as error:
            click.echo(f"{click.style('kpibackfill:', bold=True)} {error.message}", err=True)
            self._told(ctx, error.code, error.message, "unknown" if isinstance(error, OutcomeUnknown) else error.state)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("kpibackfill: interrupted; what the run's record says holds.", err=True)
            self._told(ctx, "interrupted", "The run was interrupted.", "failed")
            ctx.exit(130)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:
            text = str(error) if type(error).__name__ == "Bug" else traceback.format_exc()
            click.echo(text, err=True)
            click.echo("kpibackfill: this is a bug; please report it with the lines above.", err=True)
            self._told(ctx, "bug", type(error).__name__, "failed")
            ctx.exit(70)

    def _told(self, ctx: click.Context, code: str, message: str, state: str) -> None:
        found = ctx.find_object(dict) or {}
        if found.get("json"):
            _print_json({"run_id": found.get("run_id"), "state": state, "error": {"code": code, "message": message}})


@click.group(cls=Cli, context_settings=HELP)
@click.version_option(__version__, prog_name="kpibackfill")
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file instead of the nearest one.")
@click.pass_context
def main(ctx: click.Context, config: Path | None) -> None:
    """Recompute a makerspace's KPIs, see how they differ from the stored rows, and correct those on the record.

    \b
    Examples:
      kpibackfill demo                             build the demo makerspace
      kpibackfill run --from-year 2015             dry run of 2015 on the demo
      kpibackfill run --target live --from-year 2015 --to-year 2024
      kpibackfill check --target live              is everything in place?
    """
    ctx.obj = {"config": config, "json": False, "run_id": None}


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


@main.command()
@click.option("--target", default="demo", show_default=True, help="A target of kpibackfill.toml.")
@click.option("--from-year", type=int, help="First year, inclusive; by default last year.")
@click.option("--to-year", type=int, help="Last year, inclusive; by default the first.")
@click.option("--snapshot-types", default="annually,annual", show_default=True, help="Kinds of snapshot, with commas.")
@click.option("--kpis", default="", help="KPI ids instead of the default set, with commas.")
@click.option("--include-risky", is_flag=True, help="Add the risky KPIs to the default set.")
@click.option("--apply", is_flag=True, help="Write. Without it nothing is written.")
@click.option("--approved-plan", default="", help="Fingerprint or run id of the reviewed dry run to apply.")
@click.option("--decisions", default="", help="CSV file with decisions on single rows.")
@click.option("--revert-of", default="", help="Run id whose before-images are to be restored.")
@click.option("--reason", default="", help="Why, in a sentence.")
@click.option("--operator", default="", help="Who; by default the system's user.")
@click.option("--as-of", help="The instant that “last year” goes by; by default now.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 after a dry run whose plan is not empty.")
@json_option
@click.pass_context
def run(ctx: click.Context, as_json: bool, exit_code: bool, **values: Any) -> None:
    """Execute the notebook by papermill: a dry run, unless --apply is given.

    \b
    Examples:
      kpibackfill run --from-year 2015 --to-year 2024
      kpibackfill run --target live --from-year 2024 --kpis education_nps
      kpibackfill run --target live --from-year 2024 --apply --approved-plan RUN --reason "runbook, step 4"
    """
    from kpibackfill.execute import run_notebook
    from kpibackfill.record.receipt import as_json as document

    _begin(ctx, as_json)
    progress = _progress()
    try:
        record = run_notebook(values | {"decisions": _absolute(values["decisions"])}, _config(ctx), progress, ctx.obj)
    finally:
        progress("")
    receipt = record.receipt
    if as_json:
        _print_json(document(receipt, record.folder))
    else:
        from kpibackfill.summary import run_summary

        click.echo(run_summary(receipt, record.folder))
    if exit_code and receipt["state"] == "dry_run" and receipt["plan"]["rows"]:
        ctx.exit(1)


@main.command()
@click.option("--replace", is_flag=True, help="Build it anew where it is there already.")
@json_option
@click.pass_context
def demo(ctx: click.Context, replace: bool, as_json: bool) -> None:
    """Build the demo makerspace, a SQLite database with ten years of data and a story in it.

    \b
    Examples:
      kpibackfill demo
      kpibackfill run --from-year 2015 --to-year 2024
    """
    from dataclasses import asdict

    from kpibackfill.demo import build_demo

    _begin(ctx, as_json)
    target = _config(ctx).target("demo")
    path = Path(target.store_url.database or "")
    if path.exists() and not replace:
        click.echo(f"The demo makerspace is there already: {path}", err=True)
        if as_json:
            _print_json({"path": str(path), "built": False})
        return
    summary = build_demo(path, replace=replace)
    if as_json:
        _print_json(
            {"built": True, **{name: str(v) if isinstance(v, Path) else v for name, v in asdict(summary).items()}}
        )
        return
    click.echo(
        f"Built {path}: {summary.registrations:,} registrations for {summary.events:,} events, "
        f"{summary.evaluations:,} evaluations, {summary.snapshots} snapshots, {summary.kpi_rows} KPI rows."
    )
    click.echo(f"Next: kpibackfill run --from-year {summary.from_year} --to-year {summary.until_year}")


@main.command()
@json_option
@click.pass_context
def kpis(ctx: click.Context, as_json: bool) -> None:
    """List the KPIs with their descriptions, the site's own included.

    \b
    Examples:
      kpibackfill kpis
      kpibackfill kpis --json
    """
    from kpibackfill.kpis import registry

    _begin(ctx, as_json)
    found = registry.load(_config(ctx).site.kpi_modules)
    if as_json:
        _print_json([registry.as_dict(entry) for entry in found.values()])
        return
    for entry in found.values():
        mark = click.style("  risky: only on request", fg="yellow") if entry.risky else ""
        click.echo(f"{click.style(entry.kpi_id, bold=True)}  ({entry.family}, {entry.unit}){mark}")
        click.echo(f"    {entry.label}. {entry.description}")
        click.echo(f"    reads {', '.join(entry.sources)}")


@main.command()
@click.option("--target", default="demo", show_default=True, help="A target of kpibackfill.toml.")
@json_option
@click.pass_context
def check(ctx: click.Context, target: str, as_json: bool) -> None:
    """Look whether everything is in place: configuration, connection, rights, tables, snapshots.

    \b
    Examples:
      kpibackfill check
      kpibackfill check --target live
    """
    from kpibackfill.check import check_target, next_command

    _begin(ctx, as_json)
    config = _config(ctx)
    findings = check_target(config, config.target(target))
    failed = any(finding.level == "wrong" for finding in findings)
    if as_json:
        _print_json({"target": target, "ok": not failed, "findings": [finding.as_dict() for finding in findings]})
    else:
        colours = {"ok": "green", "note": "yellow", "wrong": "red"}
        for finding in findings:
            click.echo(f"{click.style(f'{finding.level:5}', fg=colours[finding.level])}  {finding.text}")
        click.echo(next_command(findings, target))
    if failed:
        ctx.exit(2)


def _begin(ctx: click.Context, as_json: bool) -> None:
    ctx.obj["json"] = as_json


def _config(ctx: click.Context) -> Any:
    from kpibackfill.config import load_config

    return load_config(ctx.obj["config"])


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if path else ""


def _progress() -> Callable[[str], None]:
    """Writes one line that is renewed on a terminal, and a line each where the output goes to a file."""
    terminal = sys.stderr.isatty()

    def show(text: str) -> None:
        if terminal:
            click.echo(f"\r\x1b[2K{text}", err=True, nl=False)
        elif text:
            click.echo(text, err=True)

    return show


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
