"""KPIs of workshops: attendance, and people who came for the first time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from kpibackfill.database.expressions import (
    Span,
    after,
    counted,
    event_labels,
    exact,
    has_word,
    is_type,
    start,
    windowed,
)
from kpibackfill.database.recorded import RecordedConnection
from kpibackfill.kpis.registry import SiteAt, Value, Window, kpi
from kpibackfill.tables import event, option_value, participant


@kpi(
    "workshop_attendees",
    label="Workshop attendees",
    unit="count",
    family="workshops",
    description="Counted registrations for ticketed workshops; the current month is left out.",
    sources=[
        "civicrm_participant",
        "civicrm_event",
        "civicrm_participant_status_type",
        "civicrm_option_value",
        "civicrm_option_group",
    ],
    cadences=("annual", "quarterly", "monthly"),
)
def workshop_attendees(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> Iterable[Value]:
    """Rests on the registrations it counts, out of the counted registrations for events of every type."""
    spans = finished(site, windows)
    if not spans:
        return [Value(window.window_id, None) for window in windows]
    attended = is_type(exact(option_value.c.label) == exact(sa.literal(site.settings.attendance_label)))
    events = windowed([event.c.id, sa.case((attended, 1), else_=0).label("attended")], start(), spans)
    rows = connection.execute(
        sa.select(
            events.c.window_id, sa.func.sum(events.c.attended).label("value"), sa.func.count().label("population")
        )
        .join_from(participant, events, events.c.id == participant.c.event_id)
        .where(counted())
        .group_by(events.c.window_id)
    )
    return _counts(windows, spans, rows)


@kpi(
    "total_first_time_workshop_participants",
    label="First-time workshop participants",
    unit="count",
    family="workshops",
    description="People whose first counted registration of all was for a workshop; once for each kind of workshop "
    "that they began with at that moment; the current month is left out.",
    sources=[
        "civicrm_participant",
        "civicrm_event",
        "civicrm_participant_status_type",
        "civicrm_option_value",
        "civicrm_option_group",
    ],
    cadences=("annual", "quarterly", "monthly"),
)
def total_first_time_workshop_participants(
    connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]
) -> Iterable[Value]:
    """Rests on the first-timers it counts, out of the people whose first counted registration was for any event."""
    spans = finished(site, windows)
    if not spans:
        return [Value(window.window_id, None) for window in windows]
    first = (
        sa.select(participant.c.contact_id, sa.func.min(start(), type_=start().type).label("start"))
        .join_from(participant, event, event.c.id == participant.c.event_id)
        .where(counted(), event.c.start_date.is_not(None))
        .group_by(participant.c.contact_id)
        .subquery("first")
    )
    labels = event_labels(has_word(option_value.c.label, site.settings.workshop_word))
    workshops = (
        sa.select(participant.c.contact_id, start().label("start"), labels.c.label)
        .join_from(participant, event, event.c.id == participant.c.event_id)
        .join(labels, labels.c.event_type_id == event.c.event_type_id)
        .where(counted())
        .subquery("workshops")
    )
    people = (
        sa.select(first.c.contact_id, first.c.start, sa.func.count(workshops.c.label.distinct()).label("labels"))
        .join_from(
            first,
            workshops,
            (workshops.c.contact_id == first.c.contact_id) & (workshops.c.start == first.c.start),
            isouter=True,
        )
        .group_by(first.c.contact_id, first.c.start)
        .cte("people")
    )
    inside = windowed([people.c.labels], people.c.start, spans)
    rows = connection.execute(
        sa.select(
            inside.c.window_id, sa.func.sum(inside.c.labels).label("value"), sa.func.count().label("population")
        ).group_by(inside.c.window_id)
    )
    return _counts(windows, spans, rows)


def finished(site: SiteAt, windows: Sequence[Window]) -> list[Span]:
    """The windows as spans that stop where the current month begins, less those that begin there or later."""
    spans = [(window.window_id, window.start, min(after(window.end), site.current_month)) for window in windows]
    return [span for span in spans if span[1] < span[2]]


def _counts(
    windows: Sequence[Window], spans: Sequence[Span], rows: Sequence[sa.Row[tuple[int, int, int]]]
) -> list[Value]:
    """A window without any row is 0, and one without a finished month is no data."""
    found = {row.window_id: (int(row.value), int(row.population)) for row in rows}
    ends = {window_id: end for window_id, _, end in spans}
    values = []
    for window in windows:
        if window.window_id not in ends:
            values.append(Value(window.window_id, None))
            continue
        value, population = found.get(window.window_id, (0, 0))
        warnings = []
        if ends[window.window_id] < after(window.end):
            warnings.append("The period is not over: only its finished months are counted.")
        values.append(Value(window.window_id, float(value), value, population, warnings))
    return values
