"""The invented content of a makerspace's CiviCRM, Drupal and member counts: made-up people with lifelike habits.

Each possible answer is listed with what the KPI definitions read in it, so that the demo's stored values can be derived
without the code with which they are later compared.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import NamedTuple

FIRST_YEAR = 2015

# Per year from 2015; later years repeat the last one.
EVENTS = (120, 170, 220, 265, 310, 85, 190, 270, 330, 380, 440)
JOINS = (150, 190, 230, 260, 290, 110, 210, 280, 310, 330, 345)
SEASON = (11, 10, 10, 9, 8, 6, 5, 5, 10, 11, 9, 6)
OTHER_SEASONS = {2020: (11, 10, 5, 0, 0, 0, 1, 1, 2, 2, 2, 1)}

TYPES = ("Tour", "Ticketed Workshop", "Workshop Series", "Program", "Meetup", "Private workshop", "Beginner Workshop")
LABELS = dict(enumerate(TYPES, 1))
TOUR, TICKETED, _, PROGRAM, MEETUP, _, RETIRED = LABELS
KIND_WEIGHTS = (12, 58, 9, 10, 7, 4)  # of all but RETIRED, which replaces a fifth of the ticketed ones until 2017
RETIRED_IN = 2018
TOPICS = ("Laser cutting", "Wood turning", "Welding", "Screen printing", "3D printing", "Sewing", "Pottery", "CNC")

# name, class, is_counted
STATUSES = (
    ("Registered", "Positive", 1),
    ("Attended", "Positive", 1),
    ("No-show", "Negative", 0),
    ("Cancelled", "Negative", 0),
    ("Pending from pay later", "Pending", 1),
    ("Pending from incomplete transaction", "Pending", 0),
)
STATUS_WEIGHTS = (6, 80, 6, 6, 1, 1)

# answer, whether it makes the person BIPOC (None: not reported), weight
ETHNICITY = (
    ("\x01white\x01", False, 50),
    ("\x01black\x01", True, 11),
    ("\x01asian\x01", True, 8),
    ("\x01hispanic\x01", True, 9),
    ("\x01asian\x01white\x01", True, 3),
    ("\x01multi\x01", True, 3),
    ("\x01middleeast\x01", True, 1),
    ("\x01white\x01decline\x01", False, 1),
    ("White", False, 2),
    ("black|white", True, 1),
    ("\x01prefer_not_to_say\x01", None, 7),
    ("", None, 3),
    (None, None, 1),
)
# answer, the score that the definition reads in it (0: ignored), weight
RECOMMEND = (
    ("5", 5, 56),
    ("4", 4, 24),
    ("3", 3, 8),
    ("2", 2, 3),
    ("1", 1, 3),
    (" 4 ", 4, 1),
    ("5 - Very likely", 0, 2),
    ("4/5", 45, 1),
    ("", 0, 1),
    ("n/a", 0, 1),
)
EVALUATION_FORM, OTHER_FORM = "webform_1181", "webform_1022"
NO_EVALUATIONS = 2018  # the form could not be submitted: drafts only

STAFF = range(1, 61)  # these contacts have a user account
FORMER, BLOCKED, DELETED_STAFF = frozenset(range(7, 61, 9)), frozenset({5, 23, 41}), frozenset({31})


class Contact(NamedTuple):
    id: int
    is_deleted: int
    asked: bool  # whether a demographics row exists
    ethnicity: str | None
    bipoc: bool | None


class Event(NamedTuple):
    id: int
    kind: int
    title: str
    start: dt.datetime
    is_active: int

    @property
    def label(self) -> str:
        return LABELS[self.kind]

    @property
    def is_workshop(self) -> bool:
        return "workshop" in self.label.lower()


class Registration(NamedTuple):
    id: int
    contact: int
    event: Event
    status: int
    is_test: int

    @property
    def counts(self) -> bool:
        return STATUSES[self.status - 1][2] == 1


class Evaluation(NamedTuple):
    id: int
    form: str
    created: dt.datetime
    in_draft: int
    answer: str
    score: int


class Teaching(NamedTuple):
    event: Event
    delta: int
    deleted: int
    contact: int


class Month(NamedTuple):
    year: int
    month: int
    active: int
    paused: int
    lapsed: int
    joins: int
    cancels: int


@dataclass(frozen=True)
class Makerspace:
    years: range
    contacts: list[Contact]
    events: list[Event]
    registrations: list[Registration]
    evaluations: list[Evaluation]
    teaching: list[Teaching]
    months: list[Month]  # also those of the year after: the dashboard counts the members who join in the current year


def invent(years: range) -> Makerspace:
    """The makerspace of these years, the same on every call."""
    events = _events(Random(1), years)
    registrations = _registrations(Random(2), events)
    return Makerspace(
        years=years,
        contacts=_contacts(Random(3), max(registration.contact for registration in registrations)),
        events=events,
        registrations=registrations,
        evaluations=_evaluations(Random(4), registrations),
        teaching=_teaching(Random(5), events),
        months=_months(Random(6), range(years.start, years.stop + 1)),
    )


def _of_year(levels: Sequence[int], year: int) -> int:
    return levels[min(year - FIRST_YEAR, len(levels) - 1)]


def _events(rng: Random, years: range) -> list[Event]:
    drawn = []
    for year in years:
        months = rng.choices(range(1, 13), OTHER_SEASONS.get(year, SEASON), k=_of_year(EVENTS, year))
        kinds = rng.choices(range(TOUR, RETIRED), KIND_WEIGHTS, k=len(months))
        for month, kind in zip(months, kinds, strict=True):
            if kind == TICKETED and year < RETIRED_IN and rng.random() < 0.2:
                kind = RETIRED
            day = dt.datetime(year, month, 2 + int(rng.random() * 26))
            hour = 18 if day.weekday() < 5 else 10 + 3 * int(rng.random() * 2)
            drawn.append((day.replace(hour=hour), kind, TOPICS[int(rng.random() * 8)], int(rng.random() > 0.02)))
    return [
        Event(number, kind, title, start, active)
        for number, (start, kind, title, active) in enumerate(sorted(drawn), 1)
    ]


def _registrations(rng: Random, events: list[Event]) -> list[Registration]:
    """A third are newcomers; the others come back, more likely the more recently they first came."""
    rows: list[Registration] = []
    weights = tuple(accumulate(STATUS_WEIGHTS))
    newest = STAFF[-1]
    for event in events:
        people: dict[int, None] = {}
        for _ in range(3 + int(rng.random() * 10)):
            if rng.random() < 0.35:
                newest += 1
                people[newest] = None
            else:
                people[newest - int(rng.random() ** 2 * min(newest, 1500))] = None
        statuses = rng.choices(range(1, len(STATUSES) + 1), cum_weights=weights, k=len(people))
        for contact, status in zip(people, statuses, strict=True):
            rows.append(Registration(len(rows) + 1, contact, event, status, int(rng.random() < 0.005)))
    return rows


def _contacts(rng: Random, count: int) -> list[Contact]:
    answers = rng.choices(ETHNICITY, [weight for *_, weight in ETHNICITY], k=count)
    rows = []
    for number, (ethnicity, bipoc, _) in enumerate(answers, 1):
        asked = number in STAFF or rng.random() < 0.6
        deleted = number in DELETED_STAFF or (number not in STAFF and rng.random() < 0.015)
        rows.append(Contact(number, int(deleted), asked, ethnicity if asked else None, bipoc if asked else None))
    return rows


def _evaluations(rng: Random, registrations: list[Registration]) -> list[Evaluation]:
    rows: list[Evaluation] = []
    chance = {False: 0.05, True: 0.25}
    weights = tuple(accumulate(weight for *_, weight in RECOMMEND))
    for registration in registrations:
        event = registration.event
        created = event.start + dt.timedelta(hours=2, minutes=int(rng.random() * 4000))
        # An evaluation near New Year could belong to another year in another time zone.
        near_new_year = (created + dt.timedelta(days=1)).year != event.start.year
        if not registration.counts or near_new_year or rng.random() > chance[event.is_workshop]:
            continue
        form = EVALUATION_FORM if event.is_workshop else OTHER_FORM
        draft = rng.random() < 0.04
        answer, score, _ = rng.choices(RECOMMEND, cum_weights=weights)[0]
        if draft or form == OTHER_FORM or event.start.year != NO_EVALUATIONS:
            rows.append(Evaluation(len(rows) + 1, form, created, int(draft), answer, score))
    return rows


def _teaching(rng: Random, events: list[Event]) -> list[Teaching]:
    """One instructor for most events, sometimes two; each year the group of instructors shifts a little."""
    rows: list[Teaching] = []
    for event in events:
        since = event.start.year - FIRST_YEAR
        low, high = min(3 * since, 34), min(26 + 3 * since, len(STAFF))
        if event.kind in (TOUR, MEETUP) or rng.random() < 0.06:
            continue
        for delta in range(1 + (rng.random() < 0.1)):
            contact = STAFF[low + int(rng.random() * (high - low))]
            rows.append(Teaching(event, delta, int(rng.random() < 0.03), contact))
    return rows


def _months(rng: Random, years: range) -> list[Month]:
    rows: list[Month] = []
    active = 180
    for year in years:
        season = OTHER_SEASONS.get(year, SEASON)
        for month in range(1, 13):
            joins = round(_of_year(JOINS, year) * season[month - 1] / sum(season) * (0.85 + 0.3 * rng.random()))
            cancels = round(active * (0.05 if year == 2020 and month > 3 else 0.022 + 0.01 * rng.random()))
            active += joins - cancels
            rows.append(Month(year, month, active, active // 40, active // 25, joins, cancels))
    return rows
