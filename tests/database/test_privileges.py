"""Accounts created with the SQL in docs/connecting.md may do what they need to, and no more."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pandas.testing import assert_frame_equal

import kpibackfill as kb
from kpibackfill.checks import check_target
from kpibackfill.errors import KpiBackfillError
from tests.databases import (
    Database,
    add_cachetags,
    add_payload,
    both_layouts,
    civicrm_moved,
    connect,
    dump,
    on,
    prefix_tables,
)
from tests.workbench import Workbench

PAGE = (Path(__file__).parents[2] / "docs" / "connecting.md").read_text(encoding="utf-8")
BLOCKS = {
    (engine, name): sql
    for engine, name, sql in re.findall(r"<!-- (\w+) (\w+) -->\n```sql\n(.*?)```", PAGE, flags=re.DOTALL)
}
OPTIONAL = ("cachetags", "civicrm_value_demographics_15", "ms_fact_kpi_snapshot_id_seq")
"""What a site may lack; each has its own statement, so that the others work without it."""
servers = on("mariadb", "postgresql")
Account = Callable[..., Workbench]


def statements(database: Database, account: str, civicrm: str = "", prefix: str = "") -> list[str]:
    """The page's statements for `kpi_reader` or `kpi_writer`, for this database and CiviCRM's own, if it has one.

    The prefix of Drupal's tables is written where the page says.
    """
    sql = BLOCKS[database.name, "reader"].replace("kpi_reader", account)
    if account == "kpi_writer":
        sql += BLOCKS[database.name, "writer"]
    if civicrm:
        sql = re.sub(r"(drupal\.)?\b(civicrm_[a-z0-9_]+?)(?=[ ,\n])(?<!instructor)", rf"{civicrm}.\2", sql)
        if database.name == "postgresql":
            sql += BLOCKS["postgresql", "schema"].replace(" civicrm ", f" {civicrm} ").replace("kpi_reader", account)
    sql = re.sub(r"\b(?=ms_|cachetags|user_|users_|webform_|civicrm_event__)", prefix, sql)
    return [part for part in re.split(r";\n", sql) if account in part]


def execute(connection: sa.Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


@pytest.fixture
def account(bench: Workbench) -> Iterator[Account]:
    """Create an account as on the page, without what the database lacks, and configure the bench to use it."""
    database, name = bench.database, f"kpi_{secrets.token_hex(4)}"
    url = sa.make_url(database.url)

    def use(kind: str, civicrm: str = "", prefix: str = "") -> Workbench:
        with connect(database.url) as connection:
            inspector = sa.inspect(connection)
            there = inspector.get_table_names() + (inspector.get_table_names(civicrm) if civicrm else [])
            if database.name == "postgresql":
                there += inspector.get_sequence_names()
            there = [name.removeprefix(prefix) for name in there]
            for statement in statements(database, kind, civicrm, prefix):
                if all(optional in there or optional not in statement for optional in OPTIONAL):
                    execute(connection, statement.replace("drupal.", f"{url.database}.").replace(kind, name))
        bench.database = replace(
            database,
            url=url.set(username=name, password="choose-a-password").render_as_string(hide_password=False),
        )
        bench.configure()
        return bench

    yield use
    bench.database = database
    with connect(database.url) as connection:
        if database.name == "postgresql":
            execute(connection, f"DROP OWNED BY {name}")
            execute(connection, f"DROP ROLE {name}")
        else:
            execute(connection, f"DROP USER '{name}'@'%'")


@servers
@both_layouts
def test_the_reader_computes_what_an_administrator_computes(bench: Workbench, account: Account) -> None:
    add_cachetags(bench.database)
    expected = bench.steps(include_risky=True)
    steps = account("kpi_reader").steps(include_risky=True)
    assert_frame_equal(steps.readings.computed, expected.readings.computed)
    assert len(steps.plan) == len(expected.plan) > 0
    assert steps.plan.fingerprint == expected.plan.fingerprint


@servers
def test_the_reader_is_refused_an_apply_and_nothing_is_written(bench: Workbench, account: Account) -> None:
    add_cachetags(bench.database)
    admin, before = bench.database, dump(bench.database)
    steps = account("kpi_reader").steps(record=True, apply=True)
    with pytest.raises(KpiBackfillError, match=r"could not be written to: .*denied.*nothing was written"):
        kb.apply_plan(steps.run, steps.plan)
    assert dump(admin) == before
    assert steps.run.record is not None
    assert steps.run.record.receipt.as_json()["state"] == "failed"


@servers
@both_layouts
def test_the_writer_applies(bench: Workbench, account: Account) -> None:
    add_cachetags(bench.database)
    admin, before = bench.database, dump(bench.database)
    receipt = account("kpi_writer").finish(apply=True, include_risky=True)
    assert receipt["state"] == "applied"
    after = dump(admin)
    assert {table for table in after if after[table] != before[table]} == {"ms_fact_kpi_snapshot", "cachetags"}
    again = bench.finish(apply=True, include_risky=True)
    assert again["plan"]["rows"] == 0


@servers
def test_tables_that_a_site_lacks_need_no_grants(bench: Workbench, account: Account) -> None:
    with connect(bench.database.url) as connection:
        connection.exec_driver_sql("DROP TABLE civicrm_value_demographics_15")
    receipt = account("kpi_writer").finish(apply=True, from_year=2024, to_year=2024)
    assert receipt["state"] == "applied"


@servers
def test_where_cache_tags_are_not_in_the_database_the_server_answers_as_the_page_says(bench: Workbench) -> None:
    name = bench.database.name
    says = {"mariadb": "1146", "postgresql": 'relation "cachetags" does not exist'}[name]
    assert says in PAGE
    [grant] = [part for part in statements(bench.database, "kpi_writer") if "cachetags" in part]
    grant = grant.replace("drupal.", f"{sa.make_url(bench.database.url).database}.")
    with connect(bench.database.url) as connection, pytest.raises(sa.exc.DBAPIError, match=says):
        execute(connection, grant)


@servers
def test_check_says_that_the_reader_may_not_apply(bench: Workbench, account: Account) -> None:
    add_cachetags(bench.database)
    config = account("kpi_reader").config
    findings = check_target(config, config.target("test"))
    assert not [finding for finding in findings if finding.level == "wrong"]
    (rights,) = [finding for finding in findings if "The account may not" in finding.text]
    assert (rights.level, "INSERT, UPDATE, DELETE on ms_fact_kpi_snapshot" in rights.text) == ("note", True)
    assert "GRANT these privileges" in rights.text


@servers
@both_layouts
def test_check_says_that_the_writer_may_apply(bench: Workbench, account: Account) -> None:
    add_cachetags(bench.database)
    config = account("kpi_writer").config
    texts = [finding.text for finding in check_target(config, config.target("test")) if finding.level == "ok"]
    assert "The account may INSERT, UPDATE and DELETE KPI rows: an apply is possible." in texts
    assert "The account may invalidate Drupal's cache tags (cachetags)." in texts


@servers
def test_with_civicrm_in_a_database_of_its_own_the_reader_needs_rights_on_both(
    bench: Workbench, account: Account
) -> None:
    years: dict[str, Any] = {"from_year": 2024, "to_year": 2024, "include_risky": True}
    expected = bench.steps(**years).readings.computed
    with civicrm_moved(bench.database) as schema:
        account("kpi_reader", schema)
        config = bench.configure(site={"civicrm_schema": schema})
        assert not [one for one in check_target(config, config.target("test")) if one.level == "wrong"]
        assert_frame_equal(bench.steps(**years).readings.computed, expected)


@servers
@both_layouts
def test_the_writer_applies_where_drupals_tables_have_a_prefix(bench: Workbench, account: Account) -> None:
    add_cachetags(bench.database)
    prefix_tables(bench.database, "dru_")
    account("kpi_writer", prefix="dru_")
    config = bench.configure(site={"table_prefix": "dru_"})
    found = check_target(config, config.target("test"))
    found = [one for one in found if "dru_key_value" not in one.text]  # what the dashboard shows needs another right
    assert not [one for one in found if one.level == "wrong" or "may not" in one.text], found
    assert bench.finish(apply=True, include_risky=True)["state"] == "applied"


@servers
@pytest.mark.parametrize("granted", [False, True])
def test_what_the_dashboard_shows_needs_a_right_of_its_own(account: Account, bench: Workbench, granted: bool) -> None:
    add_payload(bench.database, education={"kpi_education_nps": {2024: 50.0}})
    url, name = sa.make_url(bench.database.url), BLOCKS[bench.database.name, "page"]
    reader = account("kpi_reader")
    if granted:
        with connect(url) as connection:
            user = str(sa.make_url(reader.database.url).username)
            execute(connection, name.replace("kpi_reader", user).replace("drupal.", f"{url.database}."))
    reader.configure(site={"kpi_id_prefix": "auto"})
    receipt = reader.finish(from_year=2024, to_year=2024, kpis="education_nps")
    notes = [note for note in receipt["notes"] if "key_value can't be used" in note]
    assert bool(notes) is not granted
    assert [cell["now_from"] for cell in receipt["page"]["cells"]] == (["payload"] if granted else ["rows"])
    said = reader.command("check", "--target", "test").stdout
    assert ("key_value can't be used" in said) is not granted
    for command in ("dashboard", "verify"):
        done = reader.command(command, "--target", "test")
        assert (done.exit_code, "key_value can't be used" in done.stdout) == (0, not granted)
