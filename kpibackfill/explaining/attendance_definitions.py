"""The plausible definitions of attendees and first-timers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from kpibackfill.database.expressions import counted, flag, one_spelling, start, windowed
from kpibackfill.explaining.question import DECEMBER, UNTIL, Asked, Definition, Months
from kpibackfill.explaining.registrations import EventTypes, Group, counts, registrations
from kpibackfill.kpis.registry import Window
from kpibackfill.kpis.workshops import finished
from kpibackfill.tables import event, participant, participant_status


def attendees(asked: Asked) -> list[Definition]:
    types = EventTypes(asked.connection, asked.site)
    ticketed, workshops = set(types.ticketed()), set(types.workshops())
    done = finished(asked.site, asked.months())
    groups = registrations(asked.connection, [w for w in asked.months() if w.window_id in {span[0] for span in done}])
    people = _people_by_year(asked, types)

    def number(wanted: Callable[[Group], bool]) -> Callable[[Months], float | None]:
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
    return [
        asked.by_months("all workshops", every),
        asked.by_months("events of every type", number(lambda g: g.counted)),
        asked.by_months(
            "without tests and inactive events", number(lambda g: is_ticketed(g) and g.counted and _regular(g))
        ),
        asked.by_months(
            "all workshops, without tests and inactive events",
            number(lambda g: is_workshop(g) and g.counted and _regular(g)),
        ),
        asked.by_months("every status", number(is_ticketed)),
        asked.by_months("all workshops, every status", number(is_workshop)),
        asked.single("people, not registrations", lambda year: people.get(year, (0, 0))[0]),
        asked.single("all workshops, people", lambda year: people.get(year, (0, 0))[1]),
        asked.shifted(DECEMBER, own),
        asked.shifted(f"all workshops, {DECEMBER}", every),
        asked.until(UNTIL, own),
    ]


def _regular(group: Group) -> bool:
    return group.active and not group.test


def _people_by_year(asked: Asked, types: EventTypes) -> dict[int, tuple[int, int]]:
    """The different people with a counted registration for a ticketed workshop, and for any workshop."""
    years = [Window(year, datetime(year, 1, 1), datetime(year, 12, 31, 23, 59, 59)) for year in asked.years]
    spans = finished(asked.site, years)
    if not spans:
        return {}
    events = windowed([event.c.id, event.c.event_type_id], start(), spans)
    ticketed, workshops = (events.c.event_type_id.in_(ids) for ids in (types.ticketed(), types.workshops()))
    rows = asked.connection.execute(
        sa.select(
            events.c.window_id,
            sa.func.count(sa.case((ticketed, participant.c.contact_id)).distinct()),
            sa.func.count(sa.case((workshops, participant.c.contact_id)).distinct()),
        )
        .join_from(participant, events, events.c.id == participant.c.event_id)
        .where(counted())
        .group_by(events.c.window_id)
    )
    return {year: (int(of_ticketed), int(of_workshops)) for year, of_ticketed, of_workshops in rows}


def first_timers(asked: Asked) -> list[Definition]:
    types = EventTypes(asked.connection, asked.site)
    firsts = _firsts(asked, types)

    def number(name: str) -> Callable[[Months], float | None]:
        return lambda months: float(sum(firsts.get((name, month), 0) for month in months))

    return [
        asked.by_months("came first to a workshop, each person once", number("workshop first")),
        asked.by_months("came first to a ticketed workshop", number("ticketed first")),
        asked.by_months("first time at any event", number("any")),
        asked.by_months("first workshop, whatever came before", number("workshop")),
        asked.by_months("first ticketed workshop, whatever came before", number("ticketed")),
        asked.by_months("first registration of every status, a workshop", number("workshop first, every status")),
        asked.by_months("without tests and inactive events", number("workshop first, regular")),
        asked.shifted(f"each person once, {DECEMBER}", number("workshop first")),
        asked.until(f"each person once, {UNTIL}", number("workshop first")),
    ]


def _firsts(asked: Asked, types: EventTypes) -> dict[tuple[str, int], int]:
    """By definition and month, the people whose first registration of some kind was in it, and was of some type.

    One statement reads each person's first moments of every kind; the others look at what began then.
    """
    months = finished(asked.site, asked.months())
    if not months:
        return {}
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
        "any": (every.c.counts == 1, None),
        "workshop": ((every.c.counts == 1) & (every.c.workshop == 1), None),
        "ticketed": ((every.c.counts == 1) & (every.c.ticketed == 1), None),
        "workshop first": (every.c.counts == 1, every.c.workshop == 1),
        "ticketed first": (every.c.counts == 1, every.c.ticketed == 1),
        "workshop first, every status": (sa.true(), every.c.workshop == 1),
        "workshop first, regular": (every.c.regular == 1, every.c.workshop == 1),
    }
    # When each person first came in each way, and when for a workshop: they began with it where both are one moment.
    moments = []
    for number, (came_by, begins) in enumerate(kinds.values()):
        moments.append(_first(came_by, every.c.start, f"came_{number}"))
        if begins is not None:
            moments.append(_first(came_by & begins, every.c.start, f"began_{number}"))
    people = sa.select(every.c.contact_id, *moments).group_by(every.c.contact_id).cte("people")
    selects = []
    for number, (name, (_, begins)) in enumerate(kinds.items()):
        came = people.c[f"came_{number}"]
        together = [] if begins is None else [came == people.c[f"began_{number}"]]
        inside = windowed([people.c.contact_id], came, months, *together)
        selects.append(
            sa.select(sa.literal(name, sa.String(40)).label("name"), inside.c.window_id, sa.func.count()).group_by(
                inside.c.window_id
            )
        )
    return {(name, month): int(count) for name, month, count in asked.connection.execute(sa.union_all(*selects))}


def _first(condition: sa.ColumnElement[bool], moment: sa.ColumnElement[datetime], name: str) -> sa.Label[datetime]:
    return sa.func.min(sa.case((condition, moment)), type_=start().type).label(name)
