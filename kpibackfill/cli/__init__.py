"""The command line: executes the notebook and reads the archive; each command is a thin wrapper around one function."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import click

from kpibackfill.cli import completing
from kpibackfill.cli.base import (
    HELP,
    Cli,
    absolute,
    config_of,
    decisions_option,
    json_option,
    narrowing,
    print_json,
    progress_line,
    target_option,
)
from kpibackfill.errors import Refused
from kpibackfill.text import count, printable
from kpibackfill.version import __version__


@click.group(cls=Cli, context_settings=HELP)
@click.version_option(__version__, prog_name="kpibackfill")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file to use instead of the nearest one.")
@click.pass_context
def main(ctx: click.Context, config: Path | None) -> None:
    """Recompute a makerspace's KPIs, see how they differ from the stored rows, and correct those on the record.

    \b
    Examples:
      kpibackfill demo                             build the demo makerspace
      kpibackfill run --from-year 2015             dry run of 2015 on the demo
      kpibackfill run --target live --from-year 2015 --to-year 2024
      kpibackfill check --target live              check that everything is in place
    """
    ctx.obj.config = config
    if os.environ.get("NO_COLOR"):
        ctx.color = False


@main.command(short_help="Execute the notebook: a dry run unless --apply is given.")
@target_option
@click.option("--from-year", type=int, help="First year, inclusive (default: last year).")
@click.option("--to-year", type=int, help="Last year, inclusive (default: --from-year).")
@click.option(
    "--snapshot-types", default="annually,annual", show_default=True, help="Snapshot types, separated by commas."
)
@narrowing(
    "--kpis", "KPI ids to compute instead of the default set, separated by commas.", shell_complete=completing.kpi_ids
)
@click.option("--include-risky", is_flag=True, help="Also compute the risky KPIs.")
@click.option("--apply", is_flag=True, help="Write the planned rows. Without it, nothing is written.")
@narrowing("--approved-plan", "Fingerprint or run id of the reviewed dry run to apply.", shell_complete=completing.run)
@decisions_option
@narrowing("--revert-of", "Id of the run whose before-images to restore.", shell_complete=completing.run)
@click.option("--reason", default="", help="Why you run this, in one sentence.")
@click.option("--operator", default="", help="Who runs this (default: the system user).")
@click.option("--as-of", help="Instant that decides which year is “last year” (default: now).")
@click.option("--exit-code", is_flag=True, help="Exit with status 1 after a dry run whose plan is not empty.")
@json_option
@click.pass_context
def run(ctx: click.Context, /, as_json: bool, exit_code: bool, **values: Any) -> None:
    """Execute the notebook with papermill: a dry run unless --apply is given.

    \b
    Examples:
      kpibackfill run --from-year 2015 --to-year 2024
      kpibackfill run --target live --from-year 2024 --kpis education_nps
      kpibackfill run --target live --from-year 2024 --apply --approved-plan RUN --reason "runbook, step 4"
    """
    execute(ctx, values, as_json=as_json, exit_code=exit_code)


def execute(ctx: click.Context, values: dict[str, Any], *, as_json: bool, exit_code: bool) -> None:
    """Execute the notebook with these parameters and print how the run ended."""
    from kpibackfill.archive.run_record import as_json as document
    from kpibackfill.execution.papermill import run_notebook

    values = values | {"decisions": absolute(values["decisions"])}
    with progress_line() as progress:
        outcome = run_notebook(values, config_of(ctx), progress, ctx.obj.began)
    for remark in outcome.remarks:
        click.echo(f"kpibackfill: {printable(remark)}", err=True)
    record, receipt = outcome.record, outcome.record.receipt
    ctx.obj.status = int(exit_code and receipt.state == "dry_run" and bool(receipt.plan and receipt.plan.rows))
    if as_json:
        print_json(document(receipt, record.folder))
    else:
        from kpibackfill.reporting.run_summary import run_summary

        click.echo(run_summary(receipt, record.folder))
    ctx.exit(ctx.obj.status)


@main.command(short_help="Build the demo makerspace.")
@click.option("--replace", is_flag=True, help="Rebuild it if it already exists.")
@json_option
@click.pass_context
def demo(ctx: click.Context, replace: bool, as_json: bool) -> None:
    """Build the demo makerspace: a SQLite database with ten years of data that tell a story.

    \b
    Examples:
      kpibackfill demo
      kpibackfill run --from-year 2015 --to-year 2024
    """
    from dataclasses import asdict

    from kpibackfill.demo import build_demo

    target = config_of(ctx).target("demo")
    url = target.store_url
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        raise Refused(
            "targets.demo is not a SQLite file, but the demo has to be one. Nothing was built; set its store to a "
            "SQLite file, or give your own target another name.",
            code="demo_target",
        )
    path = Path(url.database)
    if path.exists() and not replace:
        click.echo(f"The demo makerspace already exists: {path}", err=True)
        if as_json:
            print_json({"path": str(path), "built": False})
        return
    summary = build_demo(path, replace=replace)
    if as_json:
        print_json(
            {"built": True, **{name: str(v) if isinstance(v, Path) else v for name, v in asdict(summary).items()}}
        )
        return
    click.echo(
        f"Built {path}: {count(summary.registrations, 'registration')} for {count(summary.events, 'event')}, "
        f"{count(summary.evaluations, 'evaluation')}, {count(summary.snapshots, 'snapshot')}, "
        f"{count(summary.kpi_rows, 'KPI row')}."
    )
    click.echo(f"Next: kpibackfill run --from-year {summary.from_year} --to-year {summary.until_year}")


@main.command(short_help="List the KPIs.")
@json_option
@click.pass_context
def kpis(ctx: click.Context, as_json: bool) -> None:
    """List the KPIs with their descriptions, including the site's own.

    \b
    Examples:
      kpibackfill kpis
      kpibackfill kpis --json
    """
    from kpibackfill.kpis import registry

    found = registry.load(config_of(ctx).site.kpi_modules)
    if as_json:
        print_json([registry.as_dict(entry) for entry in found.values()])
        return
    for entry in found.values():
        mark = click.style("  risky: computed only on request", fg="yellow") if entry.risky else ""
        click.echo(f"{click.style(entry.kpi_id, bold=True)}  ({entry.family}, {entry.unit}){mark}")
        click.echo(f"    {entry.label}. {entry.description}")
        click.echo(f"    reads {', '.join(entry.sources)}")


@main.command(short_help="Check that everything is in place.")
@target_option
@json_option
@click.pass_context
def check(ctx: click.Context, target: str, as_json: bool) -> None:
    """Check that everything is in place: configuration, connection, privileges, tables, snapshots.

    \b
    Examples:
      kpibackfill check
      kpibackfill check --target live
    """
    from kpibackfill.checks import check_target, next_command

    config = config_of(ctx)
    findings = check_target(config, config.target(target))
    failed = any(finding.level == "wrong" for finding in findings)
    if as_json:
        print_json(
            {
                "target": target,
                "ok": not failed,
                "findings": [finding.as_dict() for finding in findings],
                "next": next_command(findings, target),
            }
        )
    else:
        colours = {"ok": "green", "note": "yellow", "wrong": "red"}
        for finding in findings:
            click.echo(f"{click.style(f'{finding.level:5}', fg=colours[finding.level])}  {finding.text}")
        click.echo(f"Next: {next_command(findings, target)}")
    if failed:
        ctx.exit(2)


# Importing each of these modules adds its commands to `main`.
for _name in ("archive", "review", "explain"):
    importlib.import_module(f"kpibackfill.cli.{_name}")
