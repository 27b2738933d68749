"""Shell completion of values: targets, KPI ids, runs and their states.

A person who presses Tab expects a word or nothing, so nothing is raised or printed here, even if the configuration is
broken.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from kpibackfill.config import Config

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _from(words: Callable[[Config], Iterable[str]]) -> Complete:
    """Complete with those words that start with what was typed, in a list with what was typed after its last comma."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, begun = incomplete.rpartition(",")
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                from kpibackfill.config import load_config

                found = list(words(load_config(ctx.find_root().params.get("config"))))
        except Exception:  # noqa: BLE001  of any kind: see the first lines
            return []
        return [CompletionItem(f"{before}{comma}{word}") for word in found if word.startswith(begun)]

    return complete


def _kpi_ids(config: Config) -> Iterable[str]:
    from kpibackfill.kpis import registry

    return registry.load(config.site.kpi_modules)


def _runs(config: Config) -> Iterable[str]:
    return sorted(path.parent.name for path in config.runs_dir.glob("*/receipt.json"))


def _states(_config: Config) -> Iterable[str]:
    from kpibackfill.archive.runs import STATES

    return STATES


target = _from(lambda config: config.targets)
kpi_ids = _from(_kpi_ids)
run = _from(_runs)
run_to_read = _from(lambda config: ("latest", *_runs(config)))
state = _from(_states)


def file(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave files to the shell, which knows them."""
    return [CompletionItem(incomplete, type="file")]
