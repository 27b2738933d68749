"""Checks that everything is in place for a target: each line is fine or says what to do.

Nothing is written; an account that may only SELECT is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import pandas as pd

from kpibackfill.checks.finding import Finding, next_command, note, ok, wrong
from kpibackfill.checks.sources import check_sources
from kpibackfill.checks.store import check_store
from kpibackfill.config import Config, Target, load_config, masked_url
from kpibackfill.database.engine import reading
from kpibackfill.database.inspection import server_name, server_version
from kpibackfill.errors import KpiBackfillError
from kpibackfill.kpis import registry
from kpibackfill.reporting.notebook_tables import Lines
from kpibackfill.text import count

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["Finding", "check", "check_target", "next_command"]

_PASSWORD = re.compile(r"://[^/@:]*:[^@]+@|[?&][^=&]*(?:pass|pwd|token|secret|key)[^=&]*=[^&]", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{\w+\}")


def check(target: str = "demo") -> pd.DataFrame:
    """Check that everything is in place for a target; nothing is written.

    Parameters
    ----------
    target : a target of ``kpibackfill.toml``.

    Returns
    -------
    DataFrame with one row per finding: `level` (``ok``, ``note`` or ``wrong``), `text`, and `command`, the next command
    to type ("" for none).

    Raises
    ------
    Refused : there is no configuration, or no such target.
    """
    config = load_config()
    return Lines([finding.as_dict() for finding in check_target(config, config.target(target))])


def check_target(config: Config, target: Target) -> list[Finding]:
    """The findings for a target, in the order in which to fix them; a database that is down is one of them."""
    findings: list[Finding] = []
    try:
        findings.extend(_configuration(config, target))
        for finding in _databases(config, target):
            findings.append(finding)  # noqa: PERF402  one by one, to keep those found before a failure
    except KpiBackfillError as error:
        findings.append(_failed(error, target))
    return findings


def _configuration(config: Config, target: Target) -> Iterator[Finding]:
    _ = target.store_url, target.sources_url
    kpis = registry.load(config.site.kpi_modules)
    yield ok(f"{config.path}: target {target.name!r}, {count(len(kpis), 'KPI')}.")
    for key, url in (("store", target.store), ("sources", target.sources)):
        if url is not None and _PASSWORD.search(_VARIABLE.sub("", url.get_secret_value())):
            yield note(
                f"targets.{target.name}.{key} has a password in {config.path.name} itself. Write ${{VARIABLE}} instead "
                "and set that variable in the environment."
            )
    now = f"{datetime.now(target.zone):%Y-%m-%d %H:%M}"
    if "timezone" in target.model_fields_set:
        yield ok(f"Time zone {target.timezone}, where it is {now}.")
    else:
        yield note(
            f"No time zone is set, so UTC is used (it is {now}). Years begin and end by it: set "
            f"targets.{target.name}.timezone to the site's, which Drupal shows under Configuration, Regional settings."
        )


def _databases(config: Config, target: Target) -> Iterator[Finding]:
    site = config.site
    kpis = list(registry.load(site.kpi_modules).values())
    with reading(target.store_url, site) as connection:
        yield _connected("store", connection, target)
        yield from check_store(connection, site, target, kpis)
        if target.sources_are_store:
            yield from check_sources(connection, site, kpis)
    if not target.sources_are_store:
        with reading(target.sources_url, site) as connection:
            yield _connected("sources", connection, target)
            yield from check_sources(connection, site, kpis)


def _connected(key: str, connection: Connection, target: Target) -> Finding:
    server = f"{server_name(connection)} {server_version(connection)}".rstrip()
    url = target.store_url if key == "store" else target.sources_url
    return ok(f"Connected to the {key}, {server}: {masked_url(url)}")


def _failed(error: KpiBackfillError, target: Target) -> Finding:
    text = re.sub(r" `kpibackfill check` [^`]*$", "", error.message)  # what it recommends is running now
    for secret in target.secrets() if error.code != "configuration" else ():
        text = text.replace(secret, "***")
    if error.code == "database":
        return wrong(f"{text} Is the server up, is the tunnel open, and are host, account and password right?")
    return wrong(text, "kpibackfill demo" if error.code == "database_missing" and target.name == "demo" else "")
