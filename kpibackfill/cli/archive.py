"""Commands that read the archive: runs, show, diff, history, verify, archive."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from kpibackfill.cli import completing, main
from kpibackfill.cli.base import answer, configuration, narrowing
from kpibackfill.text import some


def _warn(runs_dir: Path) -> None:
    """Say which lines of the ledger could not be used."""
    from kpibackfill.archive import ledger

    numbers = ledger.passed_over(runs_dir)
    if numbers:
        click.echo(
            f"Left out: {'line' if len(numbers) == 1 else 'lines'} {some(numbers)} of the ledger, altered or cut off. "
            "Run `kpibackfill verify` for details.",
            err=True,
        )


@main.command(short_help="List the runs on record.")
@click.option("--target", shell_complete=completing.target, help="Only runs of this target.")
@click.option("--year", type=int, help="Only runs that cover this year.")
@click.option("--kpi", shell_complete=completing.kpi_ids, help="Only runs that computed this KPI.")
@click.option(
    "--state",
    shell_complete=completing.state,
    help="Only runs in this state: applied, dry_run, refused, failed, planned, unsettled.",
)
def runs(target: str | None, year: int | None, kpi: str | None, state: str | None) -> None:
    """List the runs on record and their states, oldest first.

    \b
    Examples:
      kpibackfill runs
      kpibackfill runs --target live --year 2019 --state applied
    """
    from kpibackfill.archive import runs as runs_on_record
    from kpibackfill.reporting import terminal

    config = configuration()
    runs_on_record.refuse_unknown_target(config, target)
    found = runs_on_record.list_runs(config.runs_dir, target=target, year=year, kpi=kpi, state=state)
    _warn(config.runs_dir)
    answer(lambda: [run.as_json() for run in found], lambda: terminal.runs_text(found))


@main.command(short_help="Show a run: results, rows, who and why.")
@click.argument("run", shell_complete=completing.run_to_read)
def show(run: str) -> None:
    """Show a run: its results, what it wrote, who ran it and why, and how the values were computed.

    RUN is a run id, the beginning or end of one, or `latest`.

    \b
    Examples:
      kpibackfill show latest
      kpibackfill show 9e7593 --json
    """
    from kpibackfill.archive import history
    from kpibackfill.archive import runs as runs_on_record
    from kpibackfill.reporting.run_summary import show_text

    runs_dir = configuration().runs_dir
    found = runs_on_record.show_run(runs_dir, runs_on_record.resolve_run(runs_dir, run))
    answer(found.as_json, lambda: show_text(found, history.changes(runs_dir, run_id=found.run_id)))


@main.command(short_help="Compare two runs and say why they differ.")
@click.argument("one", shell_complete=completing.run_to_read)
@click.argument("other", shell_complete=completing.run_to_read)
def diff(one: str, other: str) -> None:
    """Compare two runs: which rows differ and why, and their parameters, code, SQL and packages.

    ONE and OTHER are run ids, the beginning or end of one, or `latest`.

    \b
    Examples:
      kpibackfill diff 9e7593 latest
      kpibackfill diff 20250114 20260113 --json
    """
    from kpibackfill.archive.diff import compare_runs
    from kpibackfill.reporting import terminal

    found = compare_runs(configuration().runs_dir, one, other)
    answer(found.as_json, lambda: terminal.diff_text(found))


@main.command(short_help="List every value written to a row.")
@click.option("--target", shell_complete=completing.target, help="Only rows of this target.")
@click.option("--year", type=int, help="Only rows of this year.")
@click.option("--kpi", shell_complete=completing.kpi_ids, help="Only rows of this KPI.")
@click.option("--snapshot", "snapshot_id", type=int, help="Only rows of this snapshot.")
def history(**chosen: Any) -> None:
    """List every value that was ever written to a row: when, by which run, what it replaced, and why.

    \b
    Examples:
      kpibackfill history --kpi education_nps
      kpibackfill history --target live --year 2019 --json
    """
    from kpibackfill.archive.history import select
    from kpibackfill.reporting import terminal

    config = configuration()
    found = select(config, **chosen)
    _warn(config.runs_dir)
    answer(lambda: [change.as_json() for change in found], lambda: terminal.history_text(found))


@main.command(short_help="Check the archive, or a target against it.")
@narrowing("--head", "Head digest noted earlier: check that the ledger still contains it.", metavar="DIGEST")
@click.option(
    "--target",
    shell_complete=completing.target,
    help="Also compare this target's rows with the archive, and its page with them.",
)
def verify(head: str, target: str | None) -> None:
    """Check the archive against its ledger, name each file or line that has changed, and print the head digest.

    Keep the head somewhere else: passing it later with --head shows that nothing recorded by then was removed or
    rewritten. Exits with status 2 if there are findings.

    \b
    Examples:
      kpibackfill verify
      kpibackfill verify --head 7d34e7a7d00da61c551c055318f40ae2a6034fcb57e51c2034a5f79c801c9510
      kpibackfill verify --target live
    """
    from kpibackfill.reporting import terminal

    config = configuration()
    if target is None:
        from kpibackfill.archive.verify import verify as check

        verdict = check(config.runs_dir, head)
    else:
        from kpibackfill.archive.reconcile import reconcile

        verdict = reconcile(config, target, head)
    answer(
        lambda: {"ok": not verdict.findings, **asdict(verdict)},
        lambda: terminal.verify_text(verdict),
        status=2 if verdict.findings else 0,
    )


@main.command(short_help="Import a notebook executed by plain papermill.")
@click.argument("notebook", type=click.Path(path_type=Path))
def archive(notebook: Path) -> None:
    """Import the output notebook of a plain papermill execution into the record of its run.

    \b
    Examples:
      papermill kpi_backfill.ipynb out.ipynb -p from_year 2024
      kpibackfill archive out.ipynb
    """
    from kpibackfill.lifecycle.import_notebook import import_notebook

    record = import_notebook(configuration().runs_dir, notebook)
    answer(
        lambda: {"run_id": record.run_id, "run_dir": str(record.folder)},
        lambda: f"Added the notebook to {record.run_id}: {record.folder / 'notebook.ipynb'}",
    )
