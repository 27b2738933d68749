"""The six KPIs once more, row by row in plain Python, from their definitions and without any of the code under test.

Every function takes the rows of all tables and one window, and returns value, basis and population.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from kpibackfill.kpis.registry import Window

Tables = Mapping[str, Sequence[Mapping[str, Any]]]
Result = tuple[float | None, int | None, int | None]

FIELD = "how_likely_are_you_to_recommend_this_event_to_others"

UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"


def lower(text: str) -> str:
    return "".join(chr(ord(letter) + 32) if letter in UPPER else letter for letter in text)


def labels(tables: Tables, event: Mapping[str, Any]) -> set[str]:
    groups = {row["id"] for row in tables["civicrm_option_group"] if row["name"] == "event_type"}
    return {
        row["label"]
        for row in tables["civicrm_option_value"]
        if row["option_group_id"] in groups and row["value"] == str(event["event_type_id"]) and row["label"] is not None
    }


def registrations(tables: Tables) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    statuses = {row["id"] for row in tables["civicrm_participant_status_type"] if row["is_counted"] == 1}
    events = {row["id"]: row for row in tables["civicrm_event"] if row["start_date"] is not None}
    for row in tables["civicrm_participant"]:
        if row["status_id"] in statuses and row["event_id"] in events:
            yield row, events[row["event_id"]]


def inside(text: str, window: Window) -> bool:
    return window.start <= datetime.fromisoformat(text) <= window.end


def month_is_over(text: str, as_of: datetime, zone: ZoneInfo) -> bool:
    now = as_of.astimezone(zone)
    start = datetime.fromisoformat(text)
    return (start.year, start.month) < (now.year, now.month)


def has_finished_month(window: Window, as_of: datetime, zone: ZoneInfo) -> bool:
    now = as_of.astimezone(zone)
    return (window.start.year, window.start.month) < (now.year, now.month)


def signups(tables: Tables, window: Window, zone: ZoneInfo, as_of: datetime) -> Result:
    joins = {row["snapshot_id"]: row["joins"] for row in tables["ms_fact_org_snapshot"]}
    found = [
        row
        for row in tables["ms_snapshot"]
        if lower(row["definition"]) == "membership_totals"
        and lower(row["snapshot_type"]) == "monthly"
        and window.start.strftime("%Y-%m-%d") <= row["snapshot_date"] <= window.end.strftime("%Y-%m-%d")
        and row["id"] in joins
    ]
    expected = {"annual": 12, "quarterly": 3, "monthly": 1}[window.cadence]
    value = sum(joins[row["id"]] for row in found) if found else None
    months = {row["snapshot_date"][:7] for row in found}
    return value, len({month for month in months if month[5:].isdecimal() and len(month) == 7}), expected


def attendees(tables: Tables, window: Window, zone: ZoneInfo, as_of: datetime) -> Result:
    if not has_finished_month(window, as_of, zone):
        return None, None, None
    value = population = 0
    for _, event in registrations(tables):
        if inside(event["start_date"], window) and month_is_over(event["start_date"], as_of, zone):
            population += 1
            value += "Ticketed Workshop" in labels(tables, event)
    return value, value, population


def first_timers(tables: Tables, window: Window, zone: ZoneInfo, as_of: datetime) -> Result:
    if not has_finished_month(window, as_of, zone):
        return None, None, None
    by_contact = defaultdict(list)
    for row, event in registrations(tables):
        by_contact[row["contact_id"]].append(event)
    value = population = 0
    for events in by_contact.values():
        first = min(event["start_date"] for event in events)
        if inside(first, window) and month_is_over(first, as_of, zone):
            population += 1
            begun = {label for event in events if event["start_date"] == first for label in labels(tables, event)}
            value += sum("workshop" in lower(label) for label in begun)
    return value, value, population


def is_number(text: str) -> bool:
    blanks = " \t\n\r\v\f"
    text = text.lstrip(blanks).rstrip(blanks)
    if text[:1] in ("+", "-"):
        text = text[1:]
    mantissa, e, exponent = text.replace("E", "e").partition("e")
    if exponent[:1] in ("+", "-"):
        exponent = exponent[1:]
    whole, _, fraction = mantissa.partition(".")
    return (
        all(letter in DIGITS for letter in whole + fraction + exponent)
        and bool(whole + fraction)
        and (bool(exponent) or not e)
    )


def score(text: str) -> int:
    if not is_number(text):
        text = "".join(letter for letter in text if letter in DIGITS + ".-")
        if not is_number(text):
            return 0
    number = float(text)
    return 0 if number in (float("inf"), float("-inf")) else int(number)


def nps_points(promoters: int, detractors: int, scores: int) -> float:
    exact = Fraction(promoters - detractors, scores) * 1000
    tenths = int(abs(exact) + Fraction(1, 2))
    return float(Fraction(tenths if exact >= 0 else -tenths, 10))


def nps(tables: Tables, window: Window, zone: ZoneInfo, as_of: datetime) -> Result:
    submissions = set()
    first = window.start
    if window.cadence != "annual":  # the twelve months that end with the window
        first = window.end.replace(day=1, hour=0, minute=0, second=0)
        for _ in range(11):
            first = (first - timedelta(days=1)).replace(day=1)
    for row in tables["webform_submission"]:
        if row["webform_id"] == "webform_1181" and row["in_draft"] == 0 and row["created"] is not None:
            local = datetime.fromtimestamp(row["created"], zone).replace(tzinfo=None)
            if first <= local <= window.end:
                submissions.add(row["sid"])

    scores = [
        score(row["value"])
        for row in tables["webform_submission_data"]
        if row["name"] == FIELD and row["sid"] in submissions
    ]
    scores = [number for number in scores if number > 0]
    promoters = sum(number >= 5 for number in scores)
    detractors = sum(number <= 3 for number in scores)
    value = nps_points(promoters, detractors, len(scores)) if scores else None
    return value, len(scores), len(submissions)


def reported_values(text: str, separators: str) -> list[str]:
    for separator in separators:
        text = text.replace(separator, ",")
    values = [lower(value.strip(" \t\n\r\v\0")) for value in text.split(",")]
    dropped = (
        "unspecified|not_specified|not specified|unknown|prefer not|prefer_not|decline|not provided|not_provided|n/a"
    )
    return [value for value in values if value and not any(part in value for part in dropped.split("|"))]


def rate(answers: Iterable[Sequence[str | None]], separators: str) -> Result:
    bipoc = reported = people = 0
    for texts in answers:
        people += 1
        values = reported_values(
            max([text for text in texts if text is not None], key=str.encode, default=""), separators
        )
        reported += bool(values)
        bipoc += any("white" not in value and "caucasian" not in value for value in values)
    return (bipoc / reported if reported else None), reported, people


def texts_of(tables: Tables) -> dict[int, list[str | None]]:
    texts = defaultdict(list)
    for row in tables["civicrm_value_demographics_15"]:
        texts[row["entity_id"]].append(row["custom_46"])
    return texts


def participants_bipoc(tables: Tables, window: Window, zone: ZoneInfo, as_of: datetime) -> Result:
    alive = {row["id"] for row in tables["civicrm_contact"] if row["is_deleted"] == 0}
    contacts = {
        row["contact_id"]
        for row, event in registrations(tables)
        if row["is_test"] == 0
        and event["is_active"] == 1
        and inside(event["start_date"], window)
        and row["contact_id"] in alive
        and any("workshop" in lower(label) for label in labels(tables, event))
    }
    texts = texts_of(tables)
    return rate([texts[contact] for contact in contacts], "\x01\x02|")


def instructors_bipoc(tables: Tables, window: Window, zone: ZoneInfo, as_of: datetime) -> Result:
    events = {
        event["id"]
        for event in tables["civicrm_event"]
        if event["start_date"] is not None
        and inside(event["start_date"], window)
        and any(lower(label) in ("ticketed workshop", "program") for label in labels(tables, event))
    }
    target = "field_civi_event_instructor_target_id"
    taught = {
        row[target]
        for row in tables["civicrm_event__field_civi_event_instructor"]
        if row["deleted"] == 0 and row[target] > 0 and row["entity_id"] in events
    }
    roles = {row["entity_id"] for row in tables["user__roles"] if row["roles_target_id"] == "instructor"}
    contacts = {row["id"]: row for row in tables["civicrm_contact"] if row["is_deleted"] == 0}
    texts = texts_of(tables)
    people: dict[tuple[int, str, str | None], list[str | None]] = defaultdict(list)
    for account in tables["users_field_data"]:
        if account["uid"] in taught & roles and account["status"] == 1:
            for match in tables["civicrm_uf_match"]:
                if match["uf_id"] == account["uid"] and match["contact_id"] in contacts:
                    name = contacts[match["contact_id"]]["display_name"]
                    people[account["uid"], account["name"], name] += texts[match["contact_id"]]
    return rate(people.values(), "\0\x01\x02|;")


ORACLE: dict[str, Callable[[Tables, Window, ZoneInfo, datetime], Result]] = {
    "total_new_member_signups": signups,
    "workshop_attendees": attendees,
    "total_first_time_workshop_participants": first_timers,
    "education_nps": nps,
    "workshop_participants_bipoc": participants_bipoc,
    "active_instructors_bipoc": instructors_bipoc,
}
