"""Alternative definitions of attendees and first-timers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from kpibackfill.database.expressions import counted, flag, one_spelling, start, windowed
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.explaining.alternatives import (
    DECEMBER,
    UNTIL,
    Alternatives,
    Rule,
    by_months,
    compares,
    grid,
    until,
)
from kpibackfill.explaining.registrations import EventTypes, Group, counts, registrations
from kpibackfill.kpis.registry import SiteAt, Window
from kpibackfill.kpis.workshops import finished
from kpibackfill.tables import event, participant, participant_status


@compares("workshop_attendees", own="ticketed")
def other_attendees(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> Alternatives:
    """Other events, other registrations, people instead, or other months."""
    types = EventTypes(connection, site)
    ticketed, workshops = set(types.ticketed()), set(types.workshops())
    months = grid(windows)
    done = {span[0] for span in finished(site, months)}
    groups = registrations(connection, [month for month in months if month.window_id in done])
    people = _people_by_window(connection, site, windows, types)

    def number(wanted: Callable[[Group], bool]) -> Rule:
        by_month = Counter[int]()
        for group in groups:
            by_month[group.window_id] += group.number * wanted(group)
        return lambda months: float(sum(by_month[month] for month in months))

    def is_ticketed(group: Group) -> bool:
        return group.event_type_id in ticketed

    def is_workshop(group: Group) -> bool:
        return group.event_type_id in workshops

    own = number(lambda g: is_ticketed(g) and g.counted)
    every = number(lambda g: is_workshop(g) and g.counted)
    rules = {
        "all workshops": every,
        "events of every type": number(lambda g: g.counted),
        "without tests and inactive events": number(lambda g: is_ticketed(g) and g.counted and _regular(g)),
        "all workshops, without tests and inactive events": number(
            lambda g: is_workshop(g) and g.counted and _regular(g)
        ),
        "every status": number(is_ticketed),
        "all workshops, every status": number(is_workshop),
    }
    return {
        **{words: by_months(windows, rule) for words, rule in rules.items()},
        "people, not registrations": {window.window_id: people[window.window_id][0] for window in windows},
        "all workshops, people": {window.window_id: people[window.window_id][1] for window in windows},
        DECEMBER: by_months(windows, own, -1),
        f"all workshops, {DECEMBER}": by_months(windows, every, -1),
        UNTIL: until(windows, own),
    }


def _regular(group: Group) -> bool:
    return group.active and not group.test


def _people_by_window(
    connection: RecordedConnection, site: SiteAt, windows: Sequence[Window], types: EventTypes
) -> dict[int, tuple[int, int]]:
    """The different people with a counted registration for a ticketed workshop, and for any workshop."""
    found = {window.window_id: (0, 0) for window in windows}
    spans = finished(site, windows)
    if not spans:
        return found
    events = windowed([event.c.id, event.c.event_type_id], start(), spans)
    ticketed, workshops = (events.c.event_type_id.in_(ids) for ids in (types.ticketed(), types.workshops()))
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

    def number(by_month: Mapping[int, int]) -> Rule:
        return lambda months: float(sum(by_month.get(month, 0) for month in months))

    rules = {words: number(by_month) for words, by_month in _firsts(connection, site, grid(windows)).items()}
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
        sa.select(
            participant.c.contact_id,
            one_spelling(start()).label("start"),
            counts().label("counts"),
            sa.case(((counts() == 1) & (flag(participant.c.is_test) == 0) & active, 1), else_=0).label("regular"),
            sa.case((event.c.event_type_id.in_(types.workshops()), 1), else_=0).label("workshop"),
            sa.case((event.c.event_type_id.in_(types.ticketed()), 1), else_=0).label("ticketed"),
        )
        .join_from(participant, event, event.c.id == participant.c.event_id)
        .outerjoin(participant_status, participant_status.c.id == participant.c.status_id)
        .where(event.c.start_date.is_not(None))
        .subquery("every")
    )
    kinds: dict[str, tuple[sa.ColumnElement[bool], sa.ColumnElement[bool] | None]] = {
        "came first to a workshop, each person once": (every.c.counts == 1, every.c.workshop == 1),
        "came first to a ticketed workshop": (every.c.counts == 1, every.c.ticketed == 1),
        "first time at any event": (every.c.counts == 1, None),
        "first workshop, whatever came before": ((every.c.counts == 1) & (every.c.workshop == 1), None),
        "first ticketed workshop, whatever came before": ((every.c.counts == 1) & (every.c.ticketed == 1), None),
        "first registration of every status, a workshop": (sa.true(), every.c.workshop == 1),
        "without tests and inactive events": (every.c.regular == 1, every.c.workshop == 1),
    }
    found: dict[str, dict[int, int]] = {words: {} for words in kinds}
    if not spans:
        return found
    # When each person first came, and when first for that type: they began with it if both are the same moment.
    moments = []
    for number, (came_by, begins) in enumerate(kinds.values()):
        moments.append(_first(came_by, every.c.start, f"came_{number}"))
        if begins is not None:
            moments.append(_first(came_by & begins, every.c.start, f"began_{number}"))
    people = sa.select(every.c.contact_id, *moments).group_by(every.c.contact_id).cte("people")
    selects = []
    for number, (words, (_, begins)) in enumerate(kinds.items()):
        came = people.c[f"came_{number}"]
        together = [] if begins is None else [came == people.c[f"began_{number}"]]
        inside = windowed([people.c.contact_id], came, spans, *together)
        selects.append(
            sa.select(sa.literal(words, sa.String(60)).label("words"), inside.c.window_id, sa.func.count()).group_by(
                inside.c.window_id
            )
        )
    for words, month, count in connection.execute(sa.union_all(*selects)):
        found[words][month] = int(count)
    return found


def _first(condition: sa.ColumnElement[bool], moment: sa.ColumnElement[datetime], name: str) -> sa.Label[datetime]:
    return sa.func.min(sa.case((condition, moment)), type_=start().type).label(name)
