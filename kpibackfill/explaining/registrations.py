"""Registrations counted by month, event type, and everything else that decides whether a KPI counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from kpibackfill.database.expressions import event_options, flag, start, windowed
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.explaining.windows import local_spans
from kpibackfill.kpis.registry import SiteAt, Window
from kpibackfill.tables import event, option_value, participant, participant_status
from kpibackfill.text import one_line


@dataclass(frozen=True, slots=True)
class Alike:
    """A number of registrations, answers or people of one window that are alike in everything else that matters."""

    window_id: int
    number: int


A = TypeVar("A", bound=Alike)
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Group(Alike):
    """Registrations, by everything that a KPI looks at."""

    event_type_id: int | None
    counted: bool
    test: bool
    active: bool


def counts() -> sa.ColumnElement[int]:
    """1 if the status of a registration counts, otherwise 0; for use with an outer join of the statuses.

    Not the condition that the KPIs use after WHERE: a subquery inside an aggregate crashes MariaDB 10.11.
    """
    return sa.case((flag(participant_status.c.is_counted) == 1, 1), else_=0)


def registered(events: sa.FromClause, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """A SELECT from the registrations for these events, with their statuses."""
    return (
        sa.select(*columns)
        .join_from(participant, events, events.c.id == participant.c.event_id)
        .outerjoin(participant_status, participant_status.c.id == participant.c.status_id)
    )


def registrations(connection: RecordedConnection, windows: Sequence[Window]) -> list[Group]:
    """The registrations for events that start in the windows, of any status and type."""
    if not windows:
        return []
    active = sa.case((flag(event.c.is_active) == 1, 1), else_=0).label("active")
    events = windowed([event.c.id, event.c.event_type_id, active], start(), local_spans(windows))
    test = sa.case((flag(participant.c.is_test) == 0, 0), else_=1).label("test")
    columns = (events.c.window_id, events.c.event_type_id, counts().label("counted"), test, events.c.active)
    single = registered(events, *columns).subquery("single")
    rows = connection.execute(sa.select(*single.c, sa.func.count()).group_by(*single.c))
    return [Group(window_id, int(number), kind, *map(bool, flags)) for window_id, kind, *flags, number in rows]


class EventTypes:
    """The event types and their labels; a type may have several.

    ``ticketed`` are those that attendance counts, ``taught`` those whose instructors count.
    """

    def __init__(self, connection: RecordedConnection, site: SiteAt) -> None:
        options = event_options(option_value.c.label.is_not(None))
        self._labels: dict[int, list[bytes]] = {}
        for value, label in connection.execute(sa.select(options.c.value, options.c.label)):
            # An option's value is a text, and compared as one: no event has the type "07".
            if value.isdigit() and str(int(value)).encode() == value:
                self._labels.setdefault(int(value), []).append(label)
        attendance, word = site.settings.attendance_label.encode(), site.settings.workshop_word.encode().lower()
        instructors = {text.encode().lower() for text in site.settings.instructor_labels}
        self.ticketed = self._having(lambda label: label == attendance)
        # Of bytes, lower() folds ASCII only, as the KPIs do.
        self.workshops = self._having(lambda label: word in label.lower())
        self.taught = self._having(lambda label: label.lower() in instructors)

    def name(self, type_id: int | None) -> str:
        if type_id is None:
            return "no type"
        labels = sorted(self._labels.get(type_id, ()))
        return " / ".join(text_of(label) for label in labels) or f"type {type_id} (no label)"

    def _having(self, wanted: Callable[[bytes], bool]) -> set[int]:
        return {type_id for type_id, labels in self._labels.items() if any(map(wanted, labels))}


def text_of(label: bytes) -> str:
    """A site's label for people, without control characters."""
    return one_line(label.decode("utf-8", "replace")) or "(no name)"


def total(groups: Iterable[Alike]) -> int:
    return sum(group.number for group in groups)


def by_window(groups: Iterable[Alike]) -> Counter[int]:
    return numbers(groups, lambda group: group.window_id)


def numbers(groups: Iterable[A], key: Callable[[A], K]) -> Counter[K]:
    """The numbers, summed by a key."""
    found = Counter[K]()
    for group in groups:
        found[key(group)] += group.number
    return found
