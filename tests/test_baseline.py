"""What has moved: the value last recorded shows whether the sources or the store have changed."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill import baseline
from kpibackfill.reporting.sentences import moved_sentence
from tests.databases import change, on
from tests.workbench import Workbench

FACTS = "ms_fact_kpi_snapshot"
facts = sa.table(FACTS, *map(sa.column, ("snapshot_id", "kpi_id", "metric_value")))
org = sa.table("ms_fact_org_snapshot", sa.column("joins"))
SIGNUPS: dict[str, Any] = {"kpis": "total_new_member_signups"}


def row(snapshot_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(facts.c.snapshot_id == snapshot_id, facts.c.kpi_id == "total_new_member_signups")


def moved(drift: pd.DataFrame) -> dict[int, str]:
    return dict(zip(drift["snapshot_id"], drift["moved"], strict=True))


def test_sources_store_both_and_a_vanished_row_are_distinguished(bench: Workbench) -> None:
    first = bench.steps(**SIGNUPS).drift
    assert first["recorded"].isna().all()
    assert not first["moved"].any()
    written = [entry["snapshot_id"] for entry in bench.finish(**SIGNUPS, apply=True)["written"]["rows"]]
    quiet = bench.steps(**SIGNUPS).drift
    assert not quiet["moved"].any()
    assert set(quiet.loc[quiet["recorded"].notna(), "snapshot_id"]) == set(written)
    assert quiet["recorded"].dropna().tolist() == quiet.loc[quiet["recorded"].notna(), "stored"].tolist()

    one, other, *_ = written
    change(bench.database, sa.update(facts).where(row(one)).values(metric_value=1), sa.delete(facts).where(row(other)))
    found = moved(bench.steps(**SIGNUPS).drift)
    assert {key: word for key, word in found.items() if word} == {one: "store", other: "vanished"}

    change(bench.database, sa.update(org).values(joins=org.c.joins + 1))
    steps = bench.steps(**SIGNUPS)
    found = moved(steps.drift)
    assert found[one] == "both"
    assert found[other] == "vanished"
    assert {found[key] for key in written[2:]} == {"source"}
    assert {word for key, word in found.items() if key not in written} == {""}
    html = kb.drift_table(steps.drift)._repr_html_()
    count = len(written) - 2
    assert f"Since it was last recorded: {count} rows now compute differently" in html
    assert "both happened to 1 row; 1 row vanished, as when a snapshot is rebuilt." in html
    assert "recorded: sources, settings or code have changed." in html
    assert "recorded, and someone changed the stored row too." in html
    receipt = bench.finish(**SIGNUPS)
    assert {entry["snapshot_id"]: entry["moved"] for entry in receipt["rows"]} == found
    csv = (bench.runs[-1] / "drift.csv").read_text(encoding="utf-8-sig")
    assert {"recorded", "moved", "decided"} <= set(csv.splitlines()[0].split(","))


@on("sqlite")
def test_a_value_set_by_hand_is_not_a_move_of_the_sources_and_a_removed_row_that_is_back_is_one_of_the_store(
    bench: Workbench,
) -> None:
    path = bench.folder / "d.csv"
    for snapshot_id in (269, 278):
        kb.decide(path, "total_new_member_signups", "set", snapshot_id=snapshot_id, value=5, reason="x", reviewer="Ann")
    bench.finish(**SIGNUPS, apply=True, decisions=str(path))
    drift = bench.steps(**SIGNUPS).drift
    assert not drift["moved"].any()
    assert sum(text.startswith("set by hand on ") and text.endswith(" by Ann: x") for text in drift["decided"]) == 2

    review = kb.review(bench.steps(kpis="education_nps").plan, bench.folder / "r.csv")
    kb.decide(review.path, "education_nps", "remove", snapshot_id=270, reason="false 0", reviewer="Ann")
    bench.finish(kpis="education_nps", apply=True, decisions=str(review.path))
    assert not bench.steps(kpis="education_nps").drift["moved"].any()
    change(bench.database, sa.insert(facts).values(snapshot_id=270, kpi_id="education_nps", metric_value=0))
    assert moved(bench.steps(kpis="education_nps").drift)[270] == "store"


@on("sqlite")
def test_another_time_zone_is_not_said_to_be_a_change_of_the_sources(bench: Workbench) -> None:
    bench.configure(timezone="Asia/Tokyo")
    bench.finish(kpis="education_nps", apply=True)
    bench.configure(timezone="America/New_York")
    drift = bench.steps(kpis="education_nps").drift
    assert set(drift["moved"]) == {"", "source"}
    html = kb.drift_table(drift)._repr_html_()
    assert "(sources, settings or code have changed)" in html
    assert "The sources have changed" not in html


@on("sqlite")
def test_recorded_rows_of_a_snapshot_that_was_rebuilt_with_another_id_are_counted(bench: Workbench) -> None:
    written = [entry["snapshot_id"] for entry in bench.finish(**SIGNUPS, apply=True)["written"]["rows"]]
    assert bench.steps(**SIGNUPS, snapshot_types="quarterly").readings.gone == ""  # other snapshots are not missing
    snapshots = sa.table("ms_snapshot", sa.column("id"))
    gone, other, *_ = written
    for snapshot_id in (gone, other):
        rebuilt = sa.update(snapshots).where(snapshots.c.id == snapshot_id).values(id=snapshot_id + 9000)
        change(bench.database, sa.delete(facts).where(row(snapshot_id)), rebuilt)
    steps = bench.steps(**SIGNUPS)
    sentence = "2 rows recorded for these years and KPIs belong to snapshots that no longer exist, as when"
    assert sentence in kb.drift_table(steps.drift).sentence
    assert any(note.startswith(sentence) for note in bench.finish(**SIGNUPS)["notes"])
    assert bench.steps(kpis="education_nps").readings.gone == ""


@on("sqlite")
def test_runs_on_another_database_are_not_a_baseline_and_those_by_another_name_of_it_are(bench: Workbench) -> None:
    bench.finish(**SIGNUPS, apply=True)
    copy = bench.folder / "copy.sqlite"
    shutil.copyfile(str(sa.make_url(bench.database.url).database), copy)
    with (bench.folder / "kpibackfill.toml").open("a") as file:
        file.write(f'[targets.other]\nstore = "sqlite:///{copy}"\n[targets.again]\nstore = "{bench.database.url}"\n')
    assert bench.steps(**SIGNUPS, target="other").drift["recorded"].isna().all()
    assert bench.steps(**SIGNUPS, target="again").drift["recorded"].notna().any()


@on("sqlite")
def test_the_recorded_rows_are_found_among_very_many(bench: Workbench) -> None:
    bench.finish(**SIGNUPS, apply=True)
    run = bench.begin(**SIGNUPS)
    keys = [(number, "total_new_member_signups") for number in range(100_000)]
    values = np.ones(len(keys), dtype="float32")
    found: dict[str, Any] = baseline.columns(run, "", keys, values, values, np.ones(len(keys), dtype=bool))
    assert (found["moved"] == "both").sum() == (~np.isnan(found["recorded"])).sum() > 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], ""),
        (["", ""], ""),
        (["store", ""], "Since it was last recorded: someone changed 1 stored row."),
        (["store", "store"], "Since it was last recorded: someone changed 2 stored rows."),
    ],
)
def test_the_sentence_counts_who_moved(words: list[str], sentence: str) -> None:
    assert moved_sentence(words) == sentence
