"""Configuration: targets by name, and passwords that are never shown."""

from __future__ import annotations

import pickle
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.config import Config, Target, load_config, masked_url
from kpibackfill.database.engine import identity
from kpibackfill.errors import KpiBackfillError, Refused
from tests.databases import Database, connect, on
from tests.workbench import Workbench

SECRET = "p@/#%:?&=ä ${x}9"


def load(folder: Path, text: str) -> Config:
    path = folder / "kpibackfill.toml"
    path.write_text(text)
    return load_config(path)


def test_the_nearest_file_here_or_above_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    load(tmp_path, '[targets.x]\nstore = "sqlite:///data/x.sqlite"\n')
    monkeypatch.delenv("KPIBACKFILL_CONFIG", raising=False)
    monkeypatch.chdir(below)
    config = load_config()
    assert config.path == tmp_path / "kpibackfill.toml"
    # Relative paths start at the file's folder, not the current one.
    assert config.runs_dir == tmp_path / "runs"
    assert config.target("x").store_url.database == str(tmp_path / "data" / "x.sqlite")
    monkeypatch.setenv("KPIBACKFILL_CONFIG", str(tmp_path / "other.toml"))
    with pytest.raises(KpiBackfillError, match=r"other\.toml can't be read"):
        load_config()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("mysql+pymysql://u:${V}@h:1/d", "password"),
        ("mysql+pymysql://${V}:p@h:1/d", "username"),
        ("mysql+pymysql://u:p@${V}:1/d", "host"),
        ("mysql+pymysql://u:p@h:1/${V}", "database"),
        ("mysql+pymysql://u:p@h:1/pre_${V}_post", "database"),
        ("postgresql+psycopg://h/d?password=${V}", "query"),
    ],
)
def test_a_variable_is_filled_in_unchanged_in_each_part_of_a_url(
    text: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V", SECRET)
    url = load(tmp_path, f'[targets.x]\nstore = "{text}"\n').target("x").store_url
    found = url.query["password"] if part == "query" else getattr(url, part)
    assert found == text.partition("pre_")[1] + SECRET + text.partition("_post")[1]


def test_a_port_may_be_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "3307")
    for text in ("mysql+pymysql://u:${PORT}@h:${PORT}/d", "mysql+pymysql://h:${PORT}", "mysql+pymysql://h:${PORT}?x=y"):
        assert load(tmp_path, f'[targets.x]\nstore = "{text}"\n').target("x").store_url.port == 3307


@pytest.mark.parametrize("where", ["userinfo", "query"])
def test_nothing_shows_a_password(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V", SECRET)
    url = {
        "userinfo": "postgresql+psycopg://u:hunter2@h/d",
        "query": "postgresql+psycopg://u:${V}@h/d?password=hunter2&sslmode=prefer",
    }[where]
    config = load(tmp_path, f'[targets.x]\nstore = "{url}"\nsources = "{url}"\n')
    target = config.target("x")
    assert target.sources_are_store
    for shown in (config, target, vars(target), vars(config), target.__pydantic_private__):
        for text in (str(shown), repr(shown)):
            assert SECRET not in text
            assert "hunter2" not in text
    assert masked_url(target.store_url) == "postgresql+psycopg://u:***@h/d"
    assert "hunter2" not in target.model_dump_json()


@pytest.fixture
def account(store: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.URL]:
    """The database through an account with the secret as its password; SQLite has no accounts."""
    monkeypatch.setenv("SECRET", SECRET)
    name = f"kb_{abs(hash(store.url)) % 10**8}"
    url = sa.make_url(store.url)
    literal = SECRET.replace("'", "''")
    made, dropped = {
        "mariadb": (
            [f"CREATE USER {name} IDENTIFIED BY '{literal}'", f"GRANT ALL ON {url.database}.* TO {name}"],
            [f"DROP USER {name}"],
        ),
        "postgresql": (
            [f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{literal}'"],
            [f"DROP ROLE {name}"],
        ),
    }[store.name]
    with connect(store.url) as connection:
        for statement in made:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    yield url.set(username=name, password="$SECRET$")
    with connect(store.url) as connection:
        for statement in dropped:
            connection.exec_driver_sql(statement)


def shown_url(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False).replace(quote("$SECRET$", safe=""), "${SECRET}")


@on("mariadb", "postgresql")
def test_a_password_is_in_no_file_of_a_run(bench: Workbench, account: sa.URL) -> None:
    bench.configure(store=shown_url(account))
    assert "${SECRET}" in bench.config.path.read_text()
    receipt = bench.finish(apply=True, kpis="education_nps")
    assert receipt["state"] == "applied"
    assert receipt["target"]["store"].startswith(f"{account.drivername}://{account.username}:***@")
    steps = bench.steps(kpis="education_nps")
    shown = [steps.run, steps.readings, steps.plan, steps.run.config, steps.run.target, vars(steps.run.target)]
    texts = [path.read_text(errors="replace") for path in bench.runs[0].parent.rglob("*") if path.is_file()]
    texts += [repr(thing) for thing in shown] + [steps.run._repr_html_(), steps.plan._repr_html_()]
    assert len(texts) > 10
    for text in texts:
        assert SECRET not in text
        assert quote(SECRET, safe="") not in text
        assert "hunter" not in text


@on("mariadb", "postgresql")
@pytest.mark.parametrize(
    "fault", ["wrong password", "down", "no such database", "no such option", "no such value", "no such file"]
)
def test_an_unreachable_database_is_reported_without_its_password(
    bench: Workbench, account: sa.URL, fault: str
) -> None:
    on_postgresql = bench.database.name == "postgresql"
    # PostgreSQL trusts local connections here; an unknown account fails like a wrong password.
    url = {
        "wrong password": account.set(username="kb_nobody", password="hunter2"),
        "down": account.set(password="hunter2", host="127.0.0.1", port=1),
        "no such database": account.set(password="hunter2", database="kb_nowhere"),
        "no such option": account.set(password="hunter2").update_query_dict({"pasword": "hunter2"}),
        "no such value": account.update_query_dict({"sslmode" if on_postgresql else "init_command": "hunter2"}),
        "no such file": account.update_query_dict({"sslrootcert" if on_postgresql else "ssl_ca": "/nowhere/hunter2"}),
    }[fault]
    if fault == "no such file" and on_postgresql:
        url = url.update_query_dict({"sslmode": "verify-ca"})
    bench.configure(store=url.render_as_string(hide_password=False))
    run = bench.begin(record=True)
    with pytest.raises(KpiBackfillError) as raised:
        kb.compute_kpis(run)
    error = raised.value
    assert error.code == "database", error.message
    assert len(error.message.splitlines()) == 1
    assert masked_url(url) in error.message
    assert "othing was written" in error.message
    assert "hunter2" not in "".join(traceback.format_exception(error))
    assert run.record is not None
    assert run.record.receipt.as_json()["state"] == "failed"
    files = [path.read_text(errors="replace") for path in run.record.folder.iterdir()]
    assert all("hunter2" not in text for text in files)


@pytest.mark.parametrize("option", ["autocommit=true", "cursorclass=x", "row_factory=x"])
def test_an_option_that_would_change_how_a_driver_works_is_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(Refused, match=rf"targets\.x\.store: remove the option {option.partition('=')[0]} after"):
        _ = load(tmp_path, f'[targets.x]\nstore = "mysql+pymysql://u@h/d?{option}"\n').target("x").store_url


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql+psycopg://u@/d?host=h:5001", "postgresql+psycopg://u@/d?host=h:5002"),
        ("postgresql+psycopg://u@h/d?options=-csearch_path=one", "postgresql+psycopg://u@h/d?options=-csearch_path=b"),
        ("mysql+pymysql://u@/d?unix_socket=/run/one", "mysql+pymysql://u@/d?unix_socket=/run/other"),
        ("mysql+pymysql://u@h/d?port=3307", "mysql+pymysql://u@h/d"),
    ],
)
def test_different_queries_of_a_url_are_different_databases(one: str, other: str) -> None:
    assert identity(sa.make_url(one)) != identity(sa.make_url(other))
    assert identity(sa.make_url(one)) == identity(sa.make_url(one.replace("//u@", "//other:password@")))


def test_an_unpickled_target_does_not_show_its_url() -> None:
    target = Target.model_validate({"store": "postgresql://u:hunter2@h/d"})
    assert "hunter2" not in repr(pickle.loads(pickle.dumps(target)))


@pytest.mark.parametrize(
    ("site", "key"),
    [
        ('dated = {weekly = "period"}', "site.dated.weekly"),
        ('dated = {annual = "later"}', "site.dated.annual"),
        ("kpi_id_prefix = 'a\"b'", "site.kpi_id_prefix"),
        ('kpi_id_prefix = "it\'s"', "site.kpi_id_prefix"),
        ('kpi_id_prefix = "seventeen_letters"', "site.kpi_id_prefix"),
        ('table_prefix = "dru-"', "site.table_prefix"),
        ("[site.dashboard]\nyears = [2030, 2023]", "site.dashboard.years"),
        ("[site.dashboard]\nlive_months = {x = -1}", "site.dashboard.live_months.x"),
    ],
)
def test_what_the_dashboard_needs_is_checked_key_by_key(tmp_path: Path, site: str, key: str) -> None:
    path = tmp_path / "kpibackfill.toml"
    path.write_text(f'[targets.demo]\nstore = "sqlite:///x"\n[site]\n{site}\n', encoding="utf-8")
    with pytest.raises(Refused, match=re.escape(key)):
        load_config(path)


def test_a_list_is_called_a_list(tmp_path: Path) -> None:
    path = tmp_path / "kpibackfill.toml"
    for given in ('"drush cr"', "[[]]", '[["true"], "true"]'):
        path.write_text(f'[targets.demo]\nstore = "sqlite:///x"\nafter_apply = {given}\n', encoding="utf-8")
        with pytest.raises(Refused, match=r"(?i)after_apply.*\blist\b"):
            load_config(path)


def test_one_convention_holds_for_all_cadences_or_each_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "kpibackfill.toml"
    for text, monthly, annual in (
        ('"first_of_next_month"', True, True),
        ('{monthly = "first_of_next_month"}', True, False),
        ('"period"', False, False),
    ):
        path.write_text(f'[targets.demo]\nstore = "sqlite:///x"\n[site]\ndated = {text}\n', encoding="utf-8")
        site = load_config(path).site
        assert (site.dated.later("monthly"), site.dated.later("annual")) == (monthly, annual)
        assert site.model_validate(site.model_dump(mode="json")) == site
