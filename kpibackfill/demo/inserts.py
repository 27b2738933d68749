"""The invented makerspace as rows of the demo's tables: INSERT statements and their parameters."""

from __future__ import annotations

import datetime as dt
from calendar import timegm
from collections.abc import Iterable, Iterator
from typing import Any

from kpibackfill.demo import people
from kpibackfill.demo.people import LABELS, STATUSES, Evaluation, Makerspace
from kpibackfill.demo.stored import KpiRow, Snapshot

Insert = tuple[str, Iterable[tuple[Any, ...]]]

USER_OFFSET = 100  # uid = contact id + this
GROUPS = {2: "activity_type", 3: "gender", 13: "participant_role", 15: "event_type"}
# These groups use the same values as the event types, for something else.
OTHER_OPTIONS = (
    (2, "Meeting", "1"),
    (2, "Workshop call", "2"),
    (2, "Email", "3"),
    (3, "Female", "1"),
    (3, "Male", "2"),
    (3, "Non-binary", "3"),
    (13, "Attendee", "1"),
    (13, "Volunteer", "2"),
    (13, "Workshop host", "3"),
    (13, "Speaker", "4"),
)
CACHE_TAGS = (
    ("config:core.extension", 3),
    ("makerspace_snapshot:kpi", 12),
    ("makerspace_snapshot:kpi:workshop_attendees", 7),
    ("node_list", 451),
)


def source_inserts(space: Makerspace) -> Iterator[Insert]:
    """The tables of CiviCRM and Drupal."""
    yield (
        "INSERT INTO civicrm_option_group (id, name, title) VALUES (?, ?, ?)",
        [(number, name, name.replace("_", " ").title()) for number, name in GROUPS.items()],
    )
    options = [*OTHER_OPTIONS, *((15, label, str(kind)) for kind, label in LABELS.items())]
    yield (
        "INSERT INTO civicrm_option_value (id, option_group_id, label, value, name, weight, is_active)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (n, group, label, value, label.lower().replace(" ", "_"), n, int(label != LABELS[people.RETIRED]))
            for n, (group, label, value) in enumerate(options, 1)
        ],
    )
    yield (
        "INSERT INTO civicrm_participant_status_type (id, name, label, class, is_counted, weight)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [(n, name, name, kind, counted, n) for n, (name, kind, counted) in enumerate(STATUSES, 1)],
    )
    yield (
        "INSERT INTO civicrm_contact (id, contact_type, display_name, is_deleted) VALUES (?, 'Individual', ?, ?)",
        [(row.id, f"Person {row.id:05}", row.is_deleted) for row in space.contacts],
    )
    yield (
        "INSERT INTO civicrm_value_demographics_15 (entity_id, custom_46) VALUES (?, ?)",
        [(row.id, row.ethnicity) for row in space.contacts if row.asked],
    )
    yield (
        "INSERT INTO civicrm_event (id, title, event_type_id, start_date, end_date, max_participants, is_active)"
        " VALUES (?, ?, ?, ?, ?, 12, ?)",
        [
            (row.id, row.title, row.kind, str(row.start), str(row.start + dt.timedelta(hours=2)), row.is_active)
            for row in space.events
        ],
    )
    yield (
        "INSERT INTO civicrm_event (title, event_type_id, is_template) VALUES (?, ?, 1)",
        [(f"Template: {title}", people.TICKETED) for title in people.TOPICS],
    )
    yield (
        "INSERT INTO civicrm_participant (id, contact_id, event_id, status_id, role_id, is_test)"
        " VALUES (?, ?, ?, ?, '1', ?)",
        [(row.id, row.contact, row.event.id, row.status, row.is_test) for row in space.registrations],
    )
    yield from _users(space)
    yield from _evaluations(space.evaluations)
    yield "INSERT INTO cachetags (tag, invalidations) VALUES (?, ?)", CACHE_TAGS


def _users(space: Makerspace) -> Iterator[Insert]:
    staff = [(contact + USER_OFFSET, contact) for contact in people.STAFF]
    yield (
        "INSERT INTO users_field_data (uid, langcode, name, mail, status, created, default_langcode)"
        " VALUES (?, 'en', ?, ?, ?, 1388534400, 1)",
        [(uid, f"user{uid}", f"user{uid}@example.org", int(c not in people.BLOCKED)) for uid, c in staff],
    )
    yield (
        "INSERT INTO user__roles (bundle, entity_id, revision_id, langcode, delta, roles_target_id)"
        " VALUES ('user', ?, ?, 'en', ?, ?)",
        [
            (uid, uid, delta, role)
            for uid, contact in staff
            for delta, role in enumerate(["member"] if contact in people.FORMER else ["member", "instructor"])
        ],
    )
    yield (
        "INSERT INTO civicrm_uf_match (domain_id, uf_id, uf_name, contact_id) VALUES (1, ?, ?, ?)",
        [(uid, f"user{uid}@example.org", contact) for uid, contact in staff],
    )
    yield (
        "INSERT INTO civicrm_event__field_civi_event_instructor"
        " (bundle, deleted, entity_id, revision_id, langcode, delta, field_civi_event_instructor_target_id)"
        " VALUES ('civicrm_event', ?, ?, ?, 'und', ?, ?)",
        [(row.deleted, row.event.id, row.event.id, row.delta, row.contact + USER_OFFSET) for row in space.teaching],
    )


def _evaluations(rows: list[Evaluation]) -> Iterator[Insert]:
    created = {row.id: timegm(row.created.timetuple()) for row in rows}
    yield (
        "INSERT INTO webform_submission"
        " (sid, webform_id, uuid, langcode, serial, created, completed, changed, in_draft, uid)"
        " VALUES (?, ?, ?, 'en', ?, ?, ?, ?, ?, 0)",
        [
            (
                row.id,
                row.form,
                f"{row.id:08x}-0000-4000-8000-{row.id:012x}",
                row.id,
                created[row.id],
                None if row.in_draft else created[row.id] + 60,
                created[row.id] + 60,
                row.in_draft,
            )
            for row in rows
        ],
    )
    yield (
        "INSERT INTO webform_submission_data (webform_id, sid, name, value)"
        " VALUES (?, ?, 'how_likely_are_you_to_recommend_this_event_to_others', ?)",
        [(row.form, row.id, row.answer) for row in rows],
    )
    yield (
        "INSERT INTO webform_submission_data (webform_id, sid, name, value)"
        " VALUES (?, ?, 'overall_how_satisfied_were_you_with_the_event', ?)",
        [(row.form, row.id, str(3 + row.id % 3)) for row in rows],
    )


def store_inserts(snapshots: list[Snapshot], kpi_rows: list[KpiRow]) -> Iterator[Insert]:
    """The tables of the snapshot module; a snapshot is created when its period is over."""
    yield (
        "INSERT INTO ms_snapshot (id, definition, snapshot_type, snapshot_date, source, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [
            (row.id, row.definition, row.type, str(row.date), row.source, timegm(made.timetuple()) + 90_000)
            for row in snapshots
            for made in [row.date + dt.timedelta(days=31 if row.type == "monthly" else 0)]
        ],
    )
    yield (
        "INSERT INTO ms_fact_org_snapshot"
        " (snapshot_id, members_total, members_active, members_paused, members_lapsed, joins, cancels, net_change)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (row.id, f.active + f.paused, f.active, f.paused, f.lapsed, f.joins, f.cancels, f.joins - f.cancels)
            for row in snapshots
            if (f := row.facts)
        ],
    )
    yield (
        "INSERT INTO ms_fact_kpi_snapshot (snapshot_id, kpi_id, metric_value, period_year, period_month, meta)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        kpi_rows,
    )
