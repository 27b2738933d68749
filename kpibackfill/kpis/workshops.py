"""Workshop KPIs: attendance, and people who came for the first time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from kpibackfill.database import expressions
from kpibackfill.database.expressions import (
    Span,
    after,
    counted,
    exact,
    in_order,
    one_spelling,
    start,
    unindexed,
    windowed,
)
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.kpis.registry import SiteAt, Value, Window, kpi
from kpibackfill.tables import event, option_value, participant

REGISTRATIONS = (
    "civicrm_participant",
    "civicrm_event",
    "civicrm_participant_status_type",
    "civicrm_option_value",
    "civicrm_option_group",
)
"""The tables that say which registrations count, and for which type of event."""


@kpi(
    "workshop_attendees",
    label="Workshop attendees",
    unit="count",
    family="workshops",
    description="Counted registrations for ticketed workshops; the current month is left out.",
    sources=REGISTRATIONS,
    cadences=("annual", "quarterly", "monthly"),
)
def workshop_attendees(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> Iterable[Value]:
    """Based on the registrations it counts, out of all counted registrations for events of any type."""
    spans = finished(site, windows)
    if not spans:
        return [Value(window.window_id, None) for window in windows]
    types = expressions.event_types(exact(option_value.c.label) == exact(sa.literal(site.settings.attendance_label)))
    attended = sa.case((types.c.event_type_id.is_not(None), 1), else_=0).label("attended")
    typed = sa.outerjoin(event, types, types.c.event_type_id == event.c.event_type_id)
    events = windowed([event.c.id, attended], start(), spans, source=typed)
    rows = connection.execute(
        _totals(events.c.window_id, events.c.attended)
        .join_from(participant, events, events.c.id == unindexed(participant.c.event_id))
        .where(counted())
        .group_by(events.c.window_id)
    )
    return _counts(windows, spans, rows)


@kpi(
    "total_first_time_workshop_participants",
    label="First-time workshop participants",
    unit="count",
    family="workshops",
    description="People whose very first counted registration was for a workshop, counted once for each kind of "
    "workshop they started with at that moment; the current month is left out.",
    sources=REGISTRATIONS,
    cadences=("annual", "quarterly", "monthly"),
)
def total_first_time_workshop_participants(
    connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]
) -> Iterable[Value]:
    """Based on the first-timers it counts, out of all people whose first counted registration falls in the window."""
    spans = finished(site, windows)
    if not spans:
        return [Value(window.window_id, None) for window in windows]
    is_workshop = expressions.has_word(option_value.c.label, site.settings.workshop_word)
    types, options = expressions.event_types(is_workshop), expressions.event_options(is_workshop)
    # Every start and type gets two positions in time; types that start together are ranked in both directions. A person
    # whose first positions in both rankings belong to one type started with that type alone.
    kind, moment = event.c.event_type_id, one_spelling(start())
    moments = (
        sa.select(
            event.c.id,
            kind,
            moment.label("start"),
            sa.func.dense_rank().over(order_by=(moment, kind)).label("place"),
            sa.func.dense_rank().over(order_by=(moment, kind.desc())).label("reverse"),
        )
        .where(event.c.start_date.is_not(None))
        .subquery("moments")
    )
    first = (
        in_order(
            sa.select(
                participant.c.contact_id,
                sa.func.min(moments.c.place).label("place"),
                sa.func.min(moments.c.reverse).label("reverse"),
            )
        )
        .join_from(participant, moments, moments.c.id == participant.c.event_id)
        .where(counted())
        .group_by(participant.c.contact_id)
        .subquery("first")
    )
    begun = windowed(
        [moments.c.place, moments.c.reverse, moments.c.start, sa.func.coalesce(types.c.labels, 0).label("labels")],
        moments.c.start,
        spans,
        source=sa.outerjoin(moments, types, types.c.event_type_id == moments.c.event_type_id),
    )
    # NULL where there is only one type, so that an engine that joins has almost nothing to look up.
    tied = sa.case((first.c.reverse != begun.c.reverse, first.c.contact_id)).label("tied")
    people = (
        sa.select(begun.c.window_id, begun.c.start, begun.c.labels, tied)
        .join_from(first, begun, begun.c.place == first.c.place)
        .subquery("people")
    )
    registration = participant.alias()
    workshop = sa.select(event.c.id, kind, moment.label("start")).subquery("workshop")
    several = (
        sa.select(sa.func.count(options.c.label.distinct()))
        .join_from(registration, workshop, workshop.c.id == registration.c.event_id)
        .join(options, expressions.is_option(workshop.c.event_type_id, options))
        .where(registration.c.contact_id == people.c.tied, workshop.c.start == people.c.start, counted(registration))
        .scalar_subquery()
    )
    number = sa.case((people.c.tied.is_(None), people.c.labels), else_=several).label("number")
    numbered = sa.select(people.c.window_id, number).subquery("numbered")
    totals = _totals(numbered.c.window_id, numbered.c.number).group_by(numbered.c.window_id)
    return _counts(windows, spans, connection.execute(totals))


def finished(site: SiteAt, windows: Sequence[Window]) -> list[Span]:
    """The windows as spans that end where the current month begins; windows that begin there or later are dropped."""
    spans = [(window.window_id, window.start, min(after(window.end), site.current_month)) for window in windows]
    return [span for span in spans if span[1] < span[2]]


def _totals(window_id: sa.ColumnElement[Any], number: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Each window's ``value``, the sum of the numbers, and its ``population``, how many there are."""
    return in_order(sa.select(window_id, sa.func.sum(number).label("value"), sa.func.count().label("population")))


def _counts(
    windows: Sequence[Window], spans: Sequence[Span], rows: Sequence[sa.Row[tuple[int, int, int]]]
) -> list[Value]:
    """The value of each window: 0 without any row, no data without a finished month."""
    found = {row.window_id: (int(row.value), int(row.population)) for row in rows}
    ends = {window_id: end for window_id, _, end in spans}
    values = []
    for window in windows:
        if window.window_id not in ends:
            values.append(Value(window.window_id, None))
            continue
        value, population = found.get(window.window_id, (0, 0))
        warnings = []
        if ends[window.window_id] <= window.end:
            warnings.append("The period is not over; only its finished months are counted.")
        values.append(Value(window.window_id, float(value), value, population, warnings))
    return values
