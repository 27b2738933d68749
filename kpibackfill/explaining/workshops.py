"""How attendees and first-timers come about."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa

from kpibackfill.database.expressions import (
    Span,
    counted,
    event_options,
    has_word,
    is_option,
    one_spelling,
    start,
    windowed,
)
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.explaining.parts import Explained, Parts, explains
from kpibackfill.explaining.registrations import EventTypes, Group, counts, registrations, text_of, total
from kpibackfill.explaining.windows import month_name, month_windows, months_of
from kpibackfill.kpis.registry import SiteAt, Window
from kpibackfill.kpis.workshops import finished
from kpibackfill.tables import event, option_value, participant, participant_status
from kpibackfill.text import count

MOST_TYPES = 8
"""Other event types named one by one."""


@explains("workshop_attendees")
def attendees(connection: RecordedConnection, site: SiteAt, window: Window) -> Explained:
    """Of all registrations for events in the period: those in finished months, of the right type, that count."""
    months = month_windows(months_of(window))
    done = {span[0] for span in finished(site, months)}
    types = EventTypes(connection, site)
    ticketed = set(types.ticketed())
    groups = registrations(connection, months)
    in_time = [group for group in groups if group.window_id in done]
    of_type = [group for group in in_time if group.event_type_id in ticketed]
    counting = [group for group in of_type if group.counted]
    left_out = {"current month and later": total(groups) - total(in_time)} if len(done) < len(months) else {}
    left_out |= _other_types([group for group in in_time if group.event_type_id not in ticketed], types)
    left_out["not counted, by status"] = total(of_type) - total(counting)
    by_month = Counter[int]()
    by_type = Counter({types.name(type_id): 0 for type_id in sorted(ticketed)})
    by_kind = Counter({"ordinary": 0})
    for group in counting:
        by_month[group.window_id] += group.number
        by_type[types.name(group.event_type_id)] += group.number
        by_kind[_kind(group)] += group.number
    return Explained(
        [
            Parts("month", {month_name(number): by_month[number] for number in sorted(done)}),
            Parts("event type", by_type),
            Parts("registration", by_kind),
        ],
        left_out,
        considered=total(groups),
        what="registrations for events in the period",
        population="registrations that count, for events of any type",
    )


def _other_types(groups: list[Group], types: EventTypes) -> dict[str, int]:
    """Registrations of other types, by type; the smallest types together."""
    numbers = Counter[str]()
    for group in groups:
        numbers[types.name(group.event_type_id)] += group.number
    named = numbers.most_common(MOST_TYPES if len(numbers) > MOST_TYPES + 1 else None)
    found = {f"event type: {name}": number for name, number in named}
    if rest := numbers.total() - sum(found.values()):
        found[f"event type: {count(len(numbers) - len(named), 'other')}"] = rest
    return found


def _kind(group: Group) -> str:
    if group.test:
        return "test, for an inactive event" if not group.active else "test"
    return "ordinary" if group.active else "for an inactive event"


@explains("total_first_time_workshop_participants")
def first_timers(connection: RecordedConnection, site: SiteAt, window: Window) -> Explained:
    """Of all people registered in the period: those who had not come before and began with a workshop."""
    spans, months = finished(site, [window]), finished(site, month_windows(months_of(window)))
    if not spans:
        return Explained()
    considered, uncounted, before = _registered(connection, spans[0])
    first = _first_registration()
    began = _began(first, site, months)
    by_month, by_label, elsewhere = Counter[int](), Counter[str](), 0
    for month, label, number in connection.execute(
        sa.select(began.c.window_id, began.c.label, sa.func.count()).group_by(began.c.window_id, began.c.label)
    ):
        if label is None:
            elsewhere += number
            continue
        by_month[month] += number
        by_label[text_of(label)] += number
    with_workshop = sa.select(sa.func.count(began.c.contact_id.distinct())).where(began.c.label.is_not(None))
    people = int(connection.execute(with_workshop)[0][0])
    again = by_label.total() - people
    return Explained(
        [
            Parts("month", {month_name(span[0]): by_month[span[0]] for span in months}),
            Parts("event type", dict(by_label.most_common())),
        ],
        {
            "no registration with a status that counts": uncounted,
            "had come before": before,
            "began with something other than a workshop": elsewhere,
        },
        {"began with several kinds of workshop at once, counted for each": again} if again else {},
        considered=considered,
        what="people registered for events in the period",
        population="people who came for the first time",
    )


def _registered(connection: RecordedConnection, span: Span) -> tuple[int, int, int]:
    """The people registered in the span, those of them without a counted registration in it, and those with an earlier
    one."""
    first = _first_registration()
    events = windowed([event.c.id], start(), [span])
    person = (
        sa.select(
            participant.c.contact_id,
            sa.func.max(counts()).label("counts"),
            sa.func.min(first.c.start, type_=start().type).label("start"),
        )
        .join_from(participant, events, events.c.id == participant.c.event_id)
        .outerjoin(participant_status, participant_status.c.id == participant.c.status_id)
        .outerjoin(first, first.c.contact_id == participant.c.contact_id)
        .group_by(participant.c.contact_id)
        .subquery("person")
    )
    earlier = (person.c.counts == 1) & (person.c.start < sa.literal(span[1], start().type))
    row = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.sum(sa.case((person.c.counts == 0, 1), else_=0)),
            sa.func.sum(sa.case((earlier, 1), else_=0)),
        ).select_from(person)
    )[0]
    return int(row[0]), int(row[1] or 0), int(row[2] or 0)


def _first_registration() -> sa.Subquery:
    """The time of each person's very first counted registration: ``contact_id``, ``start``."""
    return (
        sa.select(participant.c.contact_id, sa.func.min(one_spelling(start()), type_=start().type).label("start"))
        .join_from(participant, event, event.c.id == participant.c.event_id)
        .where(counted(), event.c.start_date.is_not(None))
        .group_by(participant.c.contact_id)
        .subquery("first")
    )


def _began(first: sa.Subquery, site: SiteAt, months: list[Span]) -> sa.Subquery:
    """The people whose first registration was in one of the months, once for each kind of workshop they began with, or
    once without a label: ``window_id, contact_id, label``."""
    options = event_options(has_word(option_value.c.label, site.settings.workshop_word))
    types = sa.select(event.c.event_type_id).distinct().subquery()
    labels = (
        sa.select(types.c.event_type_id, options.c.label)
        .join_from(types, options, is_option(types.c.event_type_id, options))
        .subquery("labels")
    )
    workshops = (
        sa.select(participant.c.contact_id, one_spelling(start()).label("start"), labels.c.label)
        .join_from(participant, event, event.c.id == participant.c.event_id)
        .join(labels, labels.c.event_type_id == event.c.event_type_id)
        .where(counted())
        .subquery("workshops")
    )
    inside = windowed([first.c.contact_id, first.c.start], first.c.start, months)
    return (
        sa.select(inside.c.window_id, inside.c.contact_id, workshops.c.label)
        .join_from(
            inside,
            workshops,
            (workshops.c.contact_id == inside.c.contact_id) & (workshops.c.start == inside.c.start),
            isouter=True,
        )
        .distinct()
        .subquery("began")
    )
