"""Commands that explain: explain, notebooks."""

from __future__ import annotations

from pathlib import Path

import click

from kpibackfill.cli import completing, main
from kpibackfill.cli.base import answer, configuration, target_option


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
