"""Random makerspaces full of the oddities of real ones: the numbers equal those of counting row by row."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from kpibackfill.kpis.registry import Window
from tests.kpis.makerspace import Makerspace, months, year
from tests.kpis.oracle import FIELD, ORACLE

LABELS = [
    "Ticketed Workshop",
    "Ticketed Workshop ",
    "ticketed workshop",
    "Ticketed\tWorkshop",
    "Tícketed Workshop",
    "Private WORKSHOP",
    "wor\x01kshop",
    "Wor\u212ashop",
    "workshop",
    "Workshop %_\\",
    "Program",
    "PROGRAM",
    "program ",
    "Program\x01",
    "Prógram",
    "Tour",
    "",
    None,
]
TYPE_VALUES = ["1", "2", "3", "03", "3 ", " 3", "3.0", "+3", "３", "4", "x", ""]
ANSWERS: list[str | None] = [
    None, "", " ", "\x01", "\x01\x01", "white", "White", "WHITE ", "\x01white\x01", "\x01white\x01black\x01", "asian",
    "asian;white", "white;asian", "as\x01ian", "decline", "\x01decline\x01black\x01", "Prefer not to say", "unknown?",
    "N/A", "n/a|white", "not_specified", "Non-white", "caucasian", "MÉTIS", "Métis", "\u00a0", "white\u00a0", "whıte",
    "\v\tblack\r\n", "a,b|c\x02d", "0", "other", ";", "white;", "prefer_not_to_disclose", "K\u212a",
]  # fmt: skip
SCORES = [
    "5", "4", "3", "0", "-2", "10", "", " ", "5 ", " 5", "\t4\n", "5\u00a0", "５", "5 - Very likely", "4/5", "3,5",
    "1e1", "1E-1", "5e", "e5", ".", "-", ".5", "5.", "4.9999999999999999999", "3.999999999999999999", "1e400", "-1e400",
    "9" * 30, "9" * 400, "0x5", "5\f", "5\v", "--5", "5-", "1.5.2", "five", "４4", "+ 5", "+5", "\r5", "4\x01",
]  # fmt: skip
EDGES = ["01-01 00:00:00", "12-31 23:59:59", "03-31 23:59:59", "04-01 00:00:00", "06-15 18:00:00", "06-15 18:00:01"]
WINDOWS = [
    *(year(number) for number in (2023, 2024, 2026)),
    *(months(2024, first, 3, 300 + first, "quarterly") for first in (1, 4, 7, 10)),
    *(months(2024, first, 1, 400 + first, "monthly") for first in (1, 3, 4, 12)),
    *(months(2026, first, 1, 500 + first, "monthly") for first in (5, 6, 7)),
    Window(600, datetime(2023, 6, 15, 18), datetime(2024, 6, 15, 18)),
]


def random_makerspace(chance: random.Random, *, nul: bool) -> dict[str, list[dict[str, Any]]]:
    pick = chance.choice
    nuls = ["\0white", "white\0asian", "white;\0"] if nul else []

    def maybe(probability: float) -> int:
        return int(chance.random() < probability)

    def moment() -> str:
        return f"{pick([2022, 2023, 2023, 2024, 2024, 2024, 2025, 2026])}-{pick(EDGES)}"

    def timestamp() -> int:
        edge = datetime.fromisoformat(moment()).replace(tzinfo=UTC)
        return int(edge.timestamp()) + pick([0, 0, 1, -1, 4 * 3600, 5 * 3600, 5 * 3600 - 1])

    contacts, events, users, sids = range(1, 13), range(1, 16), range(2, 9), range(1, 30)
    dates = sorted(
        {(date, pick("abc")) for date in (f"{pick([2023, 2024])}-{m:02}-{pick([1, 28])}" for m in range(1, 13))}
    )
    dates = [(f"{date[:8]}{int(date[8:]):02}", source) for date, source in dates for _ in range(1)]
    dates += [(date, "zz") for date, _ in dates if maybe(0.2)]
    dates += [(date, "odd") for date in ("2024-1-5", "2024-0x", "2023-1-31", "2024-5-5") if maybe(0.3)]
    snapshots = [
        {
            "id": number,
            "definition": pick(
                ["membership_totals"] * 5 + ["Membership_TOTALS", "membership_types", "membership_totals "]
            ),
            "snapshot_type": pick(["monthly"] * 5 + ["Monthly", "daily", "mónthly"]),
            "snapshot_date": date,
            "source": f"{source}{number}",
        }
        for number, (date, source) in enumerate(dates, 1)
    ]
    return {
        "ms_snapshot": snapshots,
        "ms_fact_org_snapshot": [
            {"snapshot_id": row["id"], "joins": chance.randint(-2, 40)} for row in snapshots if maybe(0.9)
        ],
        "civicrm_option_group": [{"id": 15, "name": "event_type"}, {"id": 16, "name": "gender"}],
        "civicrm_option_value": [
            {"id": number, "option_group_id": pick([15, 15, 15, 16]), "label": pick(LABELS), "value": pick(TYPE_VALUES)}
            for number in range(1, 16)
        ],
        "civicrm_participant_status_type": [
            {"id": number, "is_counted": counted} for number, counted in enumerate([1, 1, 1, 0, None, 2], 1)
        ],
        "civicrm_contact": [
            {"id": number, "display_name": pick(["A", "a", "B", None]), "is_deleted": maybe(0.15)}
            for number in contacts
        ],
        "civicrm_value_demographics_15": [
            {"entity_id": number, "custom_46": pick([*ANSWERS, *nuls])} for number in contacts if maybe(0.85)
        ],
        "civicrm_event": [
            {
                "id": number,
                "event_type_id": pick([1, 2, 3, 3, 4, 9, None]),
                "start_date": moment() if maybe(0.95) else None,
                "is_active": pick([1, 1, 1, 0, None]),
            }
            for number in events
        ],
        "civicrm_participant": [
            {
                "id": number,
                "contact_id": pick([*contacts, 99]),
                "event_id": pick([*events, 99]),
                "status_id": pick([1, 1, 2, 3, 4, 5, 6, 99]),
                "is_test": maybe(0.15),
            }
            for number in range(1, 60)
        ],
        "users_field_data": [
            {"uid": uid, "langcode": language, "name": f"{pick('xX')}{uid}{language}", "status": pick([1, 1, 1, 0])}
            for uid in users
            for language in ("en", "es")[: 1 + maybe(0.2)]
        ],
        "user__roles": [
            {"entity_id": uid, "delta": delta, "roles_target_id": role, "deleted": maybe(0.3)}
            for uid in users
            for delta, role in enumerate(["instructor", "member", "instructor", "Instructor"])
            if maybe(0.4)
        ],
        "civicrm_uf_match": [
            {"domain_id": domain, "uf_id": pick(users), "uf_name": f"u{contact}", "contact_id": contact}
            for contact in contacts
            for domain in (1, 2)
            if maybe(0.6)
        ],
        "civicrm_event__field_civi_event_instructor": [
            {
                "entity_id": event,
                "delta": delta,
                "deleted": maybe(0.2),
                "field_civi_event_instructor_target_id": pick([*users, 0]),
            }
            for event in events
            for delta in range(2)
            if maybe(0.8)
        ],
        "webform_submission": [
            {
                "sid": sid,
                "webform_id": pick(["webform_1181"] * 5 + ["webform_118", "Webform_1181"]),
                "created": timestamp() if maybe(0.95) else None,
                "in_draft": pick([0, 0, 0, 0, 1, None]),
            }
            for sid in sids
        ],
        "webform_submission_data": [
            {"sid": sid, "name": name, "property": "", "delta": delta, "value": pick(SCORES + nuls)}
            for sid in [*sids, 99]
            for delta, name in enumerate([FIELD, FIELD, "other"])
            if maybe(0.7)
        ],
    }


@pytest.mark.parametrize("seed", range(8))
def test_a_random_makerspace_yields_what_counting_row_by_row_yields(makerspace: Makerspace, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(5):
        tables = random_makerspace(chance, nul=makerspace.database.name != "postgresql")
        zone = chance.choice(["UTC", "America/New_York", "Pacific/Auckland"])
        as_of = datetime(2026, 6, 30, 23, tzinfo=UTC) + chance.choice([timedelta(0), timedelta(hours=3)])
        makerspace.fill(tables)
        for kpi_id, expected in ORACLE.items():
            for window, value in zip(
                WINDOWS, makerspace.compute(kpi_id, *WINDOWS, zone=zone, as_of=as_of), strict=True
            ):
                found = (value.value, value.basis, value.population)
                assert found == expected(tables, window, ZoneInfo(zone), as_of), (kpi_id, window)
