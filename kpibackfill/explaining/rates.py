"""How the participation rates are computed: people who are BIPOC, other people who reported, and nothing finer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from kpibackfill import tables
from kpibackfill.database.expressions import exact, flag, same_text, start, windowed
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.explaining.alternatives import DECEMBER, Alternatives, compares, shifted
from kpibackfill.explaining.parts import Explained, Parts, explains
from kpibackfill.explaining.registrations import Alike, EventTypes, by_window, counts, numbers, registered
from kpibackfill.explaining.windows import local_spans
from kpibackfill.kpis import ethnicity, instructors
from kpibackfill.kpis.ethnicity import Answers, is_bipoc
from kpibackfill.kpis.registry import SiteAt, Window
from kpibackfill.tables import contact, event, event_instructor, participant

_WHITE_TOO = re.compile(rb"white|caucasian", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class People(Alike):
    """People, by the conditions they meet, and by what they report: ``bipoc`` (``None``: nothing), whether they gave
    any answer at all, and whether it included white."""

    meets: frozenset[str]
    bipoc: bool | None
    answered: bool
    white_too: bool


@explains("workshop_participants_bipoc")
def participants_rate(connection: RecordedConnection, site: SiteAt, window: Window) -> Explained:
    """Of all people registered for workshops in the period: those who count for the rate and reported."""
    reasons = {
        "workshop": "",
        "workshop counted": "not counted, by status",
        "workshop counted no test": "test registrations only",
        "workshop counted no test active": "inactive events only",
        "here": "deleted contacts",
    }
    found = participants(connection, site, [window])
    return _explained(found, reasons, "people registered for workshops in the period", "participants")


@explains("active_instructors_bipoc")
def instructors_rate(connection: RecordedConnection, site: SiteAt, window: Window) -> Explained:
    """Of all people named as instructors in the period: those who are instructors today and reported."""
    reasons = {
        "named": "",
        "teaching": "removed from the event later",
        "account": "no user account",
        "enabled": "user account blocked",
        "role": "not an instructor today",
        "here": "no contact, or a deleted one",
    }
    found = teachers(connection, site, [window])
    return _explained(found, reasons, "people named as instructors of events in the period", "instructors")


def _explained(people: Iterable[People], reasons: Mapping[str, str], what: str, population: str) -> Explained:
    """Leave out each person for the first condition that they don't meet."""
    reported_as = {None: "not reported", True: "BIPOC", False: "other reported"}
    found = numbers(
        people,
        lambda group: next(
            (reason for condition, reason in reasons.items() if condition not in group.meets), reported_as[group.bipoc]
        ),
    )
    not_considered, *others = reasons.values()
    left_out = {reason: found[reason] for reason in (*others, "not reported")}
    parts = {words: found[words] for words in ("BIPOC", "other reported")}
    considered = found.total() - found[not_considered]
    reported = sum(parts.values())
    share = [Parts("ethnicity", parts, result=parts["BIPOC"] / reported)] if reported else []
    return Explained(share, left_out, considered=considered, what=what, arrives_at="basis", population=population)


def participants(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> list[People]:
    """The people registered for any event in the windows, by their registrations and what they report."""
    answers = Answers(connection, site)
    if answers.missing or not windows:
        return []
    types = EventTypes(connection, site)
    active = sa.case((flag(event.c.is_active) == 1, 1), else_=0).label("active")
    events = windowed([event.c.id, event.c.event_type_id, active], start(), local_spans(windows))
    workshop, ticketed = (events.c.event_type_id.in_(ids) for ids in (types.workshops, types.ticketed))
    counted, no_test, is_active = counts() == 1, flag(participant.c.is_test) == 0, events.c.active == 1
    conditions = {
        "workshop": workshop,
        "workshop counted": workshop & counted,
        "workshop counted no test": workshop & counted & no_test,
        "workshop counted no test active": workshop & counted & no_test & is_active,
        "workshop no test active": workshop & no_test & is_active,
        "ticketed counted no test active": ticketed & counted & no_test & is_active,
        "any counted no test active": counted & no_test & is_active,
    }
    people = (
        registered(events, events.c.window_id, participant.c.contact_id, *_flags(conditions))
        .group_by(events.c.window_id, participant.c.contact_id)
        .subquery("registered")
    )
    answer = _greatest(answers)
    person = (
        sa.select(people, sa.case((flag(contact.c.is_deleted) == 0, 1), else_=0).label("here"), answer.c.answer)
        .outerjoin_from(people, contact, contact.c.id == people.c.contact_id)
        .outerjoin(answer, answer.c.entity_id == people.c.contact_id)
        .subquery("person")
    )
    return _people(connection, person, [*conditions, "here"], ethnicity.SEPARATORS)


def teachers(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> list[People]:
    """The people named as instructors of any event in the windows: one per account and contact name."""
    answers = Answers(connection, site)
    if answers.missing or not windows:
        return []
    types = EventTypes(connection, site)
    uid = event_instructor.c.field_civi_event_instructor_target_id
    gone = sa.case((flag(event_instructor.c.deleted) == 0, 0), else_=1).label("gone")
    events = windowed(
        [event.c.event_type_id, uid.label("uid"), gone],
        start(),
        local_spans(windows),
        uid > 0,
        source=sa.join(event, event_instructor, event_instructor.c.entity_id == event.c.id),
    )
    taught, ticketed = (events.c.event_type_id.in_(ids) for ids in (types.taught, types.ticketed))
    kept = events.c.gone == 0
    conditions = {"named": taught, "teaching": taught & kept, "ticketed": ticketed & kept, "any": kept}
    roles = (
        sa.select(tables.user_role.c.entity_id)
        .where(same_text(tables.user_role.c.roles_target_id, site.settings.instructor_role))
        .distinct()
        .subquery("roles")
    )
    answer = _greatest(answers)
    known = sa.case((flag(contact.c.is_deleted) == 0, answer.c.answer))
    conditions |= {
        "account": tables.user.c.uid.is_not(None),
        "enabled": flag(tables.user.c.status) == 1,
        "role": roles.c.entity_id.is_not(None),
        "here": flag(contact.c.is_deleted) == 0,
    }
    person = (
        sa.select(events.c.window_id, *_flags(conditions), sa.func.max(known, type_=exact.type).label("answer"))
        .outerjoin_from(events, tables.user, tables.user.c.uid == events.c.uid)
        .outerjoin(roles, roles.c.entity_id == tables.user.c.uid)
        .outerjoin(tables.uf_match, tables.uf_match.c.uf_id == tables.user.c.uid)
        .outerjoin(contact, contact.c.id == tables.uf_match.c.contact_id)
        .outerjoin(answer, answer.c.entity_id == contact.c.id)
        .group_by(events.c.window_id, events.c.uid, exact(tables.user.c.name), exact(contact.c.display_name))
        .subquery("person")
    )
    return _people(connection, person, list(conditions), instructors.SEPARATORS)


def _flags(conditions: Mapping[str, sa.ColumnElement[bool]]) -> list[sa.ColumnElement[int]]:
    """For each condition, whether any row of the group meets it."""
    return [sa.func.max(sa.case((condition, 1), else_=0)).label(name) for name, condition in conditions.items()]


def _greatest(answers: Answers) -> sa.Subquery:
    """Each contact's answer, the greatest by bytes where there are several: ``entity_id``, ``answer``."""
    entity, text = answers.table.c
    return (
        sa.select(entity, sa.func.max(exact(text), type_=exact.type).label("answer"))
        .group_by(entity)
        .subquery("greatest")
    )


def _people(
    connection: RecordedConnection, person: sa.Subquery, conditions: Sequence[str], separators: re.Pattern[bytes]
) -> list[People]:
    """The people counted by everything they have in common; their answers don't leave this function."""
    columns = (person.c.window_id, person.c.answer, *(person.c[condition] for condition in conditions))
    found = []
    for window_id, answer, *values, number in connection.execute(
        sa.select(*columns, sa.func.count()).group_by(*columns)
    ):
        text = answer or b""
        meets = frozenset(condition for condition, met in zip(conditions, values, strict=True) if met)
        answered, white_too = bool(text.strip()), bool(_WHITE_TOO.search(text))
        found.append(People(window_id, number, meets, is_bipoc(text, separators), answered, white_too))
    return found


@compares("workshop_participants_bipoc", own="of those who reported")
def other_participants_rates(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> Alternatives:
    """Shares of other people, of other registrations, or over other months."""
    people = participants(connection, site, [*windows, *shifted(windows)])
    own = "workshop counted no test active"
    return {
        "of all people, not just those who reported": _share(people, own, of=lambda _: True),
        "of everyone who gave any answer": _share(people, own, of=lambda group: group.answered),
        "people who also reported white are not BIPOC": _share(people, own, bipoc=lambda group: not group.white_too),
        "ticketed workshops only": _share(people, "ticketed counted no test active"),
        "events of every type": _share(people, "any counted no test active"),
        "with tests and inactive events": _share(people, "workshop counted"),
        "every status": _share(people, "workshop no test active"),
        "with deleted contacts": _share(people, own, needs=()),
        DECEMBER: {-window_id: share for window_id, share in _share(people, own).items()},
    }


@compares("active_instructors_bipoc", own="today's instructors who reported")
def other_instructors_rates(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> Alternatives:
    """Shares of other instructors, of other events, or over other months."""
    people = teachers(connection, site, [*windows, *shifted(windows)])
    own, account = ("account", "enabled", "role", "here"), ("account", "here")
    return {
        "former instructors too": _share(people, "teaching", needs=(*account, "enabled")),
        "blocked accounts too": _share(people, "teaching", needs=(*account, "role")),
        "former instructors and blocked accounts too": _share(people, "teaching", needs=account),
        "of all people, not just those who reported": _share(people, "teaching", own, of=lambda _: True),
        "ticketed workshops only": _share(people, "ticketed", own),
        "events of every type": _share(people, "any", own),
        DECEMBER: {-window_id: share for window_id, share in _share(people, "teaching", own).items()},
    }


def _share(
    people: Sequence[People],
    takes_part: str,
    needs: Sequence[str] = ("here",),
    *,
    of: Callable[[People], bool] = lambda group: group.bipoc is not None,
    bipoc: Callable[[People], bool] = lambda group: True,
) -> dict[int, float]:
    """By window, the share of BIPOC people among those who take part, meet what it `needs`, and are counted (`of`)."""
    wanted = frozenset([takes_part, *needs])
    counted = [group for group in people if wanted <= group.meets and of(group)]
    parts = by_window(group for group in counted if group.bipoc and bipoc(group))
    return {window_id: parts[window_id] / whole for window_id, whole in by_window(counted).items() if whole}
