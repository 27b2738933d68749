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
    answer,
    command_state,
    configuration,
    decisions_option,
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
    """Recompute a makerspace's KPIs, see how they differ from the stored rows, and correct them on the record.

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
def run(*, exit_code: bool, **values: Any) -> None:
    """Execute the notebook with papermill: a dry run unless --apply is given.

    \b
    Examples:
      kpibackfill run --from-year 2015 --to-year 2024
      kpibackfill run --target live --from-year 2024 --kpis education_nps
      kpibackfill run --target live --from-year 2024 --apply --approved-plan RUN --reason "runbook, step 4"
    """
    execute(values, exit_code=exit_code)


def execute(values: dict[str, Any], *, exit_code: bool) -> None:
    """Execute the notebook with these parameters and print how the run ended."""
    from kpibackfill.archive.run_record import as_json as document
    from kpibackfill.execution.papermill import run_notebook
    from kpibackfill.reporting.run_summary import run_summary

    values = values | {"decisions": absolute(values["decisions"])}
    with progress_line() as progress:
        outcome = run_notebook(values, configuration(), progress, command_state().began)
    for remark in outcome.remarks:
        click.echo(f"kpibackfill: {printable(remark)}", err=True)
    record, receipt = outcome.record, outcome.record.receipt
    state = command_state()
    state.status = int(exit_code and receipt.state == "dry_run" and bool(receipt.plan and receipt.plan.rows))
    answer(lambda: document(receipt, record.folder), lambda: run_summary(receipt, record.folder), state.status)


@main.command(short_help="Build the demo makerspace.")
@click.option("--replace", is_flag=True, help="Rebuild it if it already exists.")
def demo(replace: bool) -> None:
    """Build the demo makerspace: a SQLite database with ten years of data that tell a story.

    \b
    Examples:
      kpibackfill demo
      kpibackfill run --from-year 2015 --to-year 2024
    """
    from dataclasses import asdict

    from kpibackfill.demo import build_demo

    target = configuration().target("demo")
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
        if command_state().json:
            print_json({"path": str(path), "built": False})
        return
    built = build_demo(path, replace=replace)
    answer(
        lambda: {"built": True, **{name: str(v) if isinstance(v, Path) else v for name, v in asdict(built).items()}},
        lambda: (
            f"Built {path}: {count(built.registrations, 'registration')} for {count(built.events, 'event')}, "
            f"{count(built.evaluations, 'evaluation')}, {count(built.snapshots, 'snapshot')}, "
            f"{count(built.kpi_rows, 'KPI row')}.\n"
            f"Next: kpibackfill run --from-year {built.from_year} --to-year {built.until_year}"
        ),
    )


@main.command(short_help="List the KPIs.")
def kpis() -> None:
    """List the KPIs with their descriptions, including the site's own.

    \b
    Examples:
      kpibackfill kpis
      kpibackfill kpis --json
    """
    from kpibackfill.kpis import registry

    found = registry.load(configuration().site.kpi_modules).values()
    risky = click.style("  risky: computed only on request", fg="yellow")
    lines = [
        f"{click.style(entry.kpi_id, bold=True)}  ({entry.family}, {entry.unit}){risky * entry.risky}\n"
        f"    {entry.label}. {entry.description}\n"
        f"    reads {', '.join(entry.sources)}"
        for entry in found
    ]
    answer(lambda: [registry.as_dict(entry) for entry in found], lambda: "\n".join(lines))


@main.command(short_help="Check that everything is in place.")
@target_option
def check(target: str) -> None:
    """Check that everything is in place: configuration, connection, privileges, tables, snapshots.

    \b
    Examples:
      kpibackfill check
      kpibackfill check --target live
    """
    from kpibackfill.checks import check_target, next_command

    config = configuration()
    findings = check_target(config, config.target(target))
    failed = any(finding.level == "wrong" for finding in findings)
    following = next_command(findings, target)
    listed = [finding.as_dict() for finding in findings]
    colours = {"ok": "green", "note": "yellow", "wrong": "red"}
    lines = [f"{click.style(f'{found.level:5}', fg=colours[found.level])}  {found.text}\n" for found in findings]
    answer(
        lambda: {"target": target, "ok": not failed, "findings": listed, "next": following},
        lambda: f"{''.join(lines)}Next: {following}",
        status=2 if failed else 0,
    )


# Importing each of these modules adds its commands to `main`.
for _name in ("archive", "review"):
    importlib.import_module(f"kpibackfill.cli.{_name}")
