"""Commands that follow up on a run: review, approve, settle, revert, replay; and those that explain or copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kpibackfill.cli import completing, execute, main
from kpibackfill.cli.base import (
    answer,
    command_state,
    configuration,
    decisions_option,
    narrowing,
    progress_line,
    target_option,
)
from kpibackfill.text import count


@main.command(short_help="Write the decisions file of a dry run.")
@click.argument("run", shell_complete=completing.run_to_read)
@click.option("--output", type=click.Path(path_type=Path), help="File to write instead of ./decisions-RUN.csv.")
def review(run: str, output: Path | None) -> None:
    """Write the decisions file of a dry run: one line per planned or unsupported row, for you to fill in.

    The column decision takes accept, reject, defer, set (with a value) or remove; an empty cell defers. RUN is a run
    id, the beginning or end of one, or `latest`.

    \b
    Examples:
      kpibackfill review latest
      kpibackfill run --target live --from-year 2024 --decisions decisions-RUN.csv
    """
    from kpibackfill.planning.review import review as write

    written = write(run, output, config=configuration())
    answer(lambda: {"path": str(written.path), "rows": len(written.frame)}, lambda: str(written.path))
    if not command_state().json:
        click.echo(
            "Fill in decision, reason and reviewer, then run the same years with --decisions and this file.", err=True
        )


@main.command(short_help="Record your approval of a dry run's plan.")
@click.argument("run", shell_complete=completing.run)
@click.option("--note", required=True, help="Why you approve, in one sentence.")
@click.option("--by", default="", help="Who approves (default: the system user).")
def approve(run: str, note: str, by: str) -> None:
    """Record that you reviewed a dry run and approve its plan.

    RUN is the full id of a dry run.

    \b
    Examples:
      kpibackfill approve RUN --note "numbers agree with the annual report"
    """
    from kpibackfill.approval import approve as put
    from kpibackfill.archive.run_record import RunRecord
    from kpibackfill.reporting.sentences import apply_command

    config = configuration()
    found = put(config, run, note=note, by=by)
    receipt = RunRecord(config.runs_dir, run).receipt
    answer(
        lambda: found,
        lambda: (
            f"{found['by']} approved the plan of {run}: {count(found['rows'], 'row')}.\n"
            f"Next: {apply_command(receipt.parameters, receipt.target, run)}"
        ),
    )


@main.command(short_help="Find out whether an interrupted run wrote.")
@click.argument("run", shell_complete=completing.run)
def settle(run: str) -> None:
    """Find out whether a run that was interrupted while writing did write, and record the answer.

    RUN is the full id of the run.

    \b
    Examples:
      kpibackfill settle RUN
    """
    from kpibackfill.lifecycle import settle as settling
    from kpibackfill.reporting.sentences import settlement_sentence

    found = settling.settle(configuration(), run)
    answer(lambda: settling.as_json(run, found), lambda: settlement_sentence(run, found))


@main.command(short_help="Undo what a run wrote.")
@click.argument("run", shell_complete=completing.run)
@click.option("--apply", is_flag=True, help="Write the planned rows. Without it, nothing is written.")
@narrowing("--approved-plan", "Fingerprint or run id of the revert's reviewed dry run.", shell_complete=completing.run)
@decisions_option
@click.option("--reason", default="", help="Why you run this, in one sentence.")
@click.option("--operator", default="", help="Who runs this (default: the system user).")
@click.option("--exit-code", is_flag=True, help="Exit with status 1 after a dry run whose plan is not empty.")
def revert(*, run: str, exit_code: bool, **values: Any) -> None:
    """Undo what a run wrote, restoring the rows as they were before: a dry run unless --apply is given.

    A row that someone has changed since is left alone and reported. RUN is the full id of the run.

    \b
    Examples:
      kpibackfill revert RUN
      kpibackfill revert RUN --apply --approved-plan DRY-RUN --reason "wrong definition"
    """
    from kpibackfill.revert import written_by

    target = written_by(configuration(), run).parameters.target
    execute({**values, "revert_of": run, "target": target}, exit_code=exit_code)


@main.command(short_help="Re-run a past run and compare.")
@click.argument("run", shell_complete=completing.run)
def replay(run: str) -> None:
    """Re-run a past run with its parameters, as of its own instant, as a dry run; then compare the numbers.

    Exits with status 2 if a number differs. RUN is the full id of the run.

    \b
    Examples:
      kpibackfill replay RUN
    """
    from kpibackfill.execution.replay import replay as ask
    from kpibackfill.execution.replay import text

    with progress_line() as progress:
        found = ask(configuration(), run, progress)
    answer(
        lambda: {
            "run_id": found.run_id,
            "replayed_by": found.replayed_by,
            "same": found.same,
            "compared": found.compared,
            "settings": found.difference.settings,
            "rows": found.rows_as_json(),
        },
        lambda: text(found),
        status=0 if found.same else 2,
    )


@main.command(short_help="Explain how a value is computed.")
@click.argument("kpi", metavar="KPI", shell_complete=completing.kpi_ids)
@click.option("--year", type=int, required=True, help="The year to explain.")
@target_option
@click.option("--as-of", help="Instant that decides which month is the current one (default: now).")
def explain(kpi: str, year: int, target: str, as_of: str | None) -> None:
    """Explain how the value of KPI for a year is computed, and what was left out and why.

    This only reads, and leaves no record. A rate based on fewer than five people is shown as "< 5"; --json keeps the
    numbers.

    \b
    Examples:
      kpibackfill explain workshop_attendees --year 2024
      kpibackfill explain education_nps --year 2018 --target live
      kpibackfill explain workshop_participants_bipoc --year 2024 --json
    """
    from kpibackfill.explaining.explanation import explain as explain_value

    found = explain_value(kpi, year=year, target=target, as_of=as_of, config=configuration())
    answer(found.as_dict, lambda: repr(found))


@main.command(short_help="Show the dashboard's page next to the rows.")
@target_option
@click.option("--computed", is_flag=True, help="Also compute what a run would, for the snapshots of these years.")
@narrowing("--kpis", "KPI ids instead of all, separated by commas.", shell_complete=completing.kpi_ids)
@click.option("--include-risky", is_flag=True, help="Compute the risky KPIs too, without naming them.")
@click.option("--from-year", type=int, help="First column, inclusive (default: all that the page has).")
@click.option("--to-year", type=int, help="Last column, inclusive (default: --from-year).")
@click.option("--as-of", help="Instant that is now (default: now).")
@click.option("--exit-code", is_flag=True, help="Exit with status 1 where the page shows other numbers than the rows.")
def dashboard(*, exit_code: bool, **values: Any) -> None:
    """Show what the dashboard's page shows now, by KPI and year, next to the stored row that shows.

    What needs attention comes first. This only reads, and leaves no record. A rate based on fewer than five people is
    shown as "< 5", as far as that is known.

    \b
    Examples:
      kpibackfill dashboard
      kpibackfill dashboard --target live --computed
      kpibackfill dashboard --target live --exit-code --json
    """
    from kpibackfill.page_view import dashboard as look
    from kpibackfill.reporting.dashboard import MARKS

    found = look(**values, config=configuration())
    lines = (click.style(line, fg="yellow") if line.startswith(MARKS) else line for line in repr(found).splitlines())
    answer(found.as_dict, lambda: "\n".join(lines), status=int(exit_code and not found.agrees))


@main.command(short_help="Copy the notebooks to a folder.")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def notebooks(folder: Path) -> None:
    """Copy the notebooks to the folder DIR, with a starter kpibackfill.toml if it has none.

    Existing files are left as they are.

    \b
    Examples:
      kpibackfill notebooks .
      kpibackfill notebooks ~/kpis && cd ~/kpis && jupyter lab kpi_backfill.ipynb
    """
    from kpibackfill.scaffold import copy_notebooks

    copied = copy_notebooks(folder)
    answer(
        lambda: {"folder": str(copied.folder), "written": list(copied.written), "kept": list(copied.kept)},
        lambda: str(copied),
    )
