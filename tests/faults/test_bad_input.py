"""Whatever a person, a file or a database holds: a clear line or two, or a right result; no traceback and no write."""

from __future__ import annotations

import math
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kpibackfill as kb
from kpibackfill.config import load_config
from kpibackfill.database import php_serialize
from kpibackfill.decisions import decisions_file
from kpibackfill.errors import KpiBackfillError
from kpibackfill.kpis import registry
from kpibackfill.parameters import DEFAULTS, Parameters, resolve
from tests.databases import Database, connect, dump, on, write_config
from tests.faults import tally
from tests.workbench import Workbench

# `make faults` sets more.
MANY = int(os.environ.get("KPIBACKFILL_FAULTS", "1"))
lightly = settings(max_examples=60 * MANY, print_blob=True)
heavily = settings(
    max_examples=3 * MANY,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE ms_snapshot; --",
    '100 % "quoted" \\ %s %(x)s :name {0} $1 ${HOME}',
    "\u202eright to left\u202c \u0627\u0644",
    "\U0001f469\u200d\U0001f52c emoji",
    "\x1b[31mred\x1b[0m\x07",
    "=cmd|' /C calc'!A0",
    "line\nbreak\r\n\ttab",
    "",
    " ",
)
texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=40))
anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.binary(max_size=20), st.lists(texts, max_size=3)
)


def clear(error: KpiBackfillError) -> None:
    assert error.message.strip()
    assert len(error.message) < 2000
    assert error.code


@pytest.fixture(scope="module")
def config_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    sqlite3.connect(folder / "s.sqlite").close()
    write_config(folder, Database("sqlite", "sqlite", "sqlite:///s.sqlite", "composite"))
    return folder


@lightly
@given(values=st.dictionaries(st.one_of(st.sampled_from(sorted(DEFAULTS)), texts), anything, max_size=5))
def test_parameters_of_any_kind(config_folder: Path, values: dict[str, Any]) -> None:
    tally.add("bad input", "parameters")
    target = load_config(config_folder / "kpibackfill.toml").target("test")
    try:
        found = resolve(values, target)
    except KpiBackfillError as error:
        clear(error)
    else:
        assert isinstance(found, Parameters)
        assert found.from_year <= found.to_year
        assert found.apply is (values.get("apply") is True)


@lightly
@given(
    lines=st.lists(
        st.one_of(
            texts,
            st.builds(
                "{} = {}".format,
                st.sampled_from(["store", "runs", "timezone", "after_apply", "kpi_modules", "x", "require_approval"]),
                st.sampled_from(
                    ['"sqlite:///s.sqlite"', '"mysql+pymysql://a:p@h/d"', "1", "[1]", "true", '""', "nan", '"\\u0000"']
                ),
            ),
            st.sampled_from(["[targets.test]", "[site]", "[targets]", "[targets.'../x']", "[[site]]"]),
        ),
        max_size=8,
    )
)
def test_configuration_files_of_any_kind(config_folder: Path, lines: list[str]) -> None:
    tally.add("bad input", "configurations")
    path = config_folder / "other.toml"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        config = load_config(path)
        for name in config.targets:
            _ = config.target(name).store_url
    except KpiBackfillError as error:
        clear(error)


@lightly
@given(
    head=st.sampled_from(["kpi_id,decision", "snapshot_id;kpi_id;decision;value;reason;reviewer;numbers;year", "x"]),
    rows=st.lists(
        st.lists(
            st.one_of(
                st.sampled_from(
                    ["accept", "set", "remove", "283", "education_nps", "1,5", "nan", "inf", "-0", "1e999"]
                ),
                texts,
            ),
            max_size=9,
        ),
        max_size=5,
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "utf-32"]),
    cut=st.integers(0, 5),
)
def test_decision_files_of_any_kind(
    config_folder: Path, head: str, rows: list[list[str]], encoding: str, cut: int
) -> None:
    tally.add("bad input", "decision files")
    text = "\r\n".join([head, *(";".join(row) for row in rows)])
    path = config_folder / "decisions.csv"
    raw = text.encode(encoding, "replace")
    path.write_bytes(raw[: len(raw) - cut])
    units = {kpi_id: entry.unit for kpi_id, entry in registry.load().items()}
    try:
        found = decisions_file.read(path, units)
    except KpiBackfillError as error:
        clear(error)
    else:
        for line in found.lines:
            assert line.value is None or math.isfinite(line.value)


@lightly
@given(
    blob=st.one_of(
        st.binary(max_size=60),
        texts.map(lambda text: php_serialize.dumps({"a": text})[:-2]),
        st.integers(1, 3000).map(lambda depth: b'a:1:{s:1:"a";' * depth + b"N;" + b"}" * depth),
        st.sampled_from(
            [b'O:8:"stdClass":1:{s:1:"a";i:1;}', b'a:1:{i:0;O:8:"Evil":0:{}}', b"a:1:{i:0;R:1;}", b"Array"]
        ),
        st.sampled_from([b'C:11:"ArrayObject":0:{}', b'E:3:"A:B";', b"a:999999999:{", b's:9999999999:"x";']),
        texts.map(lambda text: text.encode("utf-16", "replace")),
    )
)
def test_meta_of_any_kind_makes_no_object(blob: bytes) -> None:
    tally.add("bad input", "meta blobs")
    found = php_serialize.loads(blob)
    assert found is None or _plain(found)
    if blob[:1] in (b"O", b"C", b"E") or b";O:" in blob:
        assert found is None


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) in (int, str) and _plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)


@pytest.mark.parametrize(
    "store", ["sqlite", pytest.param("mariadb", marks=pytest.mark.faults), "postgresql"], indirect=True
)
@heavily
@given(text=st.one_of(st.sampled_from(NASTY), st.text(min_size=1, max_size=30)), blob=st.binary(max_size=30))
def test_texts_of_any_kind_in_every_column(bench: Workbench, text: str, blob: bytes) -> None:
    """In labels, sources, answers, names and `meta`: shown inertly, written exactly, and to no other row."""
    tally.add("bad input", "texts in every column")
    spoil(bench.database, text, blob)
    before = dump(bench.database)
    try:
        steps = bench.steps(
            record=True, apply=True, from_year=2024, kpis="education_nps,total_first_time_workshop_participants"
        )
        shown = [steps.run._repr_html_(), steps.readings._repr_html_(), kb.drift_table(steps.drift)._repr_html_()]
        shown.append(steps.plan._repr_html_())
        kb.apply_plan(steps.run, steps.plan)
    except KpiBackfillError as error:
        clear(error)
        assert dump(bench.database) == before
        return
    assert steps.run.record is not None
    shown.append((steps.run.record.folder / "report.html").read_text(encoding="utf-8"))
    shown.append((bench.config.runs_dir / "index.html").read_text())
    for page in shown:
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    after = dump(bench.database)
    planned = {(row.snapshot_id, row.kpi_id) for row in steps.plan.rows}
    changed = set(map(_key, set(after["ms_fact_kpi_snapshot"]) ^ set(before["ms_fact_kpi_snapshot"])))
    assert changed == planned
    assert {name for name in after if after[name] != before[name]} <= {"ms_fact_kpi_snapshot"}
    with connect(bench.database.url) as connection:
        _put_back(connection, before["ms_fact_kpi_snapshot"])


def _key(row: tuple[Any, ...]) -> tuple[int, str]:
    return row[-6], row[-5]


def _put_back(connection: sa.Connection, rows: list[tuple[Any, ...]]) -> None:
    names = ("snapshot_id", "kpi_id", "metric_value", "period_year", "period_month", "meta")
    table = sa.table("ms_fact_kpi_snapshot", *map(sa.column, names))
    connection.execute(sa.delete(table))
    connection.execute(sa.insert(table), [dict(zip(names, row, strict=True)) for row in rows])


PLACES = (
    ("ms_snapshot", "source", 32, "snapshot_type = 'annually'"),
    ("civicrm_option_value", "label", 512, "value = 7"),
    ("civicrm_contact", "display_name", 128, "1 = 1"),
    ("webform_submission_data", "value", 60000, "sid < 200"),
    ("users_field_data", "name", 60, "1 = 1"),
)


def spoil(database: Database, text: str, blob: bytes) -> None:
    """The text in every place that holds texts, and the blob in `meta`, as far as the database takes them."""
    with connect(database.url) as connection:
        for name, column, width, condition in PLACES:
            _set(connection, name, column, text[:width], condition)
        _set(connection, "ms_fact_kpi_snapshot", "meta", blob, "1 = 1")


def _set(connection: sa.Connection, name: str, column: str, value: Any, condition: str) -> None:
    table = sa.table(name, sa.column(column))
    # PostgreSQL holds no NUL, no driver takes half a surrogate pair, and a unique index may object.
    with suppress(sa.exc.DBAPIError, UnicodeEncodeError, ValueError):
        connection.execute(sa.update(table).values({column: value}).where(sa.text(condition)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3.4e38, -0.0])
def test_a_stored_value_that_is_not_a_number(store: Database, bench: Workbench, value: float) -> None:
    table = sa.table("ms_fact_kpi_snapshot", sa.column("metric_value"), sa.column("kpi_id"))
    with connect(store.url) as connection:
        try:
            connection.execute(sa.update(table).values(metric_value=value).where(table.c.kpi_id == "education_nps"))
        except sa.exc.SQLAlchemyError:
            pytest.skip("this database holds no such value")
        except Exception as error:  # noqa: BLE001  drivers refuse NaN in ways of their own
            assert "nan" in str(error).lower() or "inf" in str(error).lower()  # noqa: PT017
            return
    tally.add("bad input", "stored values")
    receipt = bench.finish(apply=True, kpis="education_nps")
    assert receipt["state"] == "applied"
    assert bench.finish(apply=True, kpis="education_nps")["written"]["rows"] == []


@pytest.mark.parametrize("years", [(1000, 1001), (1990, 2000), (9998, 9999), (1000, 9999)])
def test_years_without_data(store: Database, bench: Workbench, years: tuple[int, int]) -> None:
    tally.add("bad input", "years")
    before = dump(store)
    receipt = bench.finish(apply=False, from_year=years[0], to_year=years[1])
    assert receipt["state"] == "dry_run"
    assert dump(store) == before


def test_empty_tables(store: Database, bench: Workbench) -> None:
    tally.add("bad input", "empty tables")
    with connect(store.url) as connection:
        for name in dump(store):
            if name != "ms_snapshot":
                connection.execute(sa.delete(sa.table(name)))
    receipt = bench.finish(apply=True, include_risky=True)
    assert receipt["state"] == "applied"
    assert {row["after"] for row in receipt["written"]["rows"]} <= {0.0}  # nobody attended, and nothing else is known


@pytest.mark.faults
@on("sqlite")
def test_a_million_snapshots(store: Database, bench: Workbench) -> None:
    """By as many sources: all are planned, or a line says why not."""
    tally.add("bad input", "a million snapshots")
    with connect(store.url) as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) "
            "INSERT INTO ms_snapshot (id, definition, snapshot_type, snapshot_date, source) "
            "SELECT 1000 + i, 'membership_totals', 'annually', (2015 + i % 10) || '-12-31', 'source ' || i FROM n"
        )
    before = dump(store)["ms_fact_kpi_snapshot"]
    try:
        steps = bench.steps(kpis="education_nps")
    except KpiBackfillError as error:
        clear(error)
    else:
        assert len(steps.drift) >= 1_000_000
        assert len(steps.plan) >= 700_000  # three of the ten years have no answers
    assert dump(store)["ms_fact_kpi_snapshot"] == before
