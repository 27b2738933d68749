"""The yardsticks: for each KPI the plain query over all windows that one would write first, and a bare scan and join.

They return only the KPIs' raw counts: no comparison of bytes, no evidence, no warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from kpibackfill.database.expressions import LocalTime
from kpibackfill.kpis.registry import SiteAt, Window
from kpibackfill.tables import (
    contact,
    demographics,
    event,
    event_instructor,
    option_group,
    option_value,
    org_fact,
    participant,
    participant_status,
    snapshot,
    submission,
    submission_data,
    uf_match,
    user,
    user_role,
)


def bare() -> sa.Select[tuple[int]]:
    """Registrations that have an event."""
    return sa.select(sa.func.count()).join_from(participant, event, event.c.id == participant.c.event_id)


def plain_queries(site: SiteAt, windows: Sequence[Window]) -> dict[str, sa.Select[tuple[int, ...]]]:
    """A query for each KPI, by its id."""
    years = _years(windows, lambda moment: moment, LocalTime())
    dates = _years(windows, lambda moment: f"{moment:%Y-%m-%d}", sa.String())
    unix = _years(windows, site.unix, sa.BigInteger())
    start = sa.type_coerce(event.c.start_date, LocalTime())
    held = sa.join(years, event, start.between(years.c.first, years.c.last))
    typed = held.join(option_value, sa.cast(option_value.c.value, sa.Integer) == event.c.event_type_id).join(
        option_group, (option_group.c.id == option_value.c.option_group_id) & (option_group.c.name == "event_type")
    )
    registered = typed.join(participant, participant.c.event_id == event.c.id).join(
        participant_status,
        (participant_status.c.id == participant.c.status_id) & (participant_status.c.is_counted == 1),
    )
    is_workshop = sa.func.lower(option_value.c.label).like("%workshop%")
    answers = demographics(site.settings.demographics_table, "custom_46")
    answer = sa.func.coalesce(answers.c.custom_46, "").label("answer")
    first = (
        sa.select(participant.c.contact_id, sa.func.min(event.c.start_date).label("start"))
        .join_from(participant, event, event.c.id == participant.c.event_id)
        .join(participant_status, participant_status.c.id == participant.c.status_id)
        .where(participant_status.c.is_counted == 1)
        .group_by(participant.c.contact_id)
        .subquery()
    )
    beginners = registered.join(
        first, (first.c.contact_id == participant.c.contact_id) & (first.c.start == event.c.start_date)
    )
    attending = registered.join(contact, contact.c.id == participant.c.contact_id)
    teaching = (
        typed.join(event_instructor, event_instructor.c.entity_id == event.c.id)
        .join(user, user.c.uid == event_instructor.c.field_civi_event_instructor_target_id)
        .join(user_role, user_role.c.entity_id == user.c.uid)
        .join(uf_match, uf_match.c.uf_id == user.c.uid)
        .join(contact, contact.c.id == uf_match.c.contact_id)
    )
    answering = answers.c.entity_id == contact.c.id
    return {
        "total_new_member_signups": sa.select(dates.c.id, sa.func.sum(org_fact.c.joins))
        .join_from(dates, snapshot, snapshot.c.snapshot_date.between(dates.c.first, dates.c.last))
        .join(org_fact, org_fact.c.snapshot_id == snapshot.c.id)
        .where(snapshot.c.snapshot_type == "monthly")
        .group_by(dates.c.id),
        "workshop_attendees": sa.select(years.c.id, sa.func.count(participant.c.id.distinct()))
        .select_from(registered)
        .where(option_value.c.label == site.settings.attendance_label)
        .group_by(years.c.id),
        "total_first_time_workshop_participants": sa.select(
            years.c.id, option_value.c.label, sa.func.count(participant.c.contact_id.distinct())
        )
        .select_from(beginners)
        .where(is_workshop)
        .group_by(years.c.id, option_value.c.label),
        "education_nps": sa.select(unix.c.id, submission_data.c.value, sa.func.count())
        .join_from(unix, submission, submission.c.created.between(unix.c.first, unix.c.last))
        .join(submission_data, submission_data.c.sid == submission.c.sid)
        .where(
            submission.c.webform_id == site.settings.evaluation_webform,
            submission.c.in_draft == 0,
            submission_data.c.name == site.settings.recommend_field,
        )
        .group_by(unix.c.id, submission_data.c.value),
        "workshop_participants_bipoc": sa.select(years.c.id, answer, sa.func.count(contact.c.id.distinct()))
        .select_from(attending.outerjoin(answers, answering))
        .where(is_workshop, contact.c.is_deleted == 0, event.c.is_active == 1, participant.c.is_test == 0)
        .group_by(years.c.id, "answer"),
        "active_instructors_bipoc": sa.select(years.c.id, answer, sa.func.count(user.c.uid.distinct()))
        .select_from(teaching.outerjoin(answers, answering))
        .where(
            sa.func.lower(option_value.c.label).in_(["ticketed workshop", "program"]),
            user_role.c.roles_target_id == site.settings.instructor_role,
            user.c.status == 1,
            contact.c.is_deleted == 0,
        )
        .group_by(years.c.id, "answer"),
    }


def _years(
    windows: Sequence[Window], edge: Callable[[datetime], datetime | int], kind: sa.types.TypeEngine[Any]
) -> sa.Subquery:
    rows = (
        sa.select(
            sa.literal(window.window_id).label("id"),
            sa.literal(edge(window.start), kind).label("first"),
            sa.literal(edge(window.end), kind).label("last"),
        )
        for window in windows
    )
    return sa.union_all(*rows).subquery("years")
