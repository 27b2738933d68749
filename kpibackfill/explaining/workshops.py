"""Attendees and first-timers: how they are computed, and their alternative definitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from kpibackfill.database import expressions
from kpibackfill.database.expressions import Span, counted, flag, one_spelling, start, windowed
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.explaining.alternatives import DECEMBER, UNTIL, Alternatives, Rule, by_months, compares, grid, until
from kpibackfill.explaining.parts import Explained, Parts, explains
from kpibackfill.explaining.registrations import (
    EventTypes,
    Group,
    by_window,
    counts,
    numbers,
    registered,
    registrations,
    text_of,
    total,
)
from kpibackfill.explaining.windows import month_name, month_windows, months_of
from kpibackfill.kpis.registry import SiteAt, Window
from kpibackfill.kpis.workshops import finished
from kpibackfill.tables import event, option_value, participant
from kpibackfill.text import count

MOST_TYPES = 8
"""Other event types named one by one."""


@explains("workshop_attendees")
def attendees(connection: RecordedConnection, site: SiteAt, window: Window) -> Explained:
    """Of all registrations for events in the period: those in finished months, of the right type, that count."""
    months = month_windows(months_of(window))
    done = {span[0] for span in finished(site, months)}
    types = EventTypes(connection, site)
    ticketed = types.ticketed
    groups = registrations(connection, months)
    in_time = [group for group in groups if group.window_id in done]
    of_type = [group for group in in_time if group.event_type_id in ticketed]
    counting = [group for group in of_type if group.counted]
    left_out = {"current month and later": total(groups) - total(in_time)} if len(done) < len(months) else {}
    left_out |= _other_types([group for group in in_time if group.event_type_id not in ticketed], types)
    left_out["not counted, by status"] = total(of_type) - total(counting)
    by_month = by_window(counting)
    by_type = dict.fromkeys(map(types.name, sorted(ticketed)), 0)
    by_type |= numbers(counting, lambda group: types.name(group.event_type_id))
    return Explained(
        [
            Parts("month", {month_name(number): by_month[number] for number in sorted(done)}),
            Parts("event type", by_type),
            Parts("registration", {"ordinary": 0} | numbers(counting, _kind)),
        ],
        left_out,
        considered=total(groups),
        what="registrations for events in the period",
        population="registrations that count, for events of any type",
    )


def _other_types(groups: list[Group], types: EventTypes) -> dict[str, int]:
    """Registrations of other types, by type; the smallest types together."""
    by_type = numbers(groups, lambda group: types.name(group.event_type_id))
    named = by_type.most_common(MOST_TYPES if len(by_type) > MOST_TYPES + 1 else None)
    found = {f"event type: {name}": number for name, number in named}
    if rest := by_type.total() - sum(found.values()):
        found[f"event type: {count(len(by_type) - len(named), 'other')}"] = rest
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
        registered(
            events,
            participant.c.contact_id,
            sa.func.max(counts()).label("counts"),
            sa.func.min(first.c.start, type_=start().type).label("start"),
        )
        .outerjoin(first, first.c.contact_id == participant.c.contact_id)
        .group_by(participant.c.contact_id)
        .subquery("person")
    )
    earlier = (person.c.counts == 1) & (person.c.start < sa.literal(span[1], start().type))
    numbers_of = (sa.func.count(sa.case((condition, 1))) for condition in (person.c.counts == 0, earlier))
    people, uncounted, before = connection.execute(sa.select(sa.func.count(), *numbers_of).select_from(person))[0]
    return int(people), int(uncounted), int(before)


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
    options = expressions.event_options(expressions.has_word(option_value.c.label, site.settings.workshop_word))
    types = sa.select(event.c.event_type_id).distinct().subquery()
    labels = (
        sa.select(types.c.event_type_id, options.c.label)
        .join_from(types, options, expressions.is_option(types.c.event_type_id, options))
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
        .select_from(inside)
        .outerjoin(workshops, (workshops.c.contact_id == inside.c.contact_id) & (workshops.c.start == inside.c.start))
        .distinct()
        .subquery("began")
    )


def _summed(by_month: Mapping[int, int]) -> Rule:
    return lambda months: float(sum(by_month.get(month, 0) for month in months))


@compares("workshop_attendees", own="ticketed")
def other_attendees(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> Alternatives:
    """Other events, other registrations, people instead, or other months."""
    types = EventTypes(connection, site)
    ticketed, workshops = types.ticketed, types.workshops
    months = grid(windows)
    done = {span[0] for span in finished(site, months)}
    groups = registrations(connection, [month for month in months if month.window_id in done])
    people = _people_by_window(connection, site, windows, types)

    def number(of_types: set[int] | None, *, every_status: bool = False, regular: bool = False) -> Rule:
        wanted = [group for group in groups if of_types is None or group.event_type_id in of_types]
        wanted = [group for group in wanted if every_status or group.counted]
        wanted = [group for group in wanted if not regular or (group.active and not group.test)]
        return _summed(by_window(wanted))

    own, every = number(ticketed), number(workshops)
    rules = {
        "all workshops": every,
        "events of every type": number(None),
        "without tests and inactive events": number(ticketed, regular=True),
        "all workshops, without tests and inactive events": number(workshops, regular=True),
        "every status": number(ticketed, every_status=True),
        "all workshops, every status": number(workshops, every_status=True),
    }
    return {
        **{words: by_months(windows, rule) for words, rule in rules.items()},
        "people, not registrations": {window.window_id: people[window.window_id][0] for window in windows},
        "all workshops, people": {window.window_id: people[window.window_id][1] for window in windows},
        DECEMBER: by_months(windows, own, -1),
        f"all workshops, {DECEMBER}": by_months(windows, every, -1),
        UNTIL: until(windows, own),
    }


def _people_by_window(
    connection: RecordedConnection, site: SiteAt, windows: Sequence[Window], types: EventTypes
) -> dict[int, tuple[int, int]]:
    """The different people with a counted registration for a ticketed workshop, and for any workshop."""
    found = {window.window_id: (0, 0) for window in windows}
    spans = finished(site, windows)
    if not spans:
        return found
    events = windowed([event.c.id, event.c.event_type_id], start(), spans)
    ticketed, workshops = (events.c.event_type_id.in_(ids) for ids in (types.ticketed, types.workshops))
    rows = connection.execute(
        sa.select(
            events.c.window_id,
            sa.func.count(sa.case((ticketed, participant.c.contact_id)).distinct()),
            sa.func.count(sa.case((workshops, participant.c.contact_id)).distinct()),
        )
        .join_from(participant, events, events.c.id == participant.c.event_id)
        .where(counted())
        .group_by(events.c.window_id)
    )
    return found | {window_id: (int(of_ticketed), int(of_workshops)) for window_id, of_ticketed, of_workshops in rows}


@compares("total_first_time_workshop_participants", own="first registration for a workshop, once per kind")
def other_first_timers(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> Alternatives:
    """Other first registrations, or other months."""
    rules = {words: _summed(by_month) for words, by_month in _firsts(connection, site, grid(windows)).items()}
    each_once = rules["came first to a workshop, each person once"]
    return {
        **{words: by_months(windows, rule) for words, rule in rules.items()},
        f"each person once, {DECEMBER}": by_months(windows, each_once, -1),
        f"each person once, {UNTIL}": until(windows, each_once),
    }


def _firsts(connection: RecordedConnection, site: SiteAt, months: Sequence[Window]) -> dict[str, dict[int, int]]:
    """By definition and month, the people whose first registration of some kind is in that month.

    One statement reads when each person first came in each of these ways.
    """
    types, spans = EventTypes(connection, site), finished(site, months)
    active = flag(event.c.is_active) == 1
    every = (
        registered(
            event,
            participant.c.contact_id,
            one_spelling(start()).label("start"),
            counts().label("counts"),
            sa.case(((counts() == 1) & (flag(participant.c.is_test) == 0) & active, 1), else_=0).label("regular"),
            sa.case((event.c.event_type_id.in_(types.workshops), 1), else_=0).label("workshop"),
            sa.case((event.c.event_type_id.in_(types.ticketed), 1), else_=0).label("ticketed"),
        )
        .where(event.c.start_date.is_not(None))
        .subquery("every")
    )
    kinds: dict[str, tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]] = {
        "came first to a workshop, each person once": (every.c.counts == 1, every.c.workshop == 1),
        "came first to a ticketed workshop": (every.c.counts == 1, every.c.ticketed == 1),
        "first time at any event": (every.c.counts == 1, sa.true()),
        "first workshop, whatever came before": ((every.c.counts == 1) & (every.c.workshop == 1), sa.true()),
        "first ticketed workshop, whatever came before": ((every.c.counts == 1) & (every.c.ticketed == 1), sa.true()),
        "first registration of every status, a workshop": (sa.true(), every.c.workshop == 1),
        "without tests and inactive events": (every.c.regular == 1, every.c.workshop == 1),
    }
    found: dict[str, dict[int, int]] = {words: {} for words in kinds}
    if not spans:
        return found
    # When each person first came, and when first for that type: they began with it if both are the same moment.
    moments = []
    for number, (came_by, begins) in enumerate(kinds.values()):
        came, began = (_first(condition, every.c.start) for condition in (came_by, came_by & begins))
        moments.append(sa.case((came == began, came)).label(f"moment_{number}"))
    people = sa.select(every.c.contact_id, *moments).group_by(every.c.contact_id).cte("people")
    contact_id, *firsts = people.c
    selects = []
    for words, moment in zip(kinds, firsts, strict=True):
        inside = windowed([contact_id], moment, spans)
        columns = (sa.literal(words, sa.String(60)).label("words"), inside.c.window_id, sa.func.count())
        selects.append(sa.select(*columns).group_by(inside.c.window_id))
    for words, month, number in connection.execute(sa.union_all(*selects)):
        found[words][month] = int(number)
    return found


def _first(condition: sa.ColumnElement[bool], moment: sa.ColumnElement[datetime]) -> sa.ColumnElement[datetime]:
    return sa.func.min(sa.case((condition, moment)), type_=start().type)
