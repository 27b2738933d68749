"""Detection: each definition is recounted here by hand, and the demo's story is found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

import kpibackfill as kb
from kpibackfill.database.engine import reading
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.demo import build_demo
from kpibackfill.explaining.detection import COLUMNS, _rounded
from kpibackfill.explaining.membership import other_signups
from kpibackfill.explaining.sentences import sentence
from kpibackfill.explaining.windows import year_window
from kpibackfill.kpis import registry
from kpibackfill.kpis.registry import SiteAt
from kpibackfill.numbers import same
from tests.databases import Database, connect, on
from tests.workbench import Workbench

KPIS = list(registry.load())
AS_OF = "2026-11-22T12:00:00"
ATTENDEES, FIRST, NPS = "workshop_attendees", "total_first_time_workshop_participants", "education_nps"
SIGNUPS = "total_new_member_signups"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "kpibackfill.toml").write_text('[targets.demo]\nstore = "sqlite:///demo.sqlite"\n', "utf-8")
    build_demo(folder / "demo.sqlite", until_year=2025)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("KPIBACKFILL_CONFIG", raising=False)
        return kb.detect(kpis=KPIS, as_of=AS_OF)


@pytest.mark.parametrize(
    ("kpi_id", "said"),
    [
        (
            ATTENDEES,
            "2015–2020 follow *all workshops*; 2021–2024 follow *ticketed*, as computed here; 2025 follows *up to the "
            "end of a month* (September); 2023 (manual import) follows *ticketed*, rounded.",
        ),
        (
            NPS,
            "2015–2017 follow *5 against 1 to 3*, as computed here; 2018 follows *0 where there is no score*; "
            "2020 onward follow *5 against 1 to 3*; 2023 (manual import) follows *December to November*, or "
            "*5 against 1 to 3*, rounded.",
        ),
        (
            "total_new_member_signups",
            "2015–2020 fit most definitions, including the one computed here; 2021–2022 follow *the annual snapshot's "
            "own joins*; 2023 onward fit most definitions, including the one computed here. *The annual snapshot's own "
            "joins* fits them all.",
        ),
        (
            "workshop_participants_bipoc",
            "2015 follows *of those who reported*, as computed here; 2017–2018 follow *of those who reported*, "
            "rounded; 2020 onward follow *of those who reported*.",
        ),
        (
            "active_instructors_bipoc",
            "2021 follows *former instructors too*; 2022 onward follow *today's instructors who reported*, as computed "
            "here.",
        ),
        (FIRST, "2015–2024 follow *first registration for a workshop, once per kind*, as computed here."),
    ],
)
def test_the_story_of_the_demo_is_found(demo: Any, kpi_id: str, said: str) -> None:
    assert demo.sentences[kpi_id] == said


def test_the_matrix_holds_what_is_stored_and_what_each_definition_yields(demo: Any) -> None:
    matrix = demo.matrix
    assert list(matrix.columns) == COLUMNS
    assert not matrix.duplicated(["kpi_id", "snapshot_id", "definition"]).any()
    exact = matrix[matrix["match"] == "exact"]
    assert all(same(row.value, row.stored) for row in exact.itertuples())
    others = matrix[(matrix["match"] != "exact") & matrix["value"].notna()]
    assert not any(same(row.value, row.stored) for row in others.itertuples())
    for figure in demo.figure():
        assert figure.png().startswith(b"\x89PNG")
        assert "<svg" in figure.svg()


def registrations(database: Database) -> pd.DataFrame:
    """Every registration with its event, status and the label of its type, joined here."""
    with connect(database.url) as connection:
        tables = {
            name: pd.DataFrame(connection.execute(sa.text(f"SELECT * FROM {name}")).mappings().all())  # noqa: S608
            for name in (
                "civicrm_participant", "civicrm_event", "civicrm_participant_status_type", "civicrm_option_value",
                "civicrm_option_group",
            )
        }  # fmt: skip
    groups = tables["civicrm_option_group"]
    options = tables["civicrm_option_value"]
    options = options[options["option_group_id"].isin(groups.loc[groups["name"] == "event_type", "id"])]
    labels: dict[str, set[str]] = {}
    for row in options.itertuples():
        labels.setdefault(str(row.value), set()).add(str(row.label))
    events = tables["civicrm_event"].set_index("id")
    counted = tables["civicrm_participant_status_type"].set_index("id")["is_counted"]
    found = tables["civicrm_participant"]
    found = found[found["event_id"].isin(events.index)]
    found = found.join(events[["event_type_id", "start_date", "is_active"]], on="event_id")
    found = found[found["start_date"].notna()]
    of_type = [labels.get(str(int(kind)), set()) if pd.notna(kind) else set() for kind in found["event_type_id"]]
    start = pd.to_datetime(found["start_date"], format="mixed")
    found = found.assign(
        start=start,
        year=start.dt.year,
        counts=found["status_id"].map(counted).eq(1),
        ticketed=["Ticketed Workshop" in names for names in of_type],
        workshop=[any("workshop" in name.lower() for name in names) for names in of_type],
        regular=found["is_test"].eq(0) & found["is_active"].eq(1),
    )
    return found[start < "2026-11-01"]  # the month of AS_OF is not over


def test_each_definition_of_attendees_equals_a_count_one_by_one(bench: Workbench) -> None:
    rows = registrations(bench.database)
    shifted = (rows["start"] + pd.DateOffset(months=1)).dt.year
    counts, ticketed, workshop = rows["counts"], rows["ticketed"], rows["workshop"]
    wanted = {
        "ticketed": rows[counts & ticketed].groupby("year").size(),
        "all workshops": rows[counts & workshop].groupby("year").size(),
        "events of every type": rows[counts].groupby("year").size(),
        "without tests and inactive events": rows[counts & ticketed & rows["regular"]].groupby("year").size(),
        "all workshops, without tests and inactive events": rows[counts & workshop & rows["regular"]]
        .groupby("year")
        .size(),
        "every status": rows[ticketed].groupby("year").size(),
        "all workshops, every status": rows[workshop].groupby("year").size(),
        "people, not registrations": rows[counts & ticketed].groupby("year")["contact_id"].nunique(),
        "all workshops, people": rows[counts & workshop].groupby("year")["contact_id"].nunique(),
        "December to November": rows[counts & ticketed].groupby(shifted).size(),
        "all workshops, December to November": rows[counts & workshop].groupby(shifted).size(),
    }
    _compare(bench, ATTENDEES, wanted)


def test_each_definition_of_first_timers_equals_a_count_one_by_one(bench: Workbench) -> None:
    rows = registrations(bench.database)
    counted = rows[rows["counts"]]

    def first(of: pd.DataFrame, begins: pd.Series | None = None) -> pd.Series:
        moments = of.groupby("contact_id")["start"].min()
        if begins is not None:
            began = of[begins].groupby("contact_id")["start"].min()
            moments = moments[began.reindex(moments.index) == moments]
        return moments.groupby(moments.dt.year).size()

    regular = counted[counted["regular"]]
    wanted = {
        "came first to a workshop, each person once": first(counted, counted["workshop"]),
        "came first to a ticketed workshop": first(counted, counted["ticketed"]),
        "first time at any event": first(counted),
        "first workshop, whatever came before": first(counted[counted["workshop"]]),
        "first ticketed workshop, whatever came before": first(counted[counted["ticketed"]]),
        "first registration of every status, a workshop": first(rows, rows["workshop"]),
        "without tests and inactive events": first(regular, regular["workshop"]),
    }
    _compare(bench, FIRST, wanted)


@on("sqlite")
@pytest.mark.parametrize("kpi_id", [ATTENDEES, FIRST])
def test_no_definition_depends_on_how_a_time_is_spelled(bench: Workbench, kpi_id: str) -> None:
    with_every_year(bench, kpi_id)
    with connect(bench.database.url) as connection:
        # Many events that begin together, and must still do so afterward.
        together = "UPDATE civicrm_event SET start_date = '2021-05-05' || substr(start_date, 11) WHERE id % 5 < 2"
        connection.execute(sa.text(together))
    spelled_alike = kb.detect(target="test", kpis=kpi_id, as_of=AS_OF).matrix
    with connect(bench.database.url) as connection:
        connection.execute(sa.text("UPDATE civicrm_event SET start_date = replace(start_date, ' ', 'T') WHERE id % 2"))
    pd.testing.assert_frame_equal(kb.detect(target="test", kpis=kpi_id, as_of=AS_OF).matrix, spelled_alike)


def _compare(bench: Workbench, kpi_id: str, wanted: dict[str, pd.Series]) -> None:
    with_every_year(bench, kpi_id)
    matrix = kb.detect(target="test", kpis=kpi_id, as_of=AS_OF).matrix
    assert set(wanted) <= set(matrix["definition"])
    compared = 0
    for row in matrix[matrix["definition"].isin(wanted)].itertuples():
        assert row.value == wanted[row.definition].get(row.year, 0), (row.definition, row.year)
        compared += 1
    assert compared >= 10 * len(wanted)


def with_every_year(bench: Workbench, kpi_id: str) -> None:
    """Store a row of the KPI for every annual snapshot."""
    snapshots = "SELECT id FROM ms_snapshot WHERE definition = 'membership_totals' AND snapshot_type LIKE 'annual%'"
    with connect(bench.database.url) as connection:
        ids = set(connection.scalars(sa.text(snapshots)))
        query = sa.text("SELECT snapshot_id FROM ms_fact_kpi_snapshot WHERE kpi_id = :kpi_id")
        present = set(connection.scalars(query, {"kpi_id": kpi_id}))
        for snapshot_id in sorted(ids - present):
            connection.execute(
                sa.text(
                    "INSERT INTO ms_fact_kpi_snapshot (snapshot_id, kpi_id, metric_value, period_year, period_month) "
                    "VALUES (:snapshot_id, :kpi_id, 1, 2020, 12)"
                ),
                {"snapshot_id": snapshot_id, "kpi_id": kpi_id},
            )


@contextmanager
def statements() -> Iterator[list[str]]:
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        sent.append(statement)

    sa.event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(Engine, "before_cursor_execute", note)


def test_the_number_of_statements_does_not_grow_with_the_years(bench: Workbench) -> None:
    for kpi_id in KPIS:
        with_every_year(bench, kpi_id)
        with statements() as of_one:
            kb.detect(target="test", kpis=kpi_id, from_year=2022, as_of=AS_OF)
        with statements() as of_all:
            kb.detect(target="test", kpis=kpi_id, as_of=AS_OF)
        selects = [sum(text.lstrip().upper().startswith("SELECT") for text in sent) for sent in (of_one, of_all)]
        assert selects[0] == selects[1] < 40, kpi_id


@pytest.mark.parametrize("kpi_id", KPIS)
def test_the_own_definition_is_what_a_run_computes(bench: Workbench, kpi_id: str) -> None:
    with_every_year(bench, kpi_id)
    detected = kb.detect(target="test", kpis=kpi_id, as_of=AS_OF).matrix
    own = detected[detected["own"]].set_index("snapshot_id")["value"]
    drift = bench.steps(kpis=kpi_id).drift.set_index("snapshot_id")["computed"]
    together = own.index.intersection(drift.index)
    assert len(together) >= 10
    pd.testing.assert_series_equal(own[together], drift[together], check_names=False, check_dtype=False)


def rows(*values: tuple[int, str, dict[str, str]], source: str = "system") -> pd.DataFrame:
    """A matrix of definitions a, b and c by year, with how each matches."""
    found = [
        {
            "kpi_id": "x", "year": year, "snapshot_id": number, "snapshot_date": f"{year}-12-31", "source": source,
            "stored": 1.0, "definition": name, "own": name == "a", "value": 1.0, "detail": "",
            "match": matches.get(name, ""), "withheld": False,
        }
        for number, (year, source, matches) in enumerate(values)
        for name in ("a", "b", "c")
    ]  # fmt: skip
    return pd.DataFrame(found, columns=COLUMNS)


EVERY = dict.fromkeys("abc", "exact")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "Nothing is stored."),
        ([(2020, "system", {"a": "exact"})], "2020 follows *a*, as computed here."),
        ([(2020, "system", {})], "2020 follows no known definition."),
        (
            [(2020, "system", {"b": "exact", "c": "exact"}), (2021, "system", {"c": "exact"})],
            "2020–2021 follow *c*.  *C* fits them all.".replace("  ", " "),
        ),
        (
            [(2020, "system", {"b": "exact"}), (2021, "system", {"a": "rounded", "b": "exact"})],
            "2020 follows *b*; 2021 follows *b*, or *a*, rounded, as computed here. *B* fits them all.",
        ),
        (
            [(2020, "system", {"b": "exact"}), (2021, "system", {"a": "exact"}), (2022, "system", {"a": "exact"})],
            "2020 follows *b*; 2021 onward follow *a*, as computed here.",
        ),
        (
            [(2020, "system", {"a": "rounded"}), (2021, "system", {"a": "rounded", "b": "exact"})],
            "2020 follows *a*, rounded, as computed here; 2021 follows *b*, or *a*, rounded.",
        ),
        ([(2020, "system", EVERY)], "2020 fits every definition."),
        (
            [(2020, "system", {"b": "exact", "c": "exact"})],
            "2020 fits most definitions, but not the one computed here.",
        ),
        (
            [(2020, "system", {"a": "exact", "c": "exact"}), (2021, "system", {"b": "exact"})],
            "2020 fits most definitions, including the one computed here; 2021 follows *b*.",
        ),
        (
            [(2020, "system", {"b": "exact"}), (2021, "system", EVERY), (2022, "system", {"b": "exact"})],
            "2020–2022 follow *b*. *B* fits them all.",
        ),
    ],
)
def test_the_sentence_says_concisely_which_definitions_are_followed(values: list[Any], said: str) -> None:
    assert sentence(rows(*values)) == said


def test_values_are_rounded_as_people_round() -> None:
    assert _rounded(0.3636, 0.36, "fraction")
    assert _rounded(45.6, 46, "points")
    assert _rounded(1237, 1240, "count")
    assert not _rounded(37, 40, "count")
    assert not _rounded(0.3636, 0.37, "fraction")
    # Half away from zero, by the digits that people see.
    assert _rounded(22.5, 23, "points")
    assert _rounded(-22.5, -23, "points")
    assert not _rounded(22.5, 22, "points")
    assert _rounded(0.125, 0.13, "fraction")
    assert _rounded(0.285, 0.29, "fraction")  # a float that is a little less
    assert _rounded(np.float64(1245), 1250, "count")
    assert not _rounded(3e38, 1, "count")


@on("sqlite")
def test_nothing_stored_is_reported_and_not_drawn(bench: Workbench) -> None:
    with connect(bench.database.url) as connection:
        connection.execute(sa.text("DELETE FROM ms_fact_kpi_snapshot"))
    found = kb.detect(target="test", as_of=AS_OF)
    assert set(found.sentences.values()) == {"Nothing is stored."}
    assert len(found.figure()) == 0


@on("sqlite")
def test_results_that_hold_tables_are_compared_by_identity(bench: Workbench) -> None:
    first, second = (kb.detect(kpis=NPS, target="test", as_of=AS_OF) for _ in range(2))
    assert first != second
    assert len({first, second, first}) == 2


@on("sqlite")
@pytest.mark.parametrize("date", ["2022-06", "2022-06-1x", "2022-0x", "2022-xx", "2021-13-01", "2022", "2022-é"])
def test_a_snapshot_without_a_day_is_read_as_the_kpi_reads_it(bench: Workbench, date: str) -> None:
    with connect(bench.database.url) as connection:
        june = "snapshot_type = 'monthly' AND snapshot_date LIKE '2022-06%'"
        statement = sa.text(f"UPDATE ms_snapshot SET snapshot_date = :date WHERE {june}")  # noqa: S608
        assert connection.execute(statement, {"date": date}).rowcount
    own = {row.year: row.computed for row in bench.steps(kpis=SIGNUPS).drift.itertuples()}
    found = kb.detect(kpis=SIGNUPS, target="test", as_of=AS_OF).matrix
    detected = found[found["own"]].set_index("year")["value"]
    assert detected[2022] == own[2022]
    explained = kb.explain(SIGNUPS, year=2022, target="test", as_of=AS_OF)
    assert explained.computed == own[2022]
    assert explained.problems == ()
    # A date that names no month is a separate part.
    assert ("not dated YYYY-MM-DD" in explained.parts["label"].tolist()) == (date == "2022-0x")
    assert explained.figure()["waterfall"].svg()
    assert kb.coverage(target="test", as_of=AS_OF)["snapshots"].sum()


@on("sqlite")
def test_a_database_without_any_snapshot_is_not_an_error(bench: Workbench) -> None:
    with connect(bench.database.url) as connection:
        for table in ("ms_fact_kpi_snapshot", "ms_snapshot"):
            connection.execute(sa.text(f"DELETE FROM {table}"))  # noqa: S608
    assert kb.detect(target="test").matrix.empty
    assert not kb.coverage(target="test")["snapshots"].any()


@on("sqlite")
@pytest.mark.parametrize("monthly", ["period", "first_of_next_month"])
def test_annual_joins_stay_in_the_year_of_their_own_cadence(bench: Workbench, monthly: str) -> None:
    with connect(bench.database.url) as connection:  # the joins name their year
        connection.exec_driver_sql(
            "INSERT INTO ms_fact_org_snapshot (snapshot_id, joins) SELECT id, substr(snapshot_date, 1, 4) "
            "FROM ms_snapshot WHERE definition = 'membership_totals' AND snapshot_type = 'annually'"
        )
    bench.configure(site={"dated": {"annual": "period", "monthly": monthly}})
    at = SiteAt(bench.config.site, ZoneInfo("UTC"), datetime(2026, 11, 22, tzinfo=UTC))
    with reading(sa.make_url(bench.database.url), at.settings) as connection:
        found = other_signups(RecordedConnection(connection), at, [year_window(year) for year in (2022, 2023, 2024)])
    own = found["the annual snapshot's own joins"]
    assert {2023, 2024} <= own.keys()
    assert all(year == joins for year, joins in own.items())
