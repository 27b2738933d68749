"""The demo makerspace's story: stored values compared with each definition, written once more as plain SQL."""

from __future__ import annotations

import itertools
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kpibackfill.demo import build_demo

YEARS = range(2015, 2026)
NPS = "kpi_education_nps"

# Each KPI's definition as one plain query by period (by default a year), none of it shared with the package.
VIEWS = """
    CREATE TEMP VIEW option AS
        SELECT v.label, v.value FROM civicrm_option_value v
        JOIN civicrm_option_group g ON g.id = v.option_group_id AND g.name = 'event_type';
    CREATE TEMP VIEW counted AS
        SELECT period(e.start_date) AS period, e.start_date AS start, e.is_active, o.label,
               p.id, p.contact_id, p.is_test
        FROM civicrm_participant p
        JOIN civicrm_participant_status_type s ON s.id = p.status_id AND s.is_counted = 1
        JOIN civicrm_event e ON e.id = p.event_id AND e.start_date IS NOT NULL
        JOIN option o ON o.value = CAST(e.event_type_id AS TEXT);
    CREATE TEMP VIEW answer AS
        SELECT c.id AS contact_id,
               CASE WHEN d.custom_46 LIKE '%asian%' OR d.custom_46 LIKE '%black%' OR d.custom_46 LIKE '%hispanic%'
                      OR d.custom_46 LIKE '%multi%' OR d.custom_46 LIKE '%middleeast%' THEN 1.0
                    WHEN d.custom_46 LIKE '%white%' THEN 0.0 END AS bipoc
        FROM civicrm_contact c JOIN civicrm_value_demographics_15 d ON d.entity_id = c.id WHERE c.is_deleted = 0;
"""
DEFINITIONS = {
    "kpi_total_new_member_signups": """
        SELECT period(s.snapshot_date), sum(f.joins)
        FROM ms_snapshot s JOIN ms_fact_org_snapshot f ON f.snapshot_id = s.id
        WHERE s.definition = 'membership_totals' AND s.snapshot_type = 'monthly' GROUP BY 1""",
    "kpi_workshop_attendees": """
        SELECT period, count(DISTINCT id) FROM counted WHERE label = 'Ticketed Workshop' GROUP BY 1""",
    "all workshops": "SELECT period, count(DISTINCT id) FROM counted WHERE label LIKE '%workshop%' GROUP BY 1",
    "kpi_total_first_time_workshop_participants": """
        WITH first AS (SELECT contact_id, min(start) AS start FROM counted GROUP BY 1)
        SELECT period, count(*)
        FROM (SELECT DISTINCT period, contact_id, label FROM counted JOIN first USING (contact_id, start)
              WHERE label LIKE '%workshop%')
        GROUP BY 1""",
    "kpi_workshop_participants_bipoc": """
        SELECT period, avg(bipoc)
        FROM (SELECT DISTINCT period, contact_id FROM counted
              WHERE is_test = 0 AND is_active = 1 AND label LIKE '%workshop%')
        JOIN answer USING (contact_id) GROUP BY 1""",
    "kpi_active_instructors_bipoc": """
        SELECT period, avg(bipoc)
        FROM (SELECT DISTINCT period(e.start_date) AS period, u.uid, m.contact_id
              FROM civicrm_event e
              JOIN option o ON o.value = CAST(e.event_type_id AS TEXT)
              JOIN civicrm_event__field_civi_event_instructor i ON i.entity_id = e.id AND i.deleted = 0
              JOIN users_field_data u ON u.uid = i.field_civi_event_instructor_target_id AND u.status = 1
              JOIN user__roles r ON r.entity_id = u.uid AND r.roles_target_id = 'instructor'
              JOIN civicrm_uf_match m ON m.uf_id = u.uid
              WHERE o.label IN ('Ticketed Workshop', 'Program'))
        JOIN answer USING (contact_id) GROUP BY 1""",
    NPS: """
        WITH score AS (
            SELECT period(date(s.created, 'unixepoch')) AS period,
                   CASE d.value WHEN '4/5' THEN 45 WHEN '5 - Very likely' THEN 0 ELSE CAST(d.value AS INT) END AS n
            FROM webform_submission s JOIN webform_submission_data d USING (sid)
            WHERE s.webform_id = 'webform_1181' AND s.in_draft = 0
              AND d.name = 'how_likely_are_you_to_recommend_this_event_to_others')
        SELECT period, round(100.0 * (sum(n >= 5) - sum(n <= 3)) / count(*), 1) FROM score WHERE n > 0 GROUP BY 1""",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_demo(tmp_path_factory.mktemp("demo") / "demo.sqlite", until_year=2025).path


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with opened(path) as connection:
        yield connection


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function("period", 1, lambda date: int(date[:4]))
        connection.executescript(VIEWS)
        yield connection


def month(date: str) -> int:
    return int(date[:4] + date[5:7])


def float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def computed(db: sqlite3.Connection, definition: str) -> dict[int, float]:
    return {period: float32(value) for period, value in db.execute(DEFINITIONS[definition])}


def stored(
    db: sqlite3.Connection, kpi_id: str, source: str = "system", snapshot_type: str = "annual%"
) -> dict[int, float]:
    return dict(
        db.execute(
            "SELECT period(printf('%d-%02d', f.period_year, f.period_month)), f.metric_value"
            " FROM ms_fact_kpi_snapshot f JOIN ms_snapshot s ON s.id = f.snapshot_id"
            " WHERE f.kpi_id = ? AND s.source = ? AND s.snapshot_type LIKE ? ORDER BY 1",
            (kpi_id, source, snapshot_type),
        )
    )


def differing(db: sqlite3.Connection, kpi_id: str) -> set[int]:
    """The years whose stored value is not exactly the computed one."""
    values = computed(db, kpi_id)
    return {year for year, value in stored(db, kpi_id).items() if values.get(year) != value}


def test_nothing_of_ours_is_stored_for_2016_and_2019(db):
    years = {kpi_id: set(stored(db, kpi_id)) for kpi_id in DEFINITIONS}
    assert years["kpi_workshop_attendees"] == {2015, 2017, 2018, *range(2020, 2026)}
    assert years["kpi_total_new_member_signups"] == {2015, 2017, 2018, *range(2020, 2025)}
    assert years["kpi_total_first_time_workshop_participants"] == {2015, 2017, 2018, *range(2020, 2025)}


def test_attendees_were_all_workshops_until_2020_and_are_the_ticketed_ones_since_2021(db):
    values = stored(db, "kpi_workshop_attendees")
    everything, ticketed = computed(db, "all workshops"), computed(db, "kpi_workshop_attendees")
    assert all(values[year] == everything[year] > ticketed[year] for year in (2015, 2017, 2018, 2020))
    assert all(values[year] == ticketed[year] < everything[year] for year in (2021, 2022, 2023, 2024))


def test_first_timers_match_in_every_stored_year(db):
    assert differing(db, "kpi_total_first_time_workshop_participants") == set()


def test_the_participants_rate_was_rounded_in_2017_and_2018_and_matches_elsewhere(db):
    kpi_id = "kpi_workshop_participants_bipoc"
    assert differing(db, kpi_id) == {2017, 2018}
    for year in (2017, 2018):
        assert stored(db, kpi_id)[year] == float32(round(computed(db, kpi_id)[year], 2))


def test_2018_has_no_evaluations_and_a_false_0(db):
    assert 2018 not in computed(db, NPS)
    assert stored(db, NPS)[2018] == 0
    assert differing(db, NPS) == {2018}


def test_2020_dips(db):
    for definition in ("kpi_workshop_attendees", "kpi_total_new_member_signups"):
        values = computed(db, definition)
        assert values[2020] < 0.5 * values[2019]
        assert values[2020] < 0.65 * values[2021]
    events = db.execute("SELECT count(*) FROM civicrm_event WHERE start_date LIKE '2020-0[4-6]%'").fetchone()
    assert events == (0,)


def test_2021_lost_two_months_so_the_stored_signups_are_the_right_ones(db):
    months = "SELECT count(DISTINCT snapshot_date) FROM ms_snapshot WHERE definition = 'membership_totals' AND "
    months += "snapshot_type = 'monthly' AND snapshot_date LIKE ?"
    found = {year: db.execute(months, (f"{year}%",)).fetchone()[0] for year in YEARS}
    assert found == {year: 10 if year == 2021 else 12 for year in YEARS}
    assert stored(db, "kpi_total_new_member_signups")[2021] > computed(db, "kpi_total_new_member_signups")[2021]


def test_2022_counts_three_months_twice(db):
    twice = """SELECT snapshot_date FROM ms_snapshot
               WHERE definition = 'membership_totals' AND snapshot_type = 'monthly'
               GROUP BY 1 HAVING count(*) > 1 ORDER BY 1"""
    assert [date for (date,) in db.execute(twice)] == ["2022-03-01", "2022-04-01", "2022-05-01"]
    assert stored(db, "kpi_total_new_member_signups")[2022] < computed(db, "kpi_total_new_member_signups")[2022]
    assert differing(db, "kpi_total_new_member_signups") == {2021, 2022}


def test_2023_has_two_annual_snapshots_and_the_manual_import_is_behind_the_systems(db):
    annual = """SELECT group_concat(snapshot_date || ' ' || source) FROM ms_snapshot
                WHERE definition = 'membership_totals' AND snapshot_type IN ('annually', 'annual')
                GROUP BY substr(snapshot_date, 1, 4) HAVING count(*) > 1"""
    ((found,),) = db.execute(annual)
    assert sorted(found.split(",")) == ["2023-12-15 manual_import", "2023-12-31 system"]
    hand_made = stored(db, "kpi_workshop_attendees", "manual_import")
    assert hand_made[2023] % 10 == 0
    assert hand_made[2023] != stored(db, "kpi_workshop_attendees")[2023]


def test_the_instructors_rate_of_2021_counts_people_who_no_longer_have_the_role(db):
    assert set(stored(db, "kpi_active_instructors_bipoc")) == {2021, 2022, 2023}
    assert differing(db, "kpi_active_instructors_bipoc") == {2021}


def test_the_last_two_years_are_partly_missing(db):
    years = {kpi_id: set(stored(db, kpi_id)) & {2024, 2025} for kpi_id in DEFINITIONS if kpi_id != "all workshops"}
    assert years == {
        "kpi_total_new_member_signups": {2024},
        "kpi_workshop_attendees": {2024, 2025},
        "kpi_total_first_time_workshop_participants": {2024},
        "kpi_workshop_participants_bipoc": set(),
        "kpi_active_instructors_bipoc": set(),
        NPS: set(),
    }
    assert 0 < stored(db, "kpi_workshop_attendees")[2025] < computed(db, "kpi_workshop_attendees")[2025]


def test_since_2024_the_hook_has_frozen_each_month(db):
    db.create_function("period", 1, month)
    frozen = {kpi_id: stored(db, kpi_id, snapshot_type="monthly") for kpi_id in DEFINITIONS}
    months = [100 * year + number for year in (2024, 2025) for number in range(1, 13)]
    for kpi_id in DEFINITIONS.keys() - {"all workshops", NPS}:
        values = computed(db, kpi_id)
        assert frozen[kpi_id] == {period: values[period] for period in months if period in values}
    members = """SELECT period(s.snapshot_date), members_active FROM ms_fact_org_snapshot JOIN ms_snapshot s
                 ON s.id = snapshot_id WHERE s.snapshot_type = 'monthly' AND s.snapshot_date >= '2024'"""
    assert stored(db, "kpi_total_active_members", snapshot_type="monthly") == dict(db.execute(members))
    assert list(frozen[NPS]) == months
    for last, value in frozen[NPS].items():
        db.create_function("period", 1, lambda date, last=last: last - 100 < month(date) <= last)
        assert computed(db, NPS)[True] == value  # of the twelve months that end with this one


def test_other_programs_rows_have_ids_that_never_had_a_prefix(db):
    query = "SELECT DISTINCT kpi_id FROM ms_fact_kpi_snapshot WHERE kpi_id NOT LIKE 'kpi\\_%' ESCAPE '\\' ORDER BY 1"
    assert [kpi_id for (kpi_id,) in db.execute(query)] == ["active_members_bipoc_count", "joins_bipoc_rate"]


def test_meta_is_php_text_or_the_word_array(db):
    rows = list(db.execute("SELECT period_year, kpi_id, meta FROM ms_fact_kpi_snapshot WHERE meta IS NOT NULL"))
    assert [(year, kpi_id) for year, kpi_id, meta in rows if meta == b"Array"] == [(2017, "kpi_workshop_attendees")]
    ours = {meta for _, kpi_id, meta in rows if kpi_id == NPS}
    assert b'a:2:{s:6:"source";s:29:"makerspace_dashboard_backfill";s:17:"computed_for_year";i:2015;}' in ours
    assert {meta for _, kpi_id, meta in rows if kpi_id == "kpi_total_active_members"} == {b"a:0:{}"}


def test_period_month_is_wrong_in_one_row(db):
    wrong = """SELECT f.period_year, f.kpi_id, f.period_month FROM ms_fact_kpi_snapshot f
               JOIN ms_snapshot s ON s.id = f.snapshot_id
               WHERE f.period_month <> CAST(substr(s.snapshot_date, 6, 2) AS INT)"""
    assert list(db.execute(wrong)) == [(2020, "kpi_workshop_attendees", 11)]


@pytest.mark.parametrize(
    ("what", "query"),
    [
        ("test registrations", "SELECT count(*) FROM civicrm_participant WHERE is_test = 1"),
        ("inactive events", "SELECT count(*) FROM civicrm_event WHERE is_active = 0"),
        ("templates without a date", "SELECT count(*) FROM civicrm_event WHERE start_date IS NULL"),
        ("deleted contacts", "SELECT count(*) FROM civicrm_contact WHERE is_deleted = 1"),
        ("drafts", "SELECT count(*) FROM webform_submission WHERE in_draft = 1"),
        ("another webform", "SELECT count(*) FROM webform_submission WHERE webform_id <> 'webform_1181'"),
        ("an inactive option in use", "SELECT count(*) FROM civicrm_event WHERE event_type_id = 7"),
        (
            "values that other option groups use too",
            "SELECT count(*) FROM civicrm_option_value a JOIN civicrm_option_value b USING (value)"
            " WHERE a.option_group_id = 15 AND b.option_group_id = 2",
        ),
        (
            "all of four odd answers",
            "SELECT count(DISTINCT value) = 4 FROM webform_submission_data"
            " WHERE value IN ('5 - Very likely', '4/5', '', 'n/a')",
        ),
        (
            "several ethnicities",
            "SELECT count(*) FROM civicrm_value_demographics_15"
            " WHERE custom_46 = char(1) || 'asian' || char(1) || 'white' || char(1)",
        ),
        ("removed instructors", "SELECT count(*) FROM civicrm_event__field_civi_event_instructor WHERE deleted = 1"),
        ("blocked users", "SELECT count(*) FROM users_field_data WHERE status = 0"),
        ("other definitions", "SELECT count(*) FROM ms_snapshot WHERE definition = 'plan_levels'"),
        ("cache tags", "SELECT count(*) FROM cachetags WHERE tag LIKE 'makerspace_snapshot:kpi%'"),
    ],
)
def test_the_demo_has_what_real_sites_have(db, what, query):
    assert db.execute(query).fetchone()[0] > 0, what


def test_it_grows_with_the_seasons(db):
    attendees = computed(db, "kpi_workshop_attendees")
    for earlier, later in itertools.pairwise([2015, 2016, 2017, 2018, 2019, 2022, 2023, 2024, 2025]):
        assert attendees[earlier] < attendees[later]
    months = dict(db.execute("SELECT substr(start_date, 6, 2), count(*) FROM civicrm_event GROUP BY 1"))
    assert months["07"] < 0.75 * months["01"]


def test_a_later_year_leaves_the_people_of_the_earlier_ones_as_they_are(path, tmp_path):
    later = build_demo(tmp_path / "later.sqlite", until_year=2027).path
    query = "SELECT p.* FROM civicrm_participant p JOIN civicrm_event e ON e.id = event_id WHERE start_date < '2026'"
    with opened(path) as one, opened(later) as other:
        assert one.execute(query).fetchall() == other.execute(query).fetchall()
        assert differing(other, NPS) == {2018}
        assert max(stored(other, NPS)) == 2025
