"""A makerspace of any size, reproducible for each size: each table in frames of at most `CHUNK` rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

CHUNK = 500_000
FIRST, LAST = np.datetime64("2012-01-01"), np.datetime64("2026-06-30")
HOURS = np.array([10, 13, 18, 19, 20])
NPS_FIELD = "how_likely_are_you_to_recommend_this_event_to_others"
TYPES = ["Tour", "Ticketed Workshop", "Workshop series", "Program", "Meetup", "Private WORKSHOP", "Open house"]
TYPE_SHARES = [0.12, 0.40, 0.12, 0.10, 0.14, 0.05, 0.07]
STATUS_COUNTED = [1, 1, 0, 0, 1, 0, 0]
STATUS_SHARES = [0.30, 0.45, 0.08, 0.10, 0.03, 0.02, 0.02]
ANSWERS = [
    "\x01white\x01", "white", "\x01black\x01", "\x01black\x01white\x01", "\x01asian\x01", "\x01hispanic\x01", "",
    "\x01prefer_not_to_say\x01", "\x01white\x01hispanic\x01native\x01", "\x01decline\x01", "\x01multi\x01", "BLACK",
    "white,black", "\x01white\x01other\x01", "caucasian", "not_provided", "white;black", "Declined to answer", "MÉTIS",
]  # fmt: skip
SCORES = ["5", "4", "3", "1", "10", "0", "n/a", "2", "", "5 - Very likely", "3 ", "4.9", "+5"]
SCORE_SHARES = [0.42, 0.25, 0.09, 0.06, 0.05, 0.03, 0.03, 0.02, 0.01, 0.01, 0.01, 0.01, 0.01]


def makerspace(participants: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """Tables and their rows for that many registrations: a twelfth as many events, a quarter as many contacts (of whom
    nine in ten gave an answer about their ethnicity), and a fifth as many evaluations of three answers each."""
    chance = np.random.default_rng(participants)
    events, contacts, submissions = max(participants // 12, 1), max(participants // 4, 1), max(participants // 5, 1)
    users = max(events // 100, 5)
    yield from _small_tables()
    yield from _numbered(
        "civicrm_contact",
        contacts,
        lambda ids: {
            "contact_type": "Individual",
            "display_name": [f"Person {number}" for number in ids],
            "is_deleted": (chance.random(len(ids)) < 0.02).astype(int),
        },
    )
    answering = np.flatnonzero(chance.random(contacts) < 0.9) + 1
    yield from _numbered(
        "civicrm_value_demographics_15",
        len(answering),
        lambda ids: {"entity_id": answering[ids - 1], "custom_46": chance.choice(ANSWERS, len(ids))},
    )
    days = int((LAST - FIRST) / np.timedelta64(1, "D"))
    yield from _numbered(
        "civicrm_event",
        events,
        lambda ids: {
            "title": [f"Event {number}" for number in ids],
            "event_type_id": chance.choice(len(TYPES), len(ids), p=TYPE_SHARES) + 1,
            "start_date": _moments(chance.integers(0, days, len(ids)), chance.choice(HOURS, len(ids))),
            "is_active": (chance.random(len(ids)) < 0.97).astype(int),
            "is_template": 0,
        },
    )
    yield from _numbered(
        "civicrm_participant",
        participants,
        lambda ids: {
            # Some people come often, most come once or twice.
            "contact_id": (contacts * chance.random(len(ids)) ** 1.5).astype(int) + 1,
            "event_id": chance.integers(0, events, len(ids)) + 1,
            "status_id": chance.choice(len(STATUS_COUNTED), len(ids), p=STATUS_SHARES) + 1,
            "role_id": "1",
            "is_test": (chance.random(len(ids)) < 0.01).astype(int),
        },
    )
    yield from _instructors(chance, users, events)
    first, last = (int(edge.astype("datetime64[s]").astype(int)) for edge in (FIRST, LAST))
    yield from _numbered(
        "webform_submission",
        submissions,
        lambda ids: {
            "webform_id": np.where(chance.random(len(ids)) < 0.9, "webform_1181", "webform_7"),
            "uuid": [f"{number:032x}" for number in ids],
            "langcode": "en",
            "created": chance.integers(first, last, len(ids)),
            "in_draft": (chance.random(len(ids)) < 0.04).astype(int),
        },
        key="sid",
    )
    for low in range(0, submissions, CHUNK):
        sids = np.arange(low, min(low + CHUNK, submissions)) + 1
        yield (
            "webform_submission_data",
            pd.DataFrame(
                {
                    "webform_id": "webform_1181",
                    "sid": np.repeat(sids, 3),
                    # In the order of the primary key, which is best for bulk loads.
                    "name": np.tile([NPS_FIELD, "overall_how_satisfied_were_you", "what_did_you_attend"], len(sids)),
                    "value": np.column_stack(
                        [
                            chance.choice(SCORES, len(sids), p=SCORE_SHARES),
                            chance.choice(SCORES, len(sids), p=SCORE_SHARES),
                            chance.choice(TYPES, len(sids)),
                        ]
                    ).ravel(),
                }
            ),
        )


def _small_tables() -> Iterator[tuple[str, pd.DataFrame]]:
    kinds = pd.DataFrame({"value": [str(number) for number in range(1, len(TYPES) + 1)], "label": TYPES, "weight": 0})
    yield "civicrm_option_group", pd.DataFrame({"id": [1, 2], "name": ["event_type", "gender"]})
    yield "civicrm_option_value", kinds.assign(option_group_id=1)
    yield "civicrm_option_value", kinds.assign(option_group_id=2)
    yield (
        "civicrm_participant_status_type",
        pd.DataFrame({"id": range(1, len(STATUS_COUNTED) + 1), "is_counted": STATUS_COUNTED, "weight": 0}),
    )
    months = pd.period_range("2012-01", "2026-06", freq="M")
    years = pd.period_range("2012", "2025", freq="Y")
    snapshots = pd.DataFrame(
        {
            "definition": "membership_totals",
            "snapshot_type": ["monthly"] * len(months) + ["annual"] * len(years),
            "snapshot_date": [f"{month}-01" for month in months] + [f"{year}-12-31" for year in years],
            "source": ["system"] * len(months) + ["annual"] * len(years),
        }
    )
    snapshots.insert(0, "id", range(1, len(snapshots) + 1))
    yield "ms_snapshot", snapshots
    yield (
        "ms_fact_org_snapshot",
        pd.DataFrame({"snapshot_id": range(1, len(months) + 1), "joins": [20 + n % 7 for n in range(len(months))]}),
    )


def _instructors(chance: np.random.Generator, users: int, events: int) -> Iterator[tuple[str, pd.DataFrame]]:
    yield from _numbered(
        "users_field_data",
        users,
        lambda ids: {
            "langcode": "en",
            "name": [f"user{number}" for number in ids],
            "status": (chance.random(len(ids)) < 0.9).astype(int),
            "created": 0,
            "default_langcode": 1,
        },
        key="uid",
    )
    yield from _numbered(
        "user__roles",
        users,
        lambda ids: {"revision_id": ids, "delta": 0, "roles_target_id": "instructor"},
        key="entity_id",
    )
    yield from _numbered(
        "civicrm_uf_match",
        users,
        lambda ids: {"domain_id": 1, "uf_id": ids, "uf_name": [f"user{number}" for number in ids], "contact_id": ids},
    )
    yield from _numbered(
        "civicrm_event__field_civi_event_instructor",
        events,
        lambda ids: {
            "revision_id": ids,
            "deleted": 0,
            "delta": 0,
            "field_civi_event_instructor_target_id": chance.integers(0, users, len(ids)) + 1,
        },
        key="entity_id",
    )


def _numbered(table: str, rows: int, columns: Any, *, key: str = "id") -> Iterator[tuple[str, pd.DataFrame]]:
    for low in range(0, rows, CHUNK):
        ids = np.arange(low, min(low + CHUNK, rows)) + 1
        yield table, pd.DataFrame({key: ids, **columns(ids)})


def _moments(days: Any, hours: Any) -> Any:
    moments = FIRST + days * np.timedelta64(1, "D") + hours * np.timedelta64(1, "h")
    return np.char.replace(np.datetime_as_string(moments.astype("datetime64[s]")), "T", " ")
