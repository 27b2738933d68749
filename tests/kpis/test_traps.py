"""What real databases hold and a quick query gets wrong, one trap a test."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from kpibackfill.config import Dated, Site
from kpibackfill.database.engine import reading
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.kpis.registry import SiteAt, Window
from tests.databases import Database, civicrm_moved, connect, on, reference_expected
from tests.kpis.makerspace import AS_OF, KPIS, Makerspace, months, year
from tests.kpis.oracle import FIELD

ATTENDEES, FIRST, NPS = "workshop_attendees", "total_first_time_workshop_participants", "education_nps"
SIGNUPS, PARTICIPANTS, INSTRUCTORS = (
    "total_new_member_signups",
    "workshop_participants_bipoc",
    "active_instructors_bipoc",
)
STATUSES = [{"id": 1, "is_counted": 1}, {"id": 2, "is_counted": 0}]
GROUPS = [{"id": 1, "name": "event_type"}, {"id": 2, "name": "Event_Type_"}]


def options(*pairs: tuple[str, str | None], group: int = 1) -> list[dict[str, Any]]:
    return [{"option_group_id": group, "value": value, "label": label} for value, label in pairs]


def workshops(
    types: list[dict[str, Any]],
    events: Sequence[tuple[int | None, str | None]],
    registrations: Sequence[tuple[int, int]] = (),
) -> dict[str, list[dict[str, Any]]]:
    """Events (type, start) numbered from 1, and registrations (contact, event); by default contact 1 for each event."""
    pairs = registrations or [(1, number) for number in range(1, len(events) + 1)]
    return {
        "civicrm_option_group": GROUPS,
        "civicrm_option_value": types,
        "civicrm_participant_status_type": STATUSES,
        "civicrm_event": [
            {"id": number, "event_type_id": kind, "start_date": start, "is_active": 1}
            for number, (kind, start) in enumerate(events, 1)
        ],
        "civicrm_participant": [
            {"contact_id": contact, "event_id": event, "status_id": 1, "is_test": 0} for contact, event in pairs
        ],
    }


def evaluations(*scores: tuple[int, str]) -> dict[str, list[dict[str, Any]]]:
    """One submission for each unix time and answer."""
    return {
        "webform_submission": [
            {"sid": sid, "webform_id": "webform_1181", "created": created, "in_draft": 0}
            for sid, (created, _) in enumerate(scores, 1)
        ],
        "webform_submission_data": [
            {"sid": sid, "name": FIELD, "property": "", "delta": 0, "value": answer}
            for sid, (_, answer) in enumerate(scores, 1)
        ],
    }


def values(makerspace: Makerspace, kpi_id: str, *windows: Window, **options: Any) -> list[float | None]:
    return [value.value for value in makerspace.compute(kpi_id, *windows, **options)]


TICKETED = options(("1", "Ticketed Workshop"))


def test_a_year_ends_with_its_last_second(makerspace: Makerspace) -> None:
    starts = ["2023-12-31 23:59:59", "2024-01-01 00:00:00", "2024-12-31 23:59:59", "2025-01-01 00:00:00"]
    makerspace.fill(workshops(TICKETED, [(1, start) for start in starts]))
    assert values(makerspace, ATTENDEES, year(2023), year(2024), year(2025)) == [1, 2, 1]


@on("sqlite")
def test_odd_spellings_of_a_time_stay_in_their_year(makerspace: Makerspace) -> None:
    starts = ["2024-01-01", "2024-01-01T00:00:00", "2024-12-31T23:59:59", "2024-12-31 23:59:59.999", "2025-01-01"]
    makerspace.fill(workshops(TICKETED, [(1, start) for start in starts]))
    assert values(makerspace, ATTENDEES, year(2023), year(2024), year(2025)) == [0, 4, 1]


def test_odd_spellings_of_one_moment_are_one_moment(makerspace: Makerspace) -> None:
    types = options(("1", "Ticketed Workshop"), ("2", "Free workshop"), ("3", "Tour"))
    starts = ["2024-05-05 10:00", "2024-05-05T10:00:00.000", "2024-05-05 23:00:00", "2024-05-05T09:00:00"]
    events = list(zip([1, 2, 3, 3], starts, strict=True))
    makerspace.fill(workshops(types, events, [(1, 1), (1, 2), (2, 2), (2, 3), (3, 2), (3, 4)]))
    assert values(makerspace, FIRST, year(2024)) == [
        3
    ]  # two kinds for the first, one for the second, none for the third


def test_a_type_matches_as_text_and_in_its_own_group(makerspace: Makerspace) -> None:
    decoys = options(("03", "Ticketed Workshop"), ("3 ", "Ticketed Workshop"), ("３", "Ticketed Workshop"))
    decoys += options(("3", "Ticketed Workshop"), group=2)
    makerspace.fill(workshops(decoys, [(3, "2024-05-01 10:00:00")]))
    assert values(makerspace, ATTENDEES, year(2024)) == [0]
    makerspace.fill(workshops(decoys + options(("3", "Ticketed Workshop")), [(3, "2024-05-01 10:00:00")]))
    assert values(makerspace, ATTENDEES, year(2024)) == [1]


@pytest.mark.parametrize(
    "label", ["ticketed workshop", "Ticketed Workshop ", "Tícketed Workshop", "Ticketed\x01 Workshop"]
)
def test_the_attended_label_is_compared_byte_for_byte(makerspace: Makerspace, label: str) -> None:
    makerspace.fill(workshops(options(("1", label)), [(1, "2024-05-01 10:00:00")]))
    (value,) = makerspace.compute(ATTENDEES, year(2024))
    assert (value.value, value.population) == (0, 1)


@pytest.mark.parametrize(
    ("label", "is_workshop"),
    [("private WORKSHOPS", 1), ("wor\u212ashop", 0), ("wörkshop", 0), ("work\x01shop", 0), ("work shop", 0), (None, 0)],
)
def test_a_workshop_is_known_by_its_word_in_any_ascii_case(
    makerspace: Makerspace, label: str | None, is_workshop: int
) -> None:
    makerspace.fill(workshops(options(("1", label)), [(1, "2024-05-01 10:00:00")]))
    assert values(makerspace, FIRST, year(2024)) == [is_workshop]


def test_the_word_may_hold_a_pattern_or_an_accent(makerspace: Makerspace) -> None:
    makerspace.fill(workshops(options(("1", "50% of É_x")), [(1, "2024-05-01 10:00:00")]))
    for word, found in {"0% OF É_": 1, "%": 1, "5%f": 0, "é_x": 0, "É_X": 1}.items():
        assert values(makerspace, FIRST, year(2024), site=Site(workshop_word=word)) == [found]


def test_an_option_given_twice_counts_a_registration_once_and_a_first_timer_for_each_label(
    makerspace: Makerspace,
) -> None:
    types = options(("1", "Ticketed Workshop"), ("1", "Ticketed Workshop"), ("1", "Workshop series"), ("1", "Tour"))
    makerspace.fill(workshops(types, [(1, "2024-05-01 10:00:00")]))
    assert values(makerspace, ATTENDEES, year(2024)) == [1]
    (value,) = makerspace.compute(FIRST, year(2024))
    assert (value.value, value.population) == (2, 1)


def test_a_first_timer_began_with_a_workshop_at_the_first_moment_of_all(makerspace: Makerspace) -> None:
    types = options(("1", "Workshop"), ("2", "Tour"), ("3", "Sewing workshop"))
    first, later = "2023-05-01 10:00:00", "2024-05-01 10:00:00"
    events = [(1, later), (2, first), (1, first), (3, first), (2, later), (1, None), (None, first)]
    by_contact = {
        1: [1, 2],  # a tour a year earlier
        2: [1, 5],  # a tour at the same moment
        3: [3, 4, 4],  # two kinds of workshop at the same moment, one of them twice
        4: [6, 1],  # an event without a start
        5: [7, 1],  # an event without a type comes first
    }
    makerspace.fill(
        workshops(types, events, [(contact, event) for contact, ids in by_contact.items() for event in ids])
    )
    found = makerspace.compute(FIRST, year(2023), year(2024))
    assert [(value.value, value.population) for value in found] == [(2, 3), (2, 2)]


def test_a_registration_counts_by_its_status_alone(makerspace: Makerspace) -> None:
    tables = workshops(TICKETED, [(1, "2024-05-01 10:00:00")] * 3, [(1, 1), (2, 2), (3, 3), (4, 1)])
    tables["civicrm_participant"][0]["is_test"] = 1
    tables["civicrm_participant"][3]["status_id"] = 2
    tables["civicrm_event"][1]["is_active"] = 0
    people = [{"id": number, "is_deleted": 0} for number in range(1, 5)]
    answers = [{"entity_id": number, "custom_46": "asian"} for number in range(1, 5)]
    makerspace.fill({**tables, "civicrm_contact": people, "civicrm_value_demographics_15": answers})
    assert values(makerspace, ATTENDEES, year(2024)) == [3]
    (rate,) = makerspace.compute(PARTICIPANTS, year(2024))
    assert (rate.value, rate.basis) == (1, 1)


def test_the_current_month_is_the_sites_and_is_left_out(makerspace: Makerspace) -> None:
    events = [(1, "2026-10-31 23:59:59"), (1, "2026-11-01 00:00:00")]
    makerspace.fill(workshops(TICKETED, events, [(1, 1), (2, 2)]))
    first_of_november = datetime(2026, 11, 1, 2, tzinfo=UTC)
    for kpi_id in (ATTENDEES, FIRST):
        assert values(makerspace, kpi_id, year(2026), as_of=first_of_november) == [1]
        assert values(makerspace, kpi_id, year(2026), as_of=first_of_november, zone="America/New_York") == [0]
        assert values(makerspace, kpi_id, year(2026), as_of=datetime(2026, 12, 1, tzinfo=UTC)) == [2]
        (value,) = makerspace.compute(kpi_id, year(2026), as_of=first_of_november)
        assert value.warnings == ["The period is not over; only its finished months are counted."]
        january = datetime(2026, 1, 31, 23, tzinfo=UTC)
        assert values(makerspace, kpi_id, year(2025), year(2026), year(2027), as_of=january) == [0, None, None]


def test_no_monthly_snapshot_is_no_data_and_a_month_missing_or_twice_is_reported(makerspace: Makerspace) -> None:
    rows = [
        ("monthly", "2024-01-01", 5),
        ("Monthly", "2024-02-29", 7),
        ("monthly", "2024-02-01", -1),
        ("monthly", "2025-01-01", 100),
        ("mönthly", "2024-03-01", 100),
        ("daily", "2024-03-01", 100),
        ("monthly", "2024-03-01", None),
    ]
    makerspace.fill(
        {
            "ms_snapshot": [
                {
                    "id": number,
                    "definition": "MEMBERSHIP_totals",
                    "snapshot_type": kind,
                    "snapshot_date": date,
                    "source": str(number),
                }
                for number, (kind, date, _) in enumerate(rows, 1)
            ],
            "ms_fact_org_snapshot": [
                {"snapshot_id": number, "joins": joins} for number, (_, _, joins) in enumerate(rows, 1) if joins
            ],
        }
    )
    missing, found, next_year = makerspace.compute(SIGNUPS, year(2023), year(2024), year(2025))
    assert (missing.value, missing.basis, missing.population) == (None, 0, 12)
    assert (found.value, found.basis, found.population) == (11, 2, 12)
    assert found.warnings == [
        "10 of 12 months have no monthly snapshot.",
        "1 of 12 months has more than one monthly snapshot; all of them are summed.",
    ]
    assert next_year.value == 100
    assert values(makerspace, SIGNUPS, months(2024, 2, 1, 1, "monthly"), months(2024, 4, 3, 2, "quarterly")) == [
        6,
        None,
    ]


def test_a_monthly_snapshot_without_a_proper_date_is_counted_as_no_month_and_reported(makerspace: Makerspace) -> None:
    dates = ["2024-01-31", "2024-1-5", "2024-12-31", "2024-5-5"]  # as a text, the last one is after the year
    snapshots = [
        {"id": number, "definition": "membership_totals", "snapshot_type": "monthly", "snapshot_date": date}
        for number, date in enumerate(dates, 1)
    ]
    facts = [{"snapshot_id": number, "joins": 10**number} for number in range(1, len(dates) + 1)]
    makerspace.fill({"ms_snapshot": snapshots, "ms_fact_org_snapshot": facts})
    (found,) = makerspace.compute(SIGNUPS, year(2024))
    assert (found.value, found.basis) == (1110, 2)
    assert found.warnings == [
        "10 of 12 months have no monthly snapshot.",
        "1 monthly snapshot is not dated YYYY-MM-DD; it is counted.",
    ]
    snapshots[3]["snapshot_date"] = "2024-0x"
    makerspace.fill({"ms_snapshot": snapshots, "ms_fact_org_snapshot": facts})
    (found,) = makerspace.compute(SIGNUPS, year(2024))
    assert (found.value, found.basis) == (11110, 2)
    assert found.warnings[1] == "2 monthly snapshots are not dated YYYY-MM-DD; they are counted."


def monthly(*taken: tuple[str, str | None]) -> dict[str, list[dict[str, Any]]]:
    """A monthly snapshot for each date, with one join and the time (UTC) at which it was taken."""
    return {
        "ms_snapshot": [
            {
                "id": number,
                "definition": "membership_totals",
                "snapshot_type": "monthly",
                "snapshot_date": date,
                "source": str(number),
                "created_at": moment and int(datetime.fromisoformat(f"{moment}+00:00").timestamp()),
            }
            for number, (date, moment) in enumerate(taken, 1)
        ],
        "ms_fact_org_snapshot": [{"snapshot_id": number, "joins": 1} for number in range(1, len(taken) + 1)],
    }


BY_CRON = [(f"2024-{month:02}-01", f"2024-{month:02}-01T05:00:00") for month in range(1, 13)]
TAKEN_LATER = (
    "The monthly snapshots were taken on the first of the following month, so this sums the joins of {}; dated = {} "
    "sums those of {}."
)


def test_signups_from_snapshots_of_the_month_before_say_which_months_they_cover(makerspace: Makerspace) -> None:
    makerspace.fill(monthly(*BY_CRON))
    windows = [year(2024), months(2024, 1, 1, 1, "monthly"), months(2024, 4, 3, 2, "quarterly")]
    found, queries = makerspace.ask(SIGNUPS, *windows)
    setting = '{monthly = "first_of_next_month"}'
    assert [(value.value, *value.warnings) for value in found] == [
        (12, TAKEN_LATER.format("December 2023 to November 2024", setting, "January to December")),
        (1, TAKEN_LATER.format("December 2023", setting, "January")),
        (3, TAKEN_LATER.format("March 2024 to May 2024", setting, "April to June")),
    ]
    assert len(queries) == 1
    followed = Site(dated=Dated(monthly="first_of_next_month"))
    (value,) = makerspace.compute(SIGNUPS, year(2024), site=followed)
    assert (value.value, value.warnings) == (11, ["1 of 12 months has no monthly snapshot."])


@pytest.mark.parametrize(
    ("site", "setting"),
    [
        (Site(dated=Dated(annual="first_of_next_month")), '{annual = "first_of_next_month", monthly = "first'),
        (Site(dated=Dated(annual="first_of_next_month", quarterly="first_of_next_month")), '"first'),
    ],
)
@on("sqlite")
def test_the_setting_for_signups_leaves_the_other_cadences_as_they_are(
    makerspace: Makerspace, site: Site, setting: str
) -> None:
    makerspace.fill(monthly(*BY_CRON))
    (value,) = makerspace.compute(SIGNUPS, year(2024), site=site)
    assert f"; dated = {setting}_of_next_month" in value.warnings[0]


@pytest.mark.parametrize(
    "taken",
    [
        [(date, None) for date, _ in BY_CRON],
        [(date, "2025-03-03T00:00:00") for date, _ in BY_CRON],
        [(f"{date[:8]}15", moment) for date, moment in BY_CRON],
        [*BY_CRON[:6], *((date, "2025-01-01T00:00:00") for date, _ in BY_CRON[6:])],
        [("2024-12-01", "2024-12-30T06:00:00")],
    ],
)
def test_signups_whose_months_are_right_or_not_known_say_nothing_about_them(
    makerspace: Makerspace, taken: list[tuple[str, str | None]]
) -> None:
    makerspace.fill(monthly(*taken))
    (value,) = makerspace.compute(SIGNUPS, year(2024))
    assert not [text for text in value.warnings if "following month" in text]


def test_when_a_month_is_over_is_a_matter_of_the_site(makerspace: Makerspace) -> None:
    """Two days are allowed before the end, which comes five hours later in New York."""
    makerspace.fill(monthly(("2024-12-01", "2024-12-30T02:00:00")))
    warned = [
        any("following month" in text for text in makerspace.compute(SIGNUPS, year(2024), zone=zone)[0].warnings)
        for zone in ("UTC", "America/New_York")
    ]
    assert warned == [False, True]


def test_an_nps_without_a_score_is_no_data(makerspace: Makerspace) -> None:
    noon = int(datetime(2024, 7, 1, 12, tzinfo=UTC).timestamp())
    makerspace.fill(evaluations((noon, "0"), (noon, "none of your business"), (noon, "-3")))
    (value,) = makerspace.compute(NPS, year(2024))
    assert (value.value, value.basis, value.population) == (None, 0, 3)
    assert value.warnings == ["1 answer is not a plain number; its digits were used, or 0."]


def test_the_year_of_a_submission_is_the_sites(makerspace: Makerspace) -> None:
    new_year = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    makerspace.fill(evaluations((new_year - 1, "5"), (new_year, "1"), (new_year + 5 * 3600, "5")))
    assert values(makerspace, NPS, year(2023), year(2024)) == [100, 0]
    assert values(makerspace, NPS, year(2023), year(2024), zone="America/New_York") == [0, 100]


def test_the_hour_that_is_there_twice_at_the_end_of_a_month_belongs_to_it(makerspace: Makerspace) -> None:
    """In Almaty the clock was put back at midnight, after which it was the last of February again for an hour."""
    first = int(datetime(2024, 2, 29, 17, 30, tzinfo=UTC).timestamp())
    makerspace.fill(evaluations((first, "5"), (first + 3600, "1")))
    windows = [months(2024, 2, 1, 1, "monthly"), months(2025, 1, 1, 2, "monthly"), months(2025, 2, 1, 3, "monthly")]
    assert values(makerspace, NPS, *windows, zone="Asia/Almaty") == [0, 0, None]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Auckland"])
def test_the_nps_of_a_month_or_a_quarter_is_that_of_the_twelve_months_that_end_with_it(
    makerspace: Makerspace, zone: str
) -> None:
    first = datetime(2024, 3, 1, tzinfo=ZoneInfo(zone))  # clocks change between this and the ends of its windows
    last = datetime(2024, 10, 31, 23, 59, 59, tzinfo=ZoneInfo(zone))
    makerspace.fill(evaluations((int(first.timestamp()), "5"), (int(last.timestamp()), "1")))
    windows = [months(2024, month, 1, month, "monthly") for month in (2, 3, 9, 10, 12)]
    windows += [months(2025, month, 1, 20 + month, "monthly") for month in (2, 3, 9, 10)]
    windows += [months(2024, 1, 3, 40, "quarterly"), months(2024, 10, 3, 41, "quarterly")]
    windows += [months(2025, 1, 3, 42, "quarterly"), year(2024), year(2025)]
    found, queries = makerspace.ask(NPS, *windows, zone=zone)
    months_of_2024 = [None, 100, 100, 0, 0]
    assert [value.value for value in found] == [*months_of_2024, 0, -100, -100, None, 100, 0, -100, 0, None]
    assert [(value.basis, value.population) for value in found[3:7]] == [(2, 2), (2, 2), (2, 2), (1, 1)]
    assert len(queries) == 1


def test_drafts_and_other_forms_are_out_and_every_row_of_a_submission_is_a_score(makerspace: Makerspace) -> None:
    noon = int(datetime(2024, 7, 1, 12, tzinfo=UTC).timestamp())
    tables = evaluations(*[(noon, "5")] * 4)
    tables["webform_submission"][0]["in_draft"] = 1
    tables["webform_submission"][1]["webform_id"] = "WEBFORM_1181"
    second = {"sid": 4, "name": FIELD, "property": "", "delta": 1, "value": "1"}
    other = {"sid": 4, "name": FIELD.upper(), "property": "x", "delta": 2, "value": "1"}
    makerspace.fill({**tables, "webform_submission_data": [*tables["webform_submission_data"], second, other]})
    (value,) = makerspace.compute(NPS, year(2024))
    assert (value.value, value.basis, value.population) == (33.3, 3, 2)
    assert value.warnings == ["There are only 3 scores."]


def test_long_answers_that_differ_at_their_end_only_are_kept_apart(makerspace: Makerspace) -> None:
    noon = int(datetime(2024, 7, 1, 12, tzinfo=UTC).timestamp())
    long = "x" * 70_000
    makerspace.fill(evaluations(*[(noon, f"{long}{number}") for number in (5, 1, 4, 1, 5, 5)]))
    (value,) = makerspace.compute(NPS, year(2024))
    assert (value.value, value.basis) == (16.7, 6)


def test_years_that_no_clock_or_column_reaches_are_computed_without_harm(makerspace: Makerspace) -> None:
    makerspace.fill(workshops(TICKETED, [(1, "2024-05-01 10:00:00")]))
    extremes = [year(number) for number in (1, 1969, 2024, 2039, 5000, 9999)]
    for zone in ("UTC", "Pacific/Auckland", "America/New_York"):
        for kpi_id in KPIS:
            found = values(makerspace, kpi_id, *extremes, zone=zone)
            expected: list[float | None] = [None] * 6
            if kpi_id in (ATTENDEES, FIRST):
                expected[:3] = [0, 0, 1]
            assert found == expected


def test_three_thousand_windows_are_one_statement(makerspace: Makerspace) -> None:
    events = [(1, f"{number}-06-01 10:00:00") for number in (1500, 2023, 2024)]
    makerspace.fill(workshops(TICKETED, events, [(1, 1), (2, 2), (3, 3), (4, 3)]))
    windows = [year(number) for number in range(1000, 4000)]
    windows += [months(2024, first, 1, 10_000 + first, "monthly") for first in range(1, 13)]
    for kpi_id in KPIS:
        found, queries = makerspace.ask(kpi_id, *windows)
        assert len(queries) == 1
        if kpi_id in (ATTENDEES, FIRST):
            assert {value.window_id: value.value for value in found if value.value} == {
                1500: 1,
                2023: 1,
                2024: 2,
                10_006: 2,
            }


def people(answers: Sequence[str | None]) -> dict[str, list[dict[str, Any]]]:
    """A workshop in 2024 that each person attended; the person's answer."""
    numbers = range(1, len(answers) + 1)
    return {
        **workshops(TICKETED, [(1, "2024-05-01 10:00:00")], [(number, 1) for number in numbers]),
        "civicrm_contact": [{"id": number, "is_deleted": 0} for number in numbers],
        "civicrm_value_demographics_15": [
            {"entity_id": number, "custom_46": answer} for number, answer in enumerate(answers, 1)
        ],
    }


def test_answers_are_kept_apart_that_a_collation_takes_for_one(makerspace: Makerspace) -> None:
    makerspace.fill(people(["asian\x01white", "asianwhite", "white", "Whı\u0301te", "white\u00a0"]))
    (value,) = makerspace.compute(PARTICIPANTS, year(2024))
    assert (value.value, value.basis) == (2 / 5, 5)


def test_the_greatest_of_several_answers_counts(makerspace: Makerspace) -> None:
    tables = people(["white"])
    with connect(makerspace.database.url) as connection:
        index = next(
            index["name"]
            for index in sa.inspect(connection).get_indexes("civicrm_value_demographics_15")
            if index["unique"]
        )
        where = " ON civicrm_value_demographics_15" if makerspace.database.name == "mariadb" else ""
        connection.exec_driver_sql(f'DROP INDEX "{index}"'.replace('"', "`" if where else '"') + where)
    answers = [{"entity_id": 1, "custom_46": text} for text in ("white", "asian", None, "WHITE")]
    makerspace.fill({**tables, "civicrm_value_demographics_15": answers})
    assert values(makerspace, PARTICIPANTS, year(2024)) == [0]
    answers += [{"entity_id": 1, "custom_46": "émigré"}]
    makerspace.fill({**tables, "civicrm_value_demographics_15": answers})
    assert values(makerspace, PARTICIPANTS, year(2024)) == [1]


@pytest.mark.parametrize(
    ("answers", "bipoc"),
    [
        (["\x01white\x01", "asian"], 1),
        (["White", "black"], 1),
        (["Declined to answer", "black"], 1),
        (["|", "black"], None),
        ([None, "\x01white\x01asian\x01"], 1),
        (["", "hispanic"], 1),
        (["white_european", "white,black"], 0),
        (["white\tblack", "white"], 0),
    ],
)
def test_an_account_with_two_contacts_of_one_name_goes_by_the_greatest_answer_by_bytes(
    makerspace: Makerspace, answers: list[str | None], bipoc: float | None
) -> None:
    tables = people(answers)
    makerspace.fill(
        {
            **tables,
            "civicrm_contact": [{"id": number, "display_name": "One", "is_deleted": 0} for number in (1, 2)],
            "users_field_data": [{"uid": 7, "name": "one", "status": 1}],
            "user__roles": [{"entity_id": 7, "roles_target_id": "instructor"}],
            "civicrm_uf_match": [{"uf_id": 7, "contact_id": number, "domain_id": number} for number in (1, 2)],
            "civicrm_event__field_civi_event_instructor": [
                {"entity_id": 1, "deleted": 0, "field_civi_event_instructor_target_id": 7}
            ],
        }
    )
    assert values(makerspace, INSTRUCTORS, year(2024)) == [bipoc]


def test_few_people_are_warned_of_without_saying_how_few(makerspace: Makerspace) -> None:
    makerspace.fill(people(["asian", "white", "white", "white", None]))
    assert makerspace.compute(PARTICIPANTS, year(2024))[0].warnings == ["Fewer than 5 people reported their ethnicity."]
    makerspace.fill(people(["asian", "white", "white", "white", "x"]))
    assert makerspace.compute(PARTICIPANTS, year(2024))[0].warnings == []


def test_without_a_table_or_column_of_answers_both_rates_are_no_data(makerspace: Makerspace) -> None:
    makerspace.fill(people(["asian"]))
    for kpi_id in (PARTICIPANTS, INSTRUCTORS):
        (value,) = makerspace.compute(kpi_id, year(2024), site=Site(demographics_table="nowhere"))
        assert (value.value, value.warnings) == (None, ["There is no table nowhere."])
        (value,) = makerspace.compute(kpi_id, year(2024), site=Site(ethnicity_columns=("custom_1", "custom_2")))
        assert value.value is None
        assert value.warnings == ["civicrm_value_demographics_15 has none of the columns custom_1, custom_2."]
    with connect(makerspace.database.url) as connection:
        connection.exec_driver_sql("ALTER TABLE civicrm_value_demographics_15 RENAME COLUMN custom_46 TO ethnicity_46")
    assert values(makerspace, PARTICIPANTS, year(2024)) == [1]


@on("sqlite")
def test_texts_that_are_not_utf8_are_counted_and_not_choked_on(makerspace: Makerspace) -> None:
    noon = int(datetime(2024, 7, 1, 12, tzinfo=UTC).timestamp())
    makerspace.fill({**people(["x"]), **evaluations((noon, "x"))})
    with connect(makerspace.database.url) as connection:
        connection.exec_driver_sql("UPDATE civicrm_value_demographics_15 SET custom_46 = CAST(x'ff' AS TEXT)")
        connection.exec_driver_sql("UPDATE webform_submission_data SET value = CAST(x'ff35' AS TEXT)")
    assert values(makerspace, PARTICIPANTS, year(2024)) == [1]
    assert values(makerspace, NPS, year(2024)) == [100]


@on("mariadb", "postgresql")
def test_civicrm_may_have_a_schema_of_its_own(store: Database) -> None:
    expected = {
        row["kpi_id"]: row["metric_value"]
        for row in reference_expected("UTC")
        if row["period_year"] == 2024 and row["period_month"] == 12
    }
    with civicrm_moved(store) as schema, reading(sa.make_url(store.url), Site(civicrm_schema=schema)) as connection:
        site = SiteAt(Site(), ZoneInfo("UTC"), AS_OF)
        for kpi_id, kpi in KPIS.items():
            (value,) = kpi.compute(RecordedConnection(connection), site, [year(2024)])
            assert value.value == expected[kpi_id]


@on("mariadb")
def test_the_queries_are_valid_for_a_server_that_groups_by_the_book(store: Database) -> None:
    url = sa.make_url(store.url).update_query_dict({"init_command": "SET sql_mode = 'ONLY_FULL_GROUP_BY,ANSI'"})
    with reading(url, Site()) as connection:
        assert "ONLY_FULL_GROUP_BY" in str(connection.scalar(sa.text("SELECT @@sql_mode")))
        site = SiteAt(Site(), ZoneInfo("UTC"), AS_OF)
        for kpi in KPIS.values():
            (value,) = kpi.compute(RecordedConnection(connection), site, [year(2024)])
            assert value.value is not None
