"""KPIs of who teaches. All are risky: they read today's roles and today's answers, so they drift on their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from kpibackfill.database.expressions import after, exact, flag, in_any_case, is_type, same_text, start, windowed
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.kpis.ethnicity import Answers, rates
from kpibackfill.kpis.registry import SiteAt, Value, Window, kpi
from kpibackfill.tables import contact, event, event_instructor, option_value, uf_match, user, user_role

SEPARATORS = re.compile(rb"[\0\x01\x02|,;]")


@kpi(
    "active_instructors_bipoc",
    label="Active instructors who are BIPOC",
    unit="fraction",
    family="instructors",
    description="Among today's instructors who taught in the year and reported their ethnicity, the share who are "
    "BIPOC.",
    sources=[
        "civicrm_event",
        "civicrm_event__field_civi_event_instructor",
        "civicrm_option_value",
        "civicrm_option_group",
        "users_field_data",
        "user__roles",
        "civicrm_uf_match",
        "civicrm_contact",
        "civicrm_value_demographics_15",
    ],
    risky=True,
    cadences=("annual", "quarterly", "monthly"),
)
def active_instructors_bipoc(
    connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]
) -> Iterable[Value]:
    """Based on the instructors who reported their ethnicity, out of all instructors.

    Where an account has several contacts of one name, the greatest of their answers by bytes counts.
    """
    answers = Answers(connection, site)
    if not windows or answers.missing:
        return answers.none(windows)
    spans = [(window.window_id, window.start, after(window.end)) for window in windows]
    taught = is_type(in_any_case(option_value.c.label, site.settings.instructor_labels))
    uid = event_instructor.c.field_civi_event_instructor_target_id
    teaching = windowed(
        [uid.label("uid")],
        start(),
        spans,
        flag(event_instructor.c.deleted) == 0,
        uid > 0,
        taught,
        source=sa.join(event, event_instructor, event_instructor.c.entity_id == event.c.id),
    )
    taught_in = sa.select(teaching.c.window_id, teaching.c.uid).distinct().subquery("taught_in")
    instructors = sa.select(user_role.c.entity_id).where(
        same_text(user_role.c.roles_target_id, site.settings.instructor_role)
    )
    answering = (
        sa.select(
            taught_in.c.window_id,
            user.c.uid,
            exact(user.c.name).label("name"),
            exact(contact.c.display_name).label("display_name"),
            answers.greatest(contact.c.id).label("answer"),
        )
        .join_from(taught_in, user, user.c.uid == taught_in.c.uid)
        .join(uf_match, uf_match.c.uf_id == user.c.uid)
        .join(contact, contact.c.id == uf_match.c.contact_id)
        .where(flag(user.c.status) == 1, flag(contact.c.is_deleted) == 0, user.c.uid.in_(instructors))
        .subquery("answering")
    )
    *who, answer = answering.c
    person = sa.select(answering.c.window_id, sa.func.max(answer, type_=answer.type).label("answer"))
    return rates(connection, windows, person.group_by(*who).subquery("person"), SEPARATORS)
