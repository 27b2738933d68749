"""The invented makerspace as rows of the demo's tables."""

from __future__ import annotations

import datetime as dt
from calendar import timegm
from collections.abc import Sequence
from typing import Any

from kpibackfill.demo import people
from kpibackfill.demo.people import LABELS, STATUSES, Makerspace
from kpibackfill.demo.stored import KpiRow, Snapshot

Tables = dict[str, Sequence[tuple[Any, ...]]]
"""Rows by their table and its columns, in the order in which they are inserted."""

USER_OFFSET = 100  # uid = contact id + this
# By the group's id its name and labels. The other groups use the same values as the event types, for something else.
GROUPS = {
    2: ("activity_type", ("Meeting", "Workshop call", "Email")),
    3: ("gender", ("Female", "Male", "Non-binary")),
    13: ("participant_role", ("Attendee", "Volunteer", "Workshop host", "Speaker")),
    15: ("event_type", tuple(LABELS.values())),
}
RECOMMENDING = "how_likely_are_you_to_recommend_this_event_to_others"
SATISFIED = "overall_how_satisfied_were_you_with_the_event"
CACHE_TAGS = (
    ("config:core.extension", 3),
    ("makerspace_snapshot:kpi", 12),
    ("makerspace_snapshot:kpi:kpi_workshop_attendees", 7),
    ("node_list", 451),
)


def source_tables(space: Makerspace) -> Tables:
    """The tables of CiviCRM and Drupal."""
    options = [(number, at, label) for number, (_, labels) in GROUPS.items() for at, label in enumerate(labels, 1)]
    staff = [(contact + USER_OFFSET, contact) for contact in people.STAFF]
    return {
        "civicrm_option_group (id, name, title)": [
            (number, name, name.replace("_", " ").title()) for number, (name, _) in GROUPS.items()
        ],
        "civicrm_option_value (id, option_group_id, label, value, name, weight, is_active)": [
            (n, group, label, str(value), label.lower().replace(" ", "_"), n, int(label != LABELS[people.RETIRED]))
            for n, (group, value, label) in enumerate(options, 1)
        ],
        "civicrm_participant_status_type (id, name, label, class, is_counted, weight)": [
            (n, name, name, kind, counted, n) for n, (name, kind, counted) in enumerate(STATUSES, 1)
        ],
        "civicrm_contact (id, contact_type, display_name, is_deleted)": [
            (row.id, "Individual", f"Person {row.id:05}", row.is_deleted) for row in space.contacts
        ],
        "civicrm_value_demographics_15 (entity_id, custom_46)": [
            (row.id, row.ethnicity) for row in space.contacts if row.asked
        ],
        "civicrm_event (id, title, event_type_id, start_date, end_date, max_participants, is_active)": [
            (row.id, row.title, row.kind, str(row.start), str(row.start + dt.timedelta(hours=2)), 12, row.is_active)
            for row in space.events
        ],
        "civicrm_event (title, event_type_id, is_template)": [
            (f"Template: {title}", people.TICKETED, 1) for title in people.TOPICS
        ],
        "civicrm_participant (id, contact_id, event_id, status_id, role_id, is_test)": [
            (row.id, row.contact, row.event.id, row.status, "1", row.is_test) for row in space.registrations
        ],
        "users_field_data (uid, langcode, name, mail, status, created, default_langcode)": [
            (uid, "en", f"user{uid}", f"user{uid}@example.org", int(contact not in people.BLOCKED), 1388534400, 1)
            for uid, contact in staff
        ],
        "user__roles (bundle, entity_id, revision_id, langcode, delta, roles_target_id)": [
            ("user", uid, uid, "en", delta, role)
            for uid, contact in staff
            for delta, role in enumerate(["member"] if contact in people.FORMER else ["member", "instructor"])
        ],
        "civicrm_uf_match (domain_id, uf_id, uf_name, contact_id)": [
            (1, uid, f"user{uid}@example.org", contact) for uid, contact in staff
        ],
        "civicrm_event__field_civi_event_instructor"
        " (bundle, deleted, entity_id, revision_id, langcode, delta, field_civi_event_instructor_target_id)": [
            ("civicrm_event", row.deleted, row.event.id, row.event.id, "und", row.delta, row.contact + USER_OFFSET)
            for row in space.teaching
        ],
        "webform_submission (sid, webform_id, uuid, langcode, serial, created, completed, changed, in_draft, uid)": [
            (n, row.form, uuid, "en", n, made, None if row.in_draft else made + 60, made + 60, row.in_draft, 0)
            for n, row in enumerate(space.evaluations, 1)
            for uuid, made in [(f"{n:08x}-0000-4000-8000-{n:012x}", timegm(row.created.timetuple()))]
        ],
        "webform_submission_data (webform_id, sid, name, value)": [
            *((row.form, row.id, RECOMMENDING, row.answer) for row in space.evaluations),
            *((row.form, row.id, SATISFIED, str(3 + row.id % 3)) for row in space.evaluations),
        ],
        "cachetags (tag, invalidations)": CACHE_TAGS,
    }


def store_tables(snapshots: list[Snapshot], kpi_rows: list[KpiRow]) -> Tables:
    """The tables of the snapshot module; a snapshot is created when its period is over."""
    return {
        "ms_snapshot (id, definition, snapshot_type, snapshot_date, source, created_at)": [
            (row.id, row.definition, row.type, str(row.date), row.source, timegm(made.timetuple()) + 90_000)
            for row in snapshots
            for made in [row.date + dt.timedelta(days=31 if row.type == "monthly" else 0)]
        ],
        "ms_fact_org_snapshot"
        " (snapshot_id, members_total, members_active, members_paused, members_lapsed, joins, cancels, net_change)": [
            (row.id, f.active + f.paused, f.active, f.paused, f.lapsed, f.joins, f.cancels, f.joins - f.cancels)
            for row in snapshots
            if (f := row.facts)
        ],
        "ms_fact_kpi_snapshot (snapshot_id, kpi_id, metric_value, period_year, period_month, meta)": kpi_rows,
    }
