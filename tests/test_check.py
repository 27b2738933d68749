"""`check` on real databases: it finds what is wrong, and writes nothing."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.checks import check_target, next_command
from kpibackfill.checks.finding import Finding
from kpibackfill.config import load_config
from kpibackfill.errors import Refused
from kpibackfill.kpis import registry
from tests.databases import ReferenceDatabases, add_cachetags, add_payload, both_layouts, connect, dump, on
from tests.workbench import Workbench, refusal

PAGE = (Path(__file__).parent.parent / "docs" / "connecting.md").read_text(encoding="utf-8")
servers = on("mariadb", "postgresql")

# The last year that is over and has a snapshot in the reference.
LAST = min(datetime.now(UTC).year - 1, 2026)


def findings(bench: Workbench) -> list[Finding]:
    config = bench.config
    return check_target(config, config.target("test"))


def change(bench: Workbench, *statements: str) -> None:
    with connect(bench.database.url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def texts(found: Sequence[Finding], level: str) -> list[str]:
    return [finding.text for finding in found if finding.level == level]


def line(bench: Workbench, level: str, pattern: str) -> str:
    """The only line of that level that matches."""
    found = findings(bench)
    matching = [text for text in texts(found, level) if re.search(pattern, text)]
    assert len(matching) == 1, found
    return matching[0]


def test_the_server_is_called_by_its_own_name(bench: Workbench) -> None:
    assert line(bench, "ok", "^Connected to the store").startswith(f"Connected to the store, {bench.database.name} ")


@both_layouts
def test_a_healthy_site_has_nothing_wrong_and_nothing_is_written(bench: Workbench, layout: str) -> None:
    add_cachetags(bench.database)
    before = dump(bench.database)
    found = findings(bench)
    assert texts(found, "wrong") == []
    notes = [text for text in texts(found, "note") if "has a password" not in text]  # the tests' own store has one
    # The reference holds six rows under prefixed ids.
    assert ["unique key" in text for text in notes] == [True, False] if layout == "surrogate" else [False], notes
    assert next_command(found, "test") == f"kpibackfill run --target test --from-year {LAST}"
    assert dump(bench.database) == before
    said = "\n".join(texts(found, "ok") + texts(found, "note"))
    for word in ("Connected", "unique key", "an apply is possible", "cachetags", "2019: 1, 2020: 0", "Time zone UTC"):
        assert word in said, word


@pytest.mark.parametrize(
    ("statement", "level", "said"),
    [
        ("DROP TABLE ms_fact_org_snapshot", "wrong", "ms_fact_org_snapshot can't be used: it doesn't exist"),
        ("ALTER TABLE ms_fact_kpi_snapshot DROP COLUMN meta", "wrong", "it lacks meta"),
        ("DROP TABLE ms_snapshot", "wrong", "ms_snapshot can't be used"),
        ("DROP TABLE civicrm_event", "wrong", "civicrm_event can't be used: it doesn't exist.*workshop_attendees"),
        ("ALTER TABLE civicrm_participant DROP COLUMN is_test", "wrong", "civicrm_participant .*it lacks is_test"),
        ("DROP TABLE user__roles", "note", "user__roles can't be used.*active_instructors_bipoc"),
        ("DROP TABLE civicrm_value_demographics_15", "note", "Rates by ethnicity will have no data"),
        ("ALTER TABLE civicrm_value_demographics_15 DROP COLUMN custom_46", "note", "none of the columns custom_46"),
        ("SELECT 1", "note", "cachetags is not in use.*clear Drupal's caches"),
        ("UPDATE ms_fact_kpi_snapshot SET kpi_id = 'Education_NPS' WHERE kpi_id = 'education_nps'", "wrong", "in case"),
        ("UPDATE ms_snapshot SET snapshot_date = '2024-13-01' WHERE id = 1", "wrong", "'2024-13-01'. Fix them"),
        (
            "UPDATE ms_snapshot SET definition = 'totals' WHERE definition LIKE 'mem%'",
            "note",
            "no snapshot with the definition.*totals",
        ),
        ("DELETE FROM ms_snapshot WHERE snapshot_type LIKE 'annual%'", "note", "no annual snapshot.*133 monthly"),
        ("UPDATE civicrm_option_value SET label = 'Class' WHERE label = 'Ticketed Workshop'", "note", "'Class'"),
        ("UPDATE civicrm_option_value SET label = 'Class'", "note", "instructor_labels"),
        (
            "UPDATE webform_submission SET webform_id = 'survey'",
            "note",
            "evaluation_webform. has no submissions; forms in use: survey",
        ),
        ("DELETE FROM webform_submission_data WHERE name LIKE 'how%'", "note", "recommend_field"),
        ("UPDATE user__roles SET roles_target_id = 'teacher'", "note", "Nobody has the role 'instructor'"),
    ],
)
def test_each_problem_is_found(bench: Workbench, statement: str, level: str, said: str) -> None:
    change(bench, statement)
    line(bench, level, said)


@pytest.mark.parametrize("layout", ["surrogate"], indirect=True)
def test_duplicate_keys_are_wrong(bench: Workbench) -> None:
    columns = "snapshot_id, kpi_id, metric_value, period_year, period_month, meta"
    change(
        bench,
        f"INSERT INTO ms_fact_kpi_snapshot ({columns}) SELECT {columns} FROM ms_fact_kpi_snapshot "  # noqa: S608 - our own names
        "WHERE kpi_id = 'education_nps'",
    )
    assert "education_nps)" in line(bench, "wrong", "duplicate keys")


@on("mariadb")
def test_a_table_that_cannot_roll_back_is_wrong(bench: Workbench) -> None:
    change(bench, "ALTER TABLE ms_fact_kpi_snapshot ENGINE=MyISAM")
    assert "ENGINE=InnoDB" in line(bench, "wrong", "can't roll back")


@on("mariadb")
def test_a_wrong_password_is_one_line_without_the_password(bench: Workbench) -> None:
    name = sa.make_url(bench.database.url).database
    change(bench, f"CREATE USER '{name}'@'%' IDENTIFIED BY 'right'")
    try:
        url = sa.make_url(bench.database.url).set(username=name, password="not-the-right-one")
        bench.configure(store=url.render_as_string(hide_password=False))
        found = findings(bench)
    finally:
        change(bench, f"DROP USER '{name}'@'%'")
    assert "Access denied" in texts(found, "wrong")[0]
    assert "${VARIABLE}" in texts(found, "note")[0]
    assert "not-the-right-one" not in repr(found)


@on("sqlite")
@pytest.mark.parametrize("scheme", ["mysql+pymysql", "postgresql+psycopg"])
def test_a_server_that_is_down_is_one_line(bench: Workbench, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("A_PASSWORD", "s3cr3t@/")
    bench.configure(store=f"{scheme}://someone:${{A_PASSWORD}}@127.0.0.1:1/site")
    result = bench.command("check", "--target", "test")
    assert result.exit_code == 2
    assert "wrong" in result.stdout
    assert "s3cr3t" not in result.output
    assert "has a password" not in result.output
    assert result.stdout.splitlines()[-1] == "Next: fix that, then kpibackfill check --target test"
    monkeypatch.delenv("A_PASSWORD")
    assert "A_PASSWORD" in line(bench, "wrong", "not set")


def test_an_unset_time_zone_is_noted(bench: Workbench) -> None:
    path = bench.config.path
    path.write_text(path.read_text().replace('timezone = "UTC"', ""))
    line(bench, "note", r"UTC is used .*set targets\.test\.timezone")


@on("sqlite", "postgresql")
def test_the_prefix_in_use_is_reported(bench: Workbench) -> None:
    line(bench, "note", ": 18 without a prefix, 6 with .* since February 2026 show those with the prefix 'kpi_'")
    change(bench, "DELETE FROM ms_fact_kpi_snapshot WHERE kpi_id LIKE 'kpi%'")
    line(bench, "ok", "as kpi_id_prefix says.*: 18 without a prefix, 0 with")
    change(bench, "UPDATE ms_fact_kpi_snapshot SET kpi_id = 'kpi_' || kpi_id")
    line(bench, "note", ": 0 without a prefix, 18 with the prefix .kpi_.*Set kpi_id_prefix = .auto")
    bench.configure(site={"kpi_id_prefix": "kpi_"})
    line(bench, "ok", ": 18 with the prefix 'kpi_', 0 without a prefix")


@on("sqlite", "postgresql")
def test_the_prefix_is_found_out_from_the_payload_then_from_any_row_then_from_these_kpis(bench: Workbench) -> None:
    bench.configure(site={"kpi_id_prefix": "auto"})
    line(bench, "note", "with the prefix 'kpi_', as 6 stored rows of this fact table.*: 6 with .*, 18 without a prefix")
    change(bench, "DELETE FROM ms_fact_kpi_snapshot WHERE kpi_id LIKE 'kpi%'")
    line(bench, "ok", "without a prefix, as 18 stored rows of these KPIs; no id has .*: 18 without a prefix, 0 with")
    add_payload(bench.database, education={"kpi_education_nps": {2024: 50.0}})
    line(bench, "note", "payload .kpi_education_nps.*: 0 with .*, 18 without.* The page shows those with")
    change(bench, "DELETE FROM key_value", "DELETE FROM ms_fact_kpi_snapshot")
    line(bench, "note", "Nothing tells how this site's KPI ids begin.*Set kpi_id_prefix in .site. before an apply")
    before = dump(bench.database)
    with pytest.raises(Refused, match="Nothing tells how this site's KPI ids begin; nothing was written"):
        bench.finish(apply=True, from_year=2024, to_year=2024)
    assert dump(bench.database) == before
    assert bench.finish(from_year=2024, to_year=2024)["kpi_id_prefix"] == "kpi_"


@on("sqlite")
def test_a_prefix_that_the_page_does_not_read_is_never_fine(bench: Workbench) -> None:
    add_payload(bench.database, education={"kpi_education_nps": {2024: 50.0}})
    line(bench, "note", "The page shows those with the prefix 'kpi_'.*shows on no page")
    receipt = bench.finish(from_year=2024, to_year=2024)
    assert {row["shown"] for row in receipt["rows"]} == {None}
    assert receipt["page"]["cells"] == []
    assert any("would show on no page" in note for note in receipt["notes"])
    bench.configure(site={"kpi_id_prefix": "own_"})
    change(bench, "DELETE FROM key_value")
    line(bench, "note", "Nothing tells that a page reads such ids")


def test_snapshots_dated_on_the_first_of_the_next_month_are_found(bench: Workbench) -> None:
    line(bench, "ok", "as dated says: annual ones for the year of their date, .*monthly ones for the month of")
    # Made on the day of its date, so it can't count that month.
    seconds = {
        "sqlite": "unixepoch(snapshot_date)",
        "mariadb": "UNIX_TIMESTAMP(snapshot_date)",
        "postgresql": "EXTRACT(epoch FROM snapshot_date::date)",
    }[bench.database.name]
    change(bench, f"UPDATE ms_snapshot SET created_at = {seconds} WHERE snapshot_type = 'monthly'")  # noqa: S608 - our own
    wanted = '{annual = "period", quarterly = "period", monthly = "first_of_next_month"}'
    said = line(bench, "note", "Most monthly snapshots were made before the end of the period they are dated in")
    assert said.endswith(f" So set dated = {wanted} in [site].")
    change(
        bench,
        "DELETE FROM ms_snapshot WHERE snapshot_type LIKE 'annual%' AND source <> 'system'",
        "UPDATE ms_snapshot SET snapshot_date = '2030-01-01' WHERE snapshot_type LIKE 'annual%' AND id = "
        "(SELECT id FROM (SELECT MAX(id) AS id FROM ms_snapshot WHERE snapshot_type LIKE 'annual%' "
        "AND definition = 'membership_totals') AS newest)",
        "DELETE FROM ms_snapshot WHERE snapshot_type LIKE 'annual%' AND snapshot_date <> '2030-01-01'",
    )
    said = line(bench, "note", "dated 1 January: 1 of 1")
    assert "2030-01-01, even if cron took it for 2029, shows under 2030 and gets the value of 2030. No annual" in said
    assert "dated in 2029, so the page has no value there: take one dated 2029-12-31" in said
    line(bench, "ok", "2030: 1")
    bench.configure(site={"dated": "first_of_next_month"})
    line(bench, "ok", "2030: 1")


@on("sqlite")
def test_no_text_of_the_store_steers_a_terminal(bench: Workbench) -> None:
    change(bench, "UPDATE ms_snapshot SET definition = definition || char(27) || ']0;owned' || char(7)")
    assert r"plan_levels\x1b]0;owned\x07" in line(bench, "note", "Set definition")


@on("sqlite")
def test_annual_snapshots_are_never_to_be_dated_after_their_year(bench: Workbench) -> None:
    bench.configure(site={"dated": "first_of_next_month"})
    said = line(bench, "note", "set dated")
    assert "gets the value of 2025: it would show in the column of 2026" in said
    bench.configure(site={"dated": {"annual": "first_of_next_month"}})
    assert line(bench, "note", "set dated").endswith('So set dated = "period" in [site].')


def test_a_missing_index_on_a_large_table_is_named(bench: Workbench) -> None:
    columns = "id, contact_id, event_id, status_id"
    name = bench.database.name
    rows = {
        "sqlite": "300000, 1, 1, 1",  # the last id serves as a table's size
        "mariadb": "seq, 1, 1, 1 FROM seq_100000_to_400000",
        "postgresql": "seq, 1, 1, 1 FROM generate_series(100000, 400000) AS seq",
    }[name]
    change(bench, f"INSERT INTO civicrm_participant ({columns}) SELECT {rows}")
    if name != "sqlite":
        change(bench, "ANALYZE " + ("TABLE " if name == "mariadb" else "") + "civicrm_participant")
    said = line(bench, "note", r"no index on \(event_id, contact_id, status_id\)")
    assert "kpibackfill never does" in said
    change(bench, "CREATE INDEX covering ON civicrm_participant (event_id, contact_id, status_id)")
    assert not [text for text in texts(findings(bench), "note") if "no index" in text]


@servers
def test_sources_on_another_engine_are_checked_there(bench: Workbench, reference_databases: ReferenceDatabases) -> None:
    warehouse = reference_databases.copy("sqlite", "composite")
    bench.configure(sources=warehouse.url)
    change(bench, "DROP TABLE civicrm_event")
    found = findings(bench)
    assert texts(found, "wrong") == []
    assert sum("Connected" in text for text in texts(found, "ok")) == 2
    with connect(warehouse.url) as connection:
        connection.exec_driver_sql("DROP TABLE civicrm_event")
    line(bench, "wrong", "civicrm_event can't be used")
    reference_databases.drop(warehouse)


@servers
def test_tables_and_ids_of_the_sites_own_kpis_are_checked(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "own_kpis.py"
    register = (
        "import kpibackfill as kb\n@kb.kpi('{}', label='', unit='count', family='own', description='', sources=['{}'])"
    )
    compute = "\ndef own(connection, site, windows):\n    return []\n"
    module.write_text(register.format("k" * 64, "node_field_data") + compute)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_registry", dict(registry.load()))
    monkeypatch.delitem(sys.modules, "own_kpis", raising=False)
    bench.configure(site={"kpi_modules": ["own_kpis"], "kpi_id_prefix": "kpi_"})
    line(bench, "wrong", "node_field_data can't be used.*k{64}")
    change(bench, "CREATE TABLE node_field_data (nid int)")
    assert not [text for text in texts(findings(bench), "wrong") if "node_field_data" in text]
    module.write_text("import no_such_module")
    monkeypatch.delitem(sys.modules, "own_kpis")
    line(bench, "wrong", "'own_kpis' could not be imported")


@on("sqlite")
def test_a_read_only_file_allows_dry_runs(bench: Workbench, tmp_path: Path) -> None:
    path = Path(str(sa.make_url(bench.database.url).database))
    path.chmod(0o444)
    expected = ("ok", "an apply is possible") if os.geteuid() == 0 else ("note", "may not INSERT, UPDATE, DELETE")
    line(bench, *expected)


@on("sqlite")
def test_the_command_and_the_function_say_the_same(bench: Workbench) -> None:
    result = bench.command("check", "--target", "test", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"], document["target"]) == (0, True, "test")
    assert document["next"] == f"kpibackfill run --target test --from-year {LAST}"
    frame = kb.check("test")
    assert frame.to_dict("records") == document["findings"]
    assert "unique key on (snapshot_id, kpi_id)." in frame._repr_html_()
    assert "There is no target" in refusal(bench.command("check", "--target", "tset"))
    change(bench, "DROP TABLE civicrm_event")
    result = bench.command("check", "--target", "test", "--json")
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (2, False)


def test_before_the_demo_is_built_check_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kpibackfill.toml"
    path.write_text('[targets.demo]\nstore = "sqlite:///demo.sqlite"\n')
    monkeypatch.setenv("KPIBACKFILL_CONFIG", str(path))
    config = load_config()
    found = check_target(config, config.target("demo"))
    assert next_command(found, "demo") == "kpibackfill demo"
    assert not (tmp_path / "demo.sqlite").exists()


def test_each_configuration_on_the_page_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 7
    for name in ("DEV_DB_PASSWORD", "LIVE_DB_PASSWORD", "LIVE_DB_HOST"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("LIVE_DB_PORT", "3306")
    for block in blocks:
        path = tmp_path / "kpibackfill.toml"
        demo = "" if "targets" in block else '[targets.demo]\nstore = "sqlite:///demo.sqlite"\n'
        path.write_text(demo + block)
        config = load_config(path)
        for target in config.targets.values():
            assert target.store_url.database
