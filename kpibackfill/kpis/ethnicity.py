"""KPIs of who takes part, by the ethnicity that people report. Answers never leave this module; only counts do."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from kpibackfill.database.expressions import (
    after,
    counted,
    exact,
    flag,
    has_word,
    in_order,
    is_type,
    start,
    unindexed,
    windowed,
)
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.kpis.registry import SiteAt, Value, Window, kpi
from kpibackfill.kpis.workshops import REGISTRATIONS
from kpibackfill.numbers import FEW_PEOPLE
from kpibackfill.tables import contact, demographics, event, option_value, participant

SEPARATORS = re.compile(rb"[\x01\x02|,]")
_BLANKS = b" \t\n\r\v\0"
_UNSPECIFIED = (
    b"unspecified",
    b"not_specified",
    b"not specified",
    b"unknown",
    b"prefer not",
    b"prefer_not",
    b"decline",
    b"not provided",
    b"not_provided",
    b"n/a",
)
_WHITE_PARTS = (b"white", b"caucasian")


@kpi(
    "workshop_participants_bipoc",
    label="Workshop participants who are BIPOC",
    unit="fraction",
    family="workshops",
    description="Among people registered for a workshop who reported their ethnicity, the share who are BIPOC.",
    sources=[*REGISTRATIONS, "civicrm_contact", "civicrm_value_demographics_15"],
    cadences=("annual", "quarterly", "monthly"),
)
def workshop_participants_bipoc(
    connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]
) -> Iterable[Value]:
    """Based on the people who reported their ethnicity, out of all participants."""
    answers = Answers(connection, site)
    if not windows or answers.missing:
        return answers.none(windows)
    spans = [(window.window_id, window.start, after(window.end)) for window in windows]
    workshop = is_type(has_word(option_value.c.label, site.settings.workshop_word))
    events = windowed([event.c.id], start(), spans, flag(event.c.is_active) == 1, workshop)
    participants = (
        in_order(sa.select(events.c.window_id, participant.c.contact_id))
        .join_from(participant, events, events.c.id == unindexed(participant.c.event_id))
        .where(counted(), flag(participant.c.is_test) == 0)
        .distinct()
        .subquery("participants")
    )
    person = (
        sa.select(participants.c.window_id, answers.greatest(contact.c.id).label("answer"))
        .join_from(contact, participants, participants.c.contact_id == contact.c.id)
        .where(flag(contact.c.is_deleted) == 0)
        .subquery("person")
    )
    return rates(connection, windows, person, SEPARATORS)


class Answers:
    """Where contacts' ethnicity is stored, or why it is `missing`."""

    def __init__(self, connection: RecordedConnection, site: SiteAt) -> None:
        name = site.settings.demographics_table
        columns = connection.columns(name)
        column = next((column for column in site.settings.ethnicity_columns if column in columns), None)
        self.missing = ""
        if not columns:
            self.missing = f"There is no table {name}."
        elif column is None:
            self.missing = f"{name} has none of the columns {', '.join(site.settings.ethnicity_columns)}."
        self.table = demographics(name, column)
        self._text = sa.null() if column is None else self.table.c[column]

    def none(self, windows: Iterable[Window]) -> list[Value]:
        """No data for any window, with the reason."""
        return [Value(window.window_id, None, warnings=[self.missing]) for window in windows]

    def greatest(self, contact_id: sa.ColumnElement[int]) -> sa.ScalarSelect[bytes]:
        """The contact's answer.

        CiviCRM's unique key leaves a contact one row of answers; where a table has several, the greatest by bytes
        counts.
        """
        answer = sa.select(sa.func.max(exact(self._text), type_=exact.type))
        return answer.where(self.table.c.entity_id == contact_id).scalar_subquery()


def rates(
    connection: RecordedConnection, windows: Iterable[Window], person: sa.Subquery, separators: re.Pattern[bytes]
) -> list[Value]:
    """The share of BIPOC people among those who reported, from a row per person with ``window_id`` and ``answer``."""
    people = in_order(sa.select(person.c.window_id, person.c.answer, sa.func.count().label("number")))
    people = people.group_by(person.c.window_id, person.c.answer)
    counts: dict[int, Counter[bool | None]] = defaultdict(Counter)
    for row in connection.execute(people):
        counts[row.window_id][is_bipoc(row.answer or b"", separators)] += row.number
    return [_rate(window, counts[window.window_id]) for window in windows]


def _rate(window: Window, counts: Counter[bool | None]) -> Value:
    reported = counts[True] + counts[False]
    few = [f"Fewer than {FEW_PEOPLE} people reported their ethnicity."] if 0 < reported < FEW_PEOPLE else []
    return Value(window.window_id, counts[True] / reported if reported else None, reported, counts.total(), few)


def is_bipoc(answer: bytes, separators: re.Pattern[bytes]) -> bool | None:
    """Whether a person with this answer is BIPOC; ``None`` if the answer reports nothing."""
    values = {value.strip(_BLANKS).lower() for value in separators.split(answer)}
    reported = {value for value in values if value and not any(part in value for part in _UNSPECIFIED)}
    return any(not any(part in value for part in _WHITE_PARTS) for value in reported) if reported else None
