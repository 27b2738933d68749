"""Explaining a value: the parts add up to it exactly, on every engine, and no person or answer gets out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

import kpibackfill as kb
from kpibackfill.explaining import parts as registered
from kpibackfill.explaining.explanation import Explanation
from kpibackfill.kpis import registry
from kpibackfill.kpis.evaluations import nps
from tests.databases import Database, dump, on, reference_expected
from tests.kpis.makerspace import Makerspace
from tests.workbench import Workbench

KPIS = tuple(registry.load())
NPS, RATES = "education_nps", ("workshop_participants_bipoc", "active_instructors_bipoc")
SIGNUPS, ATTENDEES, FIRST, *_ = KPIS
AS_OF = "2026-11-22T12:00:00"


def explain(kpi_id: str, year: int, as_of: str = AS_OF) -> Explanation:
    found: Explanation = kb.explain(kpi_id, year=year, target="test", as_of=as_of)
    return found


def by(explanation: Explanation, name: str) -> dict[str, float]:
    rows = explanation.parts[explanation.parts["by"] == name]
    return dict(zip(rows["label"], rows["value"], strict=True))


def left_out(explanation: Explanation) -> dict[str, int]:
    return dict(zip(explanation.left_out["reason"], explanation.left_out["count"], strict=True))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_the_parts_of_the_reference_add_up_to_the_expected_number(bench: Workbench, zone: str) -> None:
    bench.configure(timezone=zone)
    expected = {(row["period_year"], row["kpi_id"]): row["metric_value"] for row in reference_expected(zone)}
    seen = 0
    for kpi_id in KPIS:
        for year in range(2015, 2026):
            found = explain(kpi_id, year)
            assert found.problems == ()
            if found.computed is not None:
                _holds(found)
            if (year, kpi_id) in expected and found.computed is not None:  # a year may have no snapshot
                assert found.computed == expected[year, kpi_id]
                seen += 1
    assert seen > 45


def _holds(found: Explanation) -> None:
    """The sums, computed once more here."""
    names = list(dict.fromkeys(found.parts["by"]))
    assert names
    for name in names:
        values = by(found, name)
        if found.kpi.kpi_id in RATES:
            assert values.keys() == {"BIPOC", "other reported"}
            assert values["BIPOC"] / sum(values.values()) == found.computed
        elif name == "score":
            promoters = sum(number for score, number in values.items() if score == "above 99" or int(score) >= 5)
            detractors = sum(number for score, number in values.items() if score != "above 99" and int(score) <= 3)
            assert nps(int(promoters), int(detractors), int(sum(values.values()))) == found.computed
        else:
            assert sum(values.values()) == (found.basis if found.kpi.kpi_id == NPS else found.computed)
    explained = found.explained
    assert explained is not None
    if explained.considered is not None:
        remains = explained.considered - found.left_out["count"].sum() + found.added["count"].sum()
        assert remains == (found.basis if explained.arrives_at == "basis" else found.computed)


def test_a_year_that_is_not_over_stops_at_the_current_month(bench: Workbench) -> None:
    found = explain(ATTENDEES, 2025, "2025-06-15T12:00:00")
    assert list(by(found, "month")) == [f"2025-{month:02}" for month in range(1, 6)]
    assert left_out(found)["current month and later"] > 0
    assert found.problems == ()
    _holds(found)


def test_the_value_is_the_runs_own(bench: Workbench) -> None:
    drift = bench.steps(include_risky=True).drift
    for row in drift[drift["computed"].notna() & (drift["year"] == 2022)].itertuples():
        found = explain(row.kpi_id, 2022)
        assert (found.computed, found.basis) == (row.computed, row.basis)
        if row.stored == row.stored:
            assert row.stored in found.stored["value"].tolist()


def test_explaining_changes_nothing_and_leaves_no_record(bench: Workbench) -> None:
    before = dump(bench.database)
    for kpi_id in KPIS:
        explain(kpi_id, 2022).figure()
    kb.detect(target="test", kpis=list(KPIS))
    kb.coverage(target="test")
    assert dump(bench.database) == before
    assert not bench.config.runs_dir.exists()


EVENTS = [
    {"id": 1, "event_type_id": 6, "start_date": "2024-03-02 10:00:00", "is_active": 1},
    {"id": 2, "event_type_id": 7, "start_date": "2024-03-02 10:00:00", "is_active": 1},
    {"id": 3, "event_type_id": 6, "start_date": "2024-05-01 10:00:00", "is_active": 0},
    {"id": 4, "event_type_id": 8, "start_date": "2024-06-01 10:00:00", "is_active": 1},
]
SPACE: dict[str, list[dict[str, Any]]] = {
    "civicrm_option_group": [{"id": 5, "name": "event_type"}],
    "civicrm_option_value": [
        {"option_group_id": 5, "value": "6", "label": "Ticketed Workshop"},
        {"option_group_id": 5, "value": "7", "label": "Sewing\x1b[31m workshop\x9b"},
        {"option_group_id": 5, "value": "8", "label": "Tour"},
    ],
    "civicrm_participant_status_type": [{"id": 1, "is_counted": 1}, {"id": 2, "is_counted": 0}],
    "civicrm_contact": [
        {"id": number, "display_name": f"Zaphod {number}", "is_deleted": int(number == 4)} for number in range(1, 8)
    ],
    "civicrm_event": EVENTS,
    "civicrm_participant": [
        {"contact_id": contact, "event_id": event, "status_id": status, "is_test": test}
        for contact, event, status, test in (
            (1, 1, 1, 0), (1, 2, 1, 0), (2, 1, 2, 0), (3, 1, 1, 1), (4, 1, 1, 0), (5, 3, 1, 0), (6, 4, 1, 0),
            (7, 1, 1, 0),
        )
    ],
    "civicrm_value_demographics_15": [
        {"entity_id": 1, "custom_46": "\x01asian\x01"}, {"entity_id": 7, "custom_46": "secretly white"},
    ],
    "webform_submission": [
        {"sid": sid, "webform_id": "webform_1181", "in_draft": int(sid == 6), "created": 1710000000}
        for sid in range(1, 8)
    ],
    "webform_submission_data": [
        {"sid": sid, "name": "how_likely_are_you_to_recommend_this_event_to_others", "value": value}
        for sid, value in enumerate(["5", "4", "call me: 555 0123", "", "great", "5", "-1"], 1)
    ],
}  # fmt: skip


@pytest.fixture
def small(bench: Workbench) -> Database:
    """A makerspace of a few people, made by hand: each covers one case."""
    Makerspace(bench.database).fill(SPACE)
    return bench.database


@pytest.mark.usefixtures("small")
def test_each_registration_is_left_out_for_its_reason() -> None:
    found = explain(ATTENDEES, 2024)
    assert found.computed == 5
    assert left_out(found) == {
        r"event type: Sewing\x1b[31m workshop\x9b": 1,
        "event type: Tour": 1,
        "not counted, by status": 1,
    }
    assert by(found, "registration") == {"ordinary": 3, "test": 1, "for an inactive event": 1}
    assert by(found, "month")["2024-03"] == 4
    assert found.problems == ()


@pytest.mark.usefixtures("small")
def test_a_person_who_begins_with_two_kinds_of_workshop_counts_for_each() -> None:
    found = explain(FIRST, 2024)
    assert found.computed == 6
    assert left_out(found) == {
        "no registration with a status that counts": 1,
        "had come before": 0,
        "began with something other than a workshop": 1,
    }
    assert found.added["count"].tolist() == [1]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("events", "computed", "left_out_as"),
    [
        ([(8, "2024-03-01 10:00:00"), (6, "2024-03-01T08:00:00")], 1, {}),  # the workshop came two hours before
        ([(6, "2024-04-01T09:00:00"), (7, "2024-04-01 09:00:00")], 2, {}),  # two kinds at one moment
        ([(6, "2024-03-01"), (7, "2024-03-01 00:00:00")], 2, {}),  # a date is its midnight
        ([(8, "2024-03-01"), (6, "2024-03-01T00:00:00.000")], 1, {}),
        ([(6, "2024-03-01T10:00"), (7, "2024-03-01 10:00:00")], 2, {}),  # a minute is its first second
        ([(8, "2024-01-01"), (6, "2024-01-01 00:00:01")], 0, {"began with something other than a workshop": 1}),
        ([(6, "2023-12-31T23:59:59"), (6, "2024-01-01")], 0, {"had come before": 1}),
    ],
)
def test_a_moment_is_one_moment_however_it_is_spelled(
    bench: Workbench, events: list[tuple[int, str]], computed: int, left_out_as: dict[str, int]
) -> None:
    starts = enumerate(events, 1)
    Makerspace(bench.database).fill(
        SPACE
        | {
            "civicrm_event": [
                {"id": number, "event_type_id": kind, "start_date": start, "is_active": 1}
                for number, (kind, start) in starts
            ],
            "civicrm_participant": [
                {"contact_id": 1, "event_id": number, "status_id": 1, "is_test": 0}
                for number in range(1, len(events) + 1)
            ],
        }
    )
    found = explain(FIRST, 2024)
    assert found.problems == ()
    assert found.computed == computed
    assert {reason: count for reason, count in left_out(found).items() if count} == left_out_as


def test_a_snapshot_without_a_proper_date_is_a_separate_part(bench: Workbench) -> None:
    dates = ["2024-01-31", "2024-1-5", "2024-03-31", "2024-5-5"]
    snapshots = [
        {
            "id": number,
            "definition": "membership_totals",
            "snapshot_type": "monthly",
            "snapshot_date": date,
            "source": "s",
        }
        for number, date in enumerate(dates, 1)
    ]
    facts = [{"snapshot_id": number, "joins": 10**number} for number in range(1, len(dates) + 1)]
    Makerspace(bench.database).fill(SPACE | {"ms_snapshot": snapshots, "ms_fact_org_snapshot": facts})
    found = explain(SIGNUPS, 2024)
    assert found.computed == 1110
    assert found.problems == ()
    assert by(found, "date") == {"2024-01": 10, "2024-03": 1000, "not dated YYYY-MM-DD": 100}
    assert by(found, "snapshot source") == {"s": 1110}
    assert "1 monthly snapshot is not dated YYYY-MM-DD; it is counted." in found.as_dict()["warnings"]
    assert "not dated YYYY-MM-DD" in found.figure()["waterfall"].alt


@pytest.mark.usefixtures("small")
def test_each_answer_is_left_out_for_its_reason() -> None:
    found = explain(NPS, 2024)
    assert by(found, "score") == {"4": 1, "5": 1, "above 99": 1}
    assert left_out(found) == {"drafts": 1, "empty": 1, "not a number": 1, "no score above 0": 1}
    assert found.problems == ()


@pytest.mark.usefixtures("small")
def test_a_rate_of_few_people_is_withheld_from_people_and_kept_in_json() -> None:
    found = explain(RATES[0], 2024)
    assert (found.computed, found.basis) == (0.5, 2)
    assert left_out(found) == {
        "not counted, by status": 1,
        "test registrations only": 1,
        "inactive events only": 1,
        "deleted contacts": 1,
        "not reported": 0,
    }
    assert by(found, "ethnicity") == {"BIPOC": 1, "other reported": 1}
    assert found.as_dict()["computed"] == 0.5
    (drawing,) = found.figure()
    for text in (repr(found), found._repr_html_(), drawing.alt):
        assert "not for publication" in text
        assert "50" not in text.replace("50%", "")
    assert "&lt; 5" in found._repr_html_()


@pytest.mark.usefixtures("small")
def test_no_answer_and_no_name_gets_out() -> None:
    for kpi_id in KPIS:
        found = explain(kpi_id, 2024)
        detection = kb.detect(target="test", kpis=kpi_id, from_year=2024)
        texts = [repr(found), found._repr_html_(), json.dumps(found.as_dict()), found.figure()["waterfall"].alt]
        for text in [*texts, repr(detection), json.dumps(detection.as_dict())]:
            for secret in ("Zaphod", "secretly", "call me", "5550123", "555", "great", "asian"):
                assert secret not in text.replace("great deal", "")


@pytest.mark.usefixtures("small")
def test_printed_text_has_no_control_characters(bench: Workbench) -> None:
    for extra in ([], ["--json"]):
        printed = bench.command("explain", ATTENDEES, "--year", "2024", "--target", "test", *extra).stdout
        assert "Sewing" in printed
        assert not any(
            (ord(character) < 32 and character != "\n") or 127 <= ord(character) < 160 for character in printed
        )


@pytest.fixture
def own_kpi() -> Iterator[str]:
    """A site's own KPI, which is always twelve."""

    @registry.kpi(
        "dozen", label="A dozen", unit="count", family="own", description="Twelve.", sources=["civicrm_event"]
    )
    def dozen(_connection: Any, _site: Any, windows: Any) -> Any:
        return [kb.Value(window.window_id, 12.0, 12, 20, ["It is always twelve."]) for window in windows]

    yield "dozen"
    del registry._registry["dozen"]
    registered._explains.pop("dozen", None)


@on("sqlite")
def test_a_year_without_data_has_no_empty_tables(bench: Workbench) -> None:
    found = kb.explain(NPS, year=2016, target="test", as_of=AS_OF)
    assert found.computed is None
    assert "by score" not in repr(found)
    assert "by month" not in found._repr_html_()
    assert "By month" not in found.figure()["waterfall"].alt
    assert len(found.as_dict()["parts"]) >= 12  # programs get all of them


@on("sqlite")
def test_a_kpi_without_parts_shows_value_basis_and_warnings(bench: Workbench, own_kpi: str) -> None:
    found = explain(own_kpi, 2022)
    assert (found.computed, found.basis, found.population) == (12.0, 12, 20)
    assert "No breakdown is registered for this KPI." in repr(found)
    assert "It is always twelve." in repr(found)
    assert found.figure()["waterfall"].alt
    assert found.as_dict()["parts"] == []


@on("sqlite")
def test_a_kpi_can_bring_parts_and_problems_say_when_they_do_not_add_up(bench: Workbench, own_kpi: str) -> None:
    numbers = {"small": 5, "large": 7}

    @registered.explains(own_kpi)
    def parts_of_dozen(_connection: Any, _site: Any, _window: Any) -> Any:
        return kb.Explained([kb.Parts("size", dict(numbers))], {"broken": 8}, considered=20, what="eggs")

    assert explain(own_kpi, 2022).problems == ()
    numbers["large"] = 8
    found = explain(own_kpi, 2022)
    assert len(found.problems) == 1
    assert "13" in found.problems[0]
    assert "12" in found.problems[0]
    assert found.problems[0] in repr(found)
    assert found.as_dict()["adds_up"] is False
    assert found.problems[0] in found.as_dict()["warnings"]


@on("sqlite")
def test_json_holds_the_contract_in_full_precision(bench: Workbench) -> None:
    document = json.loads(
        bench.command("explain", RATES[0], "--year", "2022", "--target", "test", "--as-of", AS_OF, "--json").stdout
    )
    assert document["kpi_id"] == RATES[0]
    assert document["year"] == 2022
    assert document["computed"] == explain(RATES[0], 2022).computed
    assert {"basis", "population"} <= document.keys()
    assert all({"snapshot_id", "value"} <= row.keys() for row in document["stored"])
    assert all(row.keys() == {"by", "label", "value"} for row in document["parts"])
    assert all(row.keys() == {"reason", "count"} for row in document["left_out"])
    empty = json.loads(bench.command("explain", NPS, "--year", "1999", "--target", "test", "--json").stdout)
    assert empty["computed"] is None
    assert empty["stored"] == []


@on("sqlite")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nps", "--year", "2022"], "unknown_kpi"),
        (["education_nps,workshop_attendees", "--year", "2022"], "parameter"),
        (["", "--year", "2022"], "parameter"),
        (["education_nps", "--year", "22"], "parameter"),
        (["education_nps", "--year", "2022", "--as-of", "soon"], "parameter"),
    ],
)
def test_a_bad_request_is_refused_in_a_line(bench: Workbench, arguments: list[str], code: str) -> None:
    result = bench.command("explain", *arguments, "--target", "test", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == code


@on("sqlite")
def test_explanations_are_compared_by_identity(bench: Workbench) -> None:
    first, second = explain(NPS, 2019), explain(NPS, 2019)
    assert first != second
    assert len({first, second, first}) == 2


def test_parts_are_summed_exactly() -> None:
    assert kb.Parts("x", {"a": 0.1, "b": 0.2, "c": 0.3}).total == math.fsum([0.1, 0.2, 0.3])
