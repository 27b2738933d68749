"""Drift: computed and stored values are equal where the fact table would store the same 4-byte float."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import kpibackfill as kb
from kpibackfill.archive.models import ReadDatabase, ReadDatabases
from kpibackfill.compute import Readings
from kpibackfill.config import load_config
from kpibackfill.database.image import Image
from kpibackfill.drift import counts, rows_of
from kpibackfill.errors import Refused
from kpibackfill.frames import sealed
from kpibackfill.kpis import registry
from kpibackfill.numbers import float4, same
from kpibackfill.page.annual_tables import AnnualTables, IdPrefix, Payload
from kpibackfill.parameters import resolve
from kpibackfill.reporting.rows import drift_rows
from kpibackfill.run import Run
from tests.databases import connect, on
from tests.workbench import Workbench

ORDER = ["unsupported", "changed", "new", "no_data", "unchanged"]
# Every pair of these is tried: neighbours as 4-byte floats, as doubles, and beyond 4 bytes.
NUMBERS = [
    *(0.0, -0.0, 1.0, 1 + 2**-23, 1 + 2**-24, 1 + 2**-25, 1 / 3, float(np.float32(1 / 3)), 16777216.0, 16777217.0),
    *(16777218.0, 0.1, 1e-46, 1e-45, 3.4028234663852886e38, 1e39, math.inf, -math.inf, math.nan, -57.7, 41.1),
]
numbers = st.one_of(st.sampled_from(NUMBERS), st.floats(width=32), st.floats())
stored_rows = st.none() | st.tuples(numbers, st.sampled_from([2023, 2024, None]), st.sampled_from([11, 12, None]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("drift") / "kpibackfill.toml"
    path.write_text('[targets.test]\nstore = "sqlite:///x.sqlite"\n')
    config = load_config(path)
    target = config.target("test")
    return Run(resolve({"from_year": 2024}, target), config, target, tuple(registry.load().values()))


def readings_of(run: Run, pairs: list[tuple[float | None, tuple[Any, ...] | None]]) -> Readings:
    """One snapshot per pair, for the NPS."""
    snapshots = pd.DataFrame(
        {
            "snapshot_id": range(1, len(pairs) + 1),
            "snapshot_date": "2024-12-31",
            "snapshot_type": "annual",
            "source": "s",
            "year": 2024,
            "period": "2024",
        }
    )
    computed = snapshots.assign(
        kpi_id="education_nps",
        computed=np.array([np.nan if value is None else value for value, _ in pairs], dtype="float64"),
        basis=pd.array([5] * len(pairs), dtype="Int64"),
        population=pd.array([None] * len(pairs), dtype="Int64"),
        warnings=pd.Series([()] * len(pairs), dtype=object),
    )
    stored = {
        (index, "education_nps"): Image(row[0], row[1], row[2], None)
        for index, (_, row) in enumerate(pairs, 1)
        if row is not None
    }
    tables = AnnualTables(range(2023, 2031), {}, IdPrefix("", ""), Payload(), {}, {})
    return Readings(run, sealed(snapshots, run), sealed(computed, run), stored, tables, {}, DATABASES, ())


DATABASES = ReadDatabases(
    store=(SQLITE := ReadDatabase(dialect="sqlite", host=None, port=None, database="x", url="sqlite:///x", server="3")),
    sources=SQLITE,
    one_transaction=True,
)


def nearest(value: float) -> float | None:
    """The nearest 4-byte float, by rational arithmetic; ties go to even mantissas. None for NaN."""
    if math.isnan(value):
        return None
    if math.isinf(value) or value == 0:
        return value
    exact, sign = abs(Fraction(value)), math.copysign(1, value)
    exponent = max(math.frexp(abs(value))[1] - 24, -149)
    unit = Fraction(2) ** exponent
    whole = round(exact / unit)  # Fraction rounds half to even
    found = whole * unit
    return sign * (math.inf if found >= Fraction(2) ** 128 else float(found))


def expected_status(value: float | None, row: tuple[Any, ...] | None) -> str:
    if value is None:
        return "no_data" if row is None else "unsupported"
    if row is None:
        return "new"
    is_same = nearest(value) is not None and nearest(value) == nearest(row[0])
    return "unchanged" if is_same and row[1:] == (2024, 12) else "changed"


@given(pairs=st.lists(st.tuples(st.none() | numbers.filter(lambda n: not math.isnan(n)), stored_rows), max_size=20))
def test_the_status_follows_from_value_row_and_period(
    run: Run, pairs: list[tuple[float | None, tuple[Any, ...] | None]]
) -> None:
    drift = kb.compare(readings_of(run, pairs))
    assert drift["status"].tolist() == [expected_status(*pair) for pair in pairs]
    for row, (value, stored) in zip(drift.to_dict("records"), pairs, strict=True):
        if value is None or stored is None:
            assert math.isnan(row["delta"])
            assert math.isnan(row["change"])
            continue
        new, old = nearest(value), nearest(stored[0])
        if old is None or new is None or (math.isinf(new) and new == old):
            assert math.isnan(row["delta"])
            continue
        assert row["delta"] == new - old
        if old == 0:
            assert math.isnan(row["change"])
        elif math.isfinite(old) and math.isfinite(new):
            assert row["change"] == (new - old) / abs(old)


@given(numbers, numbers)
def test_two_values_are_the_same_when_4_bytes_hold_the_same(one: float, other: float) -> None:
    for value in (one, other):
        kept = float4(value)
        assert (None if math.isnan(kept) else kept) == nearest(value)
        if math.isfinite(kept):
            assert struct.unpack("f", struct.pack("f", kept))[0] == kept
    assert same(one, other) == (nearest(one) == nearest(other))


@given(pairs=st.lists(st.tuples(st.none() | numbers.filter(lambda n: not math.isnan(n)), stored_rows), max_size=12))
def test_what_matters_stands_first_and_every_row_is_plain_json(
    run: Run, pairs: list[tuple[float | None, tuple[Any, ...] | None]]
) -> None:
    import json

    drift = kb.compare(readings_of(run, pairs))
    kpis = {entry.kpi_id: entry for entry in run.kpis}
    places = dict(zip((row.key for row in rows_of(drift)), drift.index, strict=True))
    shown = drift_rows(rows_of(drift), kpis)
    ordered = drift.loc[[places[row.key] for row in shown]]
    assert sorted(ordered.index) == list(drift.index)
    ranks = [ORDER.index(status) for status in ordered["status"]]
    assert ranks == sorted(ranks)
    changed = ordered[ordered["status"] == "changed"]
    sizes = changed["delta"].abs().fillna(-1).tolist()  # a score's drift is in points
    assert sizes == sorted(sizes, reverse=True)
    rows = json.loads(json.dumps([row.as_json() for row in rows_of(drift)], allow_nan=False))
    for row, (value, stored) in zip(rows, pairs, strict=True):
        # Full double precision, and null for none.
        assert row["computed"] == (value if value is None or math.isfinite(value) else str(value))
        if stored is None:
            assert row["stored"] is None
        elif math.isfinite(stored[0]):
            assert row["stored"] == stored[0]
    per_year, total = counts(drift, range(2023, 2026))
    assert dict(per_year["2023"]) == {"snapshots": 0, "kpi_rows": 0}
    assert dict(per_year["2024"]) == {"snapshots": len(pairs), "kpi_rows": total}
    assert total == sum(value is not None for value, _ in pairs)


facts = sa.table("ms_fact_kpi_snapshot", *map(sa.column, ("snapshot_id", "kpi_id", "metric_value", "meta")))


@on("postgresql")
@pytest.mark.parametrize("stored", ["NaN", "Infinity", "-Infinity"])
def test_a_stored_value_that_is_not_a_number_is_read_shown_and_replaced(bench: Workbench, stored: str) -> None:
    with connect(bench.database.url) as connection:
        connection.execute(sa.update(facts).values(metric_value=float(stored)))
    drift = bench.steps().drift
    held = drift[drift["stored_period_year"].notna() & drift["computed"].notna()]
    assert len(held) > 0
    assert set(held["status"]) == {"changed"}
    assert "nan" not in repr(kb.drift_table(drift)._repr_html_()).lower()
    assert bench.finish(apply=True)["state"] == "applied"
    assert bench.steps().plan.rows == ()


@on("sqlite")
def test_an_edited_table_is_refused_by_every_step_that_takes_it(bench: Workbench) -> None:
    steps, other = bench.steps(from_year=2020), bench.steps(from_year=2020)
    drift = steps.drift

    def in_place() -> pd.DataFrame:
        edited = drift.copy()
        edited.loc[0, "computed"] = 99.0
        return edited

    edited = {
        "in place": in_place(),
        "filtered": drift[drift["year"] == 2021],
        "reordered": drift.iloc[::-1],
        "a column less": drift.drop(columns="basis"),
        "a column more": drift.assign(mine=1),
        "renamed": drift.rename(columns={"computed": "stored", "stored": "computed"}),
        "made anew": pd.DataFrame(drift.to_dict("records")),
        "two in one": pd.concat([drift, other.drift]),
        "no table": drift.to_dict("records"),
    }
    for how, frame in edited.items():
        for use in (lambda it: kb.make_plan(steps.run, it), kb.drift_table, kb.review_figures):
            with pytest.raises(Refused, match="nothing was written") as raised:
                pytest.fail(f"{how}: {use(frame)}")
            assert raised.value.code == "edited_frame"
    with pytest.raises(Refused, match="belongs to another run"):
        kb.make_plan(steps.run, other.drift)
    # A copy that nobody edited is the same table.
    assert kb.make_plan(steps.run, drift.copy()).fingerprint == steps.plan.fingerprint


@on("sqlite")
@pytest.mark.parametrize(("table", "column"), [("computed", "computed"), ("snapshots", "year"), ("computed", "basis")])
def test_edited_readings_are_refused(bench: Workbench, table: str, column: str) -> None:
    readings = bench.steps(from_year=2020).readings
    frame = getattr(readings, table)
    frame.loc[0, column] = 1
    with pytest.raises(Refused, match="changed by hand"):
        kb.compare(readings)
    with pytest.raises(TypeError):
        readings.stored[1, "education_nps"] = None  # type: ignore[index]
