"""The plan: what would be written, its fingerprint, and whether it is the plan that was reviewed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import kpibackfill as kb
from kpibackfill.archive import files
from kpibackfill.archive.models import DatabaseIdentity, Databases, ImageDocument, PlanRow, read
from kpibackfill.archive.plan_file import fingerprint, read_plan
from kpibackfill.database.image import Image, text_of
from kpibackfill.errors import Refused
from tests.databases import Database, both_layouts, connect, dump, on
from tests.workbench import Workbench

facts = sa.table(
    "ms_fact_kpi_snapshot", *map(sa.column, ("snapshot_id", "kpi_id", "metric_value", "period_year", "meta"))
)
SQLITE = DatabaseIdentity(dialect="sqlite", host=None, port=None, database="x")
DATABASES = Databases(store=SQLITE, sources=SQLITE)
BEFORE = Image(0.2, 2023, 11, b"\xff\x00Array", 3)
ROW = PlanRow(
    snapshot_id=7,
    kpi_id="kpi_a",
    action="update",
    value=0.1,
    period_year=2024,
    period_month=12,
    year=2024,
    basis=5,
    population=9,
    before=BEFORE,
)
finite = st.floats(allow_nan=False, width=32)
whole = st.none() | st.integers(-(2**31), 2**31 - 1)
images = st.builds(
    Image, st.floats(), whole, whole, st.none() | st.binary() | st.binary().map(text_of) | st.text(), whole
)
rows = st.builds(
    PlanRow,
    snapshot_id=st.integers(1, 99),
    kpi_id=st.text("abc_é", min_size=1, max_size=9),
    action=st.sampled_from(["insert", "update", "delete"]),
    value=finite,
    period_year=whole,
    period_month=whole,
    year=st.integers(1000, 9999),
    basis=whole,
    population=whole,
    before=st.none() | images,
)


def print_of(*planned: PlanRow, databases: Databases = DATABASES) -> str:
    return fingerprint(databases, planned)


def update(database: Database, *conditions: sa.ColumnElement[bool], **values: Any) -> None:
    with connect(database.url) as connection:
        connection.execute(sa.update(facts).where(*conditions).values(**values))


@pytest.mark.parametrize(
    "change",
    [
        {"snapshot_id": 8},
        {"kpi_id": "kpi_b"},
        {"action": "insert"},
        {"value": 0.1001},
        {"period_year": 2023},
        {"period_month": 11},
        {"basis": 6},
        {"basis": None},
        {"population": 10},
        {"before": None},
        *(
            {"before": dataclasses.replace(BEFORE, **part)}
            for part in (
                {"metric_value": 0.3},
                {"period_year": None},
                {"period_month": 12},
                {"meta": None},
                {"meta": b"\xff\x00Arraz"},
                {"row_id": 4},
            )
        ),
    ],
    ids=str,
)
def test_the_fingerprint_covers_each_named_field(change: dict[str, Any]) -> None:
    assert print_of(ROW.changed(**change)) != print_of(ROW)


def test_the_fingerprint_covers_the_databases_and_nothing_else() -> None:
    for name, value in {"dialect": "mysql", "host": "h", "port": 1, "database": "y"}.items():
        other = DATABASES.changed(store=SQLITE.changed(**{name: value}))
        assert print_of(ROW, databases=other) != print_of(ROW)
    # Too small a change to show in 4 bytes, and the calendar year, which follows from the window.
    assert print_of(ROW.changed(value=0.1 + 1e-12, year=2020)) == print_of(ROW)


@given(st.lists(rows, unique_by=lambda row: (row.snapshot_id, row.kpi_id), max_size=5), st.randoms())
def test_a_plan_survives_its_document(planned: list[PlanRow], random: Any) -> None:
    kept = [read(PlanRow, json.dumps(row.as_json())) for row in planned]
    assert print_of(*kept) == print_of(*planned)
    for row, again in zip(planned, kept, strict=True):
        assert again.as_json() == row.as_json()
        assert (again.before is None) == (row.before is None)
        if again.before and row.before:
            assert again.before.equals(row.before)
            assert again.before.meta == row.before.meta


@given(images)
def test_a_before_image_keeps_meta_whatever_it_is(image: Image) -> None:
    kept = read(ImageDocument, json.dumps(ImageDocument.of(image).as_json())).image()
    assert kept.equals(image)
    assert type(kept.meta) is type(image.meta)


def test_an_image_does_not_show_meta() -> None:
    assert "Array" not in repr(ROW)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | finite.filter(lambda n: abs(n) < 1e300) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_canonical_json_is_one_text_whatever_the_order(document: Any) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    text = files.canonical(document) if not _infinite(document) else b"null"
    assert text == (files.canonical(turned(document)) if not _infinite(document) else b"null")
    assert b"\n" not in text


def _infinite(value: Any) -> bool:
    return "inf" in repr(value)


@both_layouts
def test_the_plan_on_disk_is_the_plan(bench: Workbench) -> None:
    update(bench.database, meta=b'a:1:{s:1:"x";s:2:"\xff\xfe";}')
    steps = bench.steps(record=True)
    assert steps.run.record is not None
    path = steps.run.record.folder / "plan.json"
    document = read_plan(path)
    kept = steps.run.record.receipt.plan
    assert kept is not None
    assert document.fingerprint == steps.plan.fingerprint == kept.fingerprint
    assert document.rows == steps.plan.rows
    keys = [(row.snapshot_id, row.kpi_id) for row in steps.plan.rows]
    assert keys == sorted(keys)
    path.write_text(path.read_text().replace('"action": "insert"', '"action": "delete"', 1))
    with pytest.raises(Refused, match="was altered"):
        read_plan(path)


def test_every_engine_reads_the_same_before_images(bench: Workbench) -> None:
    plan = bench.steps(include_risky=True).plan
    images = {(row.snapshot_id, row.kpi_id): row.before for row in plan.rows if row.before}
    assert images
    held = {row[-6:-4]: row[-4:] for row in dump(bench.database)["ms_fact_kpi_snapshot"]}
    for key, image in images.items():
        value, year, month, meta = held[key]
        found = image.meta.encode() if isinstance(image.meta, str) else image.meta
        assert (image.metric_value, image.period_year, image.period_month, found) == (value, year, month, meta)


FEW = {"kpis": "education_nps,total_new_member_signups"}


@on("sqlite")
@pytest.mark.parametrize("by", ["run id", "fingerprint"])
def test_exactly_the_reviewed_plan_is_applied(bench: Workbench, by: str) -> None:
    dry = bench.finish(**FEW)
    approved = dry["run_id"] if by == "run id" else dry["plan"]["fingerprint"]
    receipt = bench.finish(apply=True, approved_plan=approved, **FEW)
    assert (receipt["state"], receipt["plan"]) == ("applied", dry["plan"])
    assert receipt["approval"]["reviewed_run"] == dry["run_id"]


@on("sqlite")
@pytest.mark.parametrize("by", ["run id", "fingerprint"])
def test_a_stale_plan_is_refused_and_the_rows_that_differ_are_named(bench: Workbench, by: str) -> None:
    dry = bench.finish(**FEW)
    approved = dry["run_id"] if by == "run id" else dry["plan"]["fingerprint"]
    moved = next(row for row in dry["rows"] if row["status"] == "changed")
    update(
        bench.database,
        facts.c.snapshot_id == moved["snapshot_id"],
        facts.c.kpi_id == moved["kpi_id"],
        metric_value=moved["stored"] + 1,
    )
    before = dump(bench.database)
    with pytest.raises(Refused, match="not the reviewed one") as raised:
        bench.finish(apply=True, approved_plan=approved, **FEW)
    assert f"({moved['snapshot_id']}, {moved['kpi_id']})" in raised.value.message
    assert dump(bench.database) == before
    receipt = json.loads((bench.runs[-1] / "receipt.json").read_text())
    assert (receipt["state"], receipt["error"]["code"]) == ("refused", raised.value.code)


@on("sqlite")
@pytest.mark.parametrize(
    ("approved", "words"),
    [
        (lambda run_id: "latest", "is not a full run id"),
        (lambda run_id: run_id[:-2], "is not a full run id"),
        (lambda run_id: run_id[:-6] + "ffffff", "There is no run"),
        (lambda run_id: "f" * 64, "not on record here"),
        (lambda run_id: "../" + run_id, "is not a full run id"),
    ],
)
def test_what_approves_is_named_in_full(bench: Workbench, approved: Callable[[str], str], words: str) -> None:
    dry = bench.finish(**FEW)
    before = dump(bench.database)
    with pytest.raises(Refused, match=words):
        bench.finish(apply=True, approved_plan=approved(dry["run_id"]), **FEW)
    assert dump(bench.database) == before


@on("sqlite")
def test_a_run_that_was_refused_early_has_no_plan_to_apply(bench: Workbench) -> None:
    with connect(bench.database.url) as connection:
        connection.execute(sa.text("ALTER TABLE ms_snapshot RENAME TO elsewhere"))
    with pytest.raises(kb.KpiBackfillError):
        bench.finish(**FEW)
    with connect(bench.database.url) as connection:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO ms_snapshot"))
    with pytest.raises(Refused, match="not a finished dry run"):
        bench.finish(apply=True, approved_plan=bench.runs[0].name, **FEW)


@on("sqlite")
def test_a_target_may_require_an_approval_and_a_reason(bench: Workbench) -> None:
    bench.configure(require_approval=True)
    before = dump(bench.database)
    dry = bench.finish(**FEW)
    for asked, words in (
        ({}, "requires a reason"),
        ({"reason": "why"}, "applies only an approved plan"),
        ({"reason": "why", "approved_plan": dry["run_id"]}, "kpibackfill approve"),
    ):
        with pytest.raises(Refused, match=words):
            bench.finish(apply=True, **asked, **FEW)
    assert dump(bench.database) == before
    assert bench.command("approve", dry["run_id"], "--note", "seen").exit_code == 0
    assert bench.finish(apply=True, reason="why", approved_plan=dry["run_id"], **FEW)["state"] == "applied"


@both_layouts
@pytest.mark.parametrize("spelled", ["Education_NPS", "education_nps "], ids=["case", "space"])
def test_an_id_in_another_spelling_is_a_duplicate(bench: Workbench, spelled: str) -> None:
    with connect(bench.database.url) as connection:
        connection.execute(sa.delete(facts).where(facts.c.snapshot_id == 269, facts.c.kpi_id == "education_nps"))
        connection.execute(sa.insert(facts).values(snapshot_id=269, kpi_id=spelled, metric_value=1))
    before = dump(bench.database)
    with pytest.raises(Refused, match="education_nps") as raised:
        bench.finish(apply=True, **FEW)
    assert raised.value.code == "duplicate_key"
    assert dump(bench.database) == before


@pytest.mark.parametrize("layout", ["surrogate"], indirect=True)
def test_a_key_that_exists_twice_is_an_error(bench: Workbench) -> None:
    with connect(bench.database.url) as connection:
        for _ in range(2):
            connection.execute(sa.insert(facts).values(snapshot_id=269, kpi_id="education_nps", metric_value=1))
    before = dump(bench.database)
    with pytest.raises(Refused, match="snapshot 269 and 'education_nps'"):
        bench.finish(apply=True, **FEW)
    assert dump(bench.database) == before


@pytest.mark.parametrize(("prefix", "other"), [("kpi_", ""), ("", "kpi_")])
def test_a_prefix_is_added_only_at_the_table(bench: Workbench, prefix: str, other: str) -> None:
    bench.configure(site={"kpi_id_prefix": prefix})
    with connect(bench.database.url) as connection:
        connection.execute(sa.delete(facts).where(facts.c.kpi_id.like("%education_nps%")))
        connection.execute(
            sa.insert(facts).values(snapshot_id=269, kpi_id=f"{other}education_nps", metric_value=1, period_year=2015)
        )
    before = dump(bench.database)
    receipt = bench.finish(apply=True, kpis="education_nps")
    assert {row["kpi_id"] for row in receipt["rows"]} == {"education_nps"}
    assert {row["kpi_id"] for row in receipt["written"]["rows"]} == {f"{prefix}education_nps"}
    assert any("also holds 1 row of these KPIs" in note for note in receipt["notes"])
    assert any("as kpi_id_prefix says" in note for note in receipt["notes"])
    assert receipt["kpi_id_prefix"] == prefix
    after = dump(bench.database)["ms_fact_kpi_snapshot"]
    gone = set(before["ms_fact_kpi_snapshot"]) - set(after)
    assert not gone
    assert bench.steps(kpis="education_nps").plan.rows == ()
