"""The demo makerspace is built completely or not at all, quickly, and always the same."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from kpibackfill.demo import build_demo
from kpibackfill.errors import KpiBackfillError

NOW = dt.datetime(2026, 3, 15, 12)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_demo(tmp_path_factory.mktemp("demo") / "demo.sqlite", until_year=2025, now=NOW).path


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_the_same_year_yields_the_same_rows_in_another_process(path, tmp_path):
    again = tmp_path / "again.sqlite"
    code = "import sys, datetime, pathlib, kpibackfill.demo as demo; demo.build_demo(pathlib.Path(sys.argv[1]), "
    code += f"until_year=2025, now={NOW!r})"
    subprocess.run([sys.executable, "-c", code, again], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert dump(again) == dump(path)


def test_at_another_time_nothing_but_the_page_differs(path, tmp_path):
    later = dump(build_demo(tmp_path / "later.sqlite", until_year=2025, now=NOW + dt.timedelta(days=500)).path)
    differing = set(later) ^ set(dump(path))
    assert {line.partition("(")[0] for line in differing} == {'INSERT INTO "key_value" VALUES'}


def test_it_is_built_up_to_last_year(tmp_path):
    summary = build_demo(tmp_path / "demo.sqlite")
    assert summary.until_year == time.localtime().tm_year - 1


def test_the_summary_counts_what_is_there(tmp_path):
    summary = build_demo(tmp_path / "a folder" / "demo.sqlite", until_year=2025)
    with closing(sqlite3.connect(summary.path)) as db:
        count = lambda table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: E731, S608
        assert summary.contacts == count("civicrm_contact")
        assert summary.events == count("civicrm_event WHERE start_date IS NOT NULL")
        assert summary.registrations == count("civicrm_participant")
        assert summary.evaluations == count("webform_submission")
        assert summary.snapshots == count("ms_snapshot")
        assert summary.kpi_rows == count("ms_fact_kpi_snapshot")
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_existing_file_is_refused_and_left_unchanged(tmp_path):
    existing = tmp_path / "demo.sqlite"
    existing.write_text("mine")
    with pytest.raises(KpiBackfillError, match=r"demo\.sqlite already exists and was left unchanged"):
        build_demo(existing, until_year=2025)
    assert existing.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [existing]


def test_replace_replaces_the_file_and_its_journal_by_a_new_demo(tmp_path, path):
    existing = build_demo(tmp_path / "demo.sqlite", until_year=2026).path
    (tmp_path / "demo.sqlite-journal").write_text("stale")
    build_demo(existing, until_year=2025, replace=True, now=NOW)
    assert dump(existing) == dump(path)
    assert list(tmp_path.iterdir()) == [existing]


@pytest.mark.parametrize("content", [b"", b"mine" * 100, b"SQLite format 3\0" + bytes(100)])
def test_replace_replaces_nothing_but_a_demo(tmp_path, content):
    mine = tmp_path / "demo.sqlite"
    mine.write_bytes(content)
    with pytest.raises(KpiBackfillError, match="It is not a demo"):
        build_demo(mine, until_year=2025, replace=True)
    assert mine.read_bytes() == content
    assert list(tmp_path.iterdir()) == [mine]


@pytest.mark.parametrize("year", [2024, 2051, -1])
def test_a_year_that_the_story_does_not_fit_is_refused(tmp_path, year):
    with pytest.raises(KpiBackfillError, match=f"not in {year}"):
        build_demo(tmp_path / "demo.sqlite", until_year=year)
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_at_the_last_step_leaves_nothing_behind(tmp_path, monkeypatch):
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(KpiBackfillError, match="No space left on device"):
        build_demo(tmp_path / "demo.sqlite", until_year=2025)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KpiBackfillError, match=r"could not be written to .*demo\.sqlite"):
        build_demo(tmp_path / "file" / "demo.sqlite", until_year=2025)


def test_it_needs_neither_pandas_nor_sqlalchemy():
    code = "import sys, kpibackfill.demo; sys.exit(bool({'pandas', 'sqlalchemy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
