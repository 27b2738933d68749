"""The plausible definitions that a stored value may have followed, and what each gives year by year.

Each KPI family counts once by month, with everything in the groups that some definition looks at, and puts the
definitions together from that; so a definition more costs no query more.
"""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from kpibackfill.database.expressions import counted, start, windowed
from kpibackfill.database.recorded import RecordedConnection
from kpibackfill.explaining import rates
from kpibackfill.explaining.evaluations import Scores, scores, tally
from kpibackfill.explaining.membership import Joins, joins
from kpibackfill.explaining.months import month_windows
from kpibackfill.explaining.rates import People
from kpibackfill.explaining.registrations import EventTypes, Group, counts, registrations
from kpibackfill.kpis.evaluations import nps
from kpibackfill.kpis.registry import SiteAt, Value, Window
from kpibackfill.kpis.workshops import finished
from kpibackfill.tables import event, participant, participant_status

DECEMBER = "December to November"
UNTIL = "up to the end of a month"
Candidates = Sequence[tuple[str, float | None]]
Months = Sequence[int]


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition in a few words, and by year what it gives: one value, or several of which each has a detail.

    Of several, one would fit many a number by chance: they are looked at only where the KPI's own value does not fit.
    """

    words: str
    values: Mapping[int, Candidates]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a family is asked for: the years, the KPI's own values, and where to read."""

    connection: RecordedConnection
    site: SiteAt
    years: Sequence[int]
    own: Mapping[int, Value]

    def months(self) -> list[Window]:
        """The months of the years, and the one before each."""
        return month_windows(datetime(min(self.years) - 1, 12, 1), datetime(max(self.years), 12, 31))

    def single(self, words: str, value: Callable[[int], float | None]) -> Definition:
        return Definition(words, {year: [("", value(year))] for year in self.years})

    def by_months(self, words: str, value: Callable[[Months], float | None]) -> Definition:
        """A definition by what it gives for the months of the calendar year."""
        return self.single(words, lambda year: value(_months(year)))

    def shifted(self, words: str, value: Callable[[Months], float | None]) -> Definition:
        """The same for the months that a year's snapshots stand for when each is dated on the first of the next."""
        return self.single(words, lambda year: value([month - 1 for month in _months(year)]))

    def until(self, words: str, value: Callable[[Months], float | None]) -> Definition:
        """The same for a year that was not over: one value for each month that it may have been counted up to."""
        values = {}
        for year in self.years:
            months = _months(year)
            values[year] = [(calendar.month_name[last], value(months[:last])) for last in range(1, 12)]
        return Definition(words, values)


def _months(year: int) -> list[int]:
    return list(range(year * 12, year * 12 + 12))


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
    active = event.c.is_active == 1
    every = (
        sa.select(
            participant.c.contact_id,
            start().label("start"),
            counts().label("counts"),
            sa.case(((counts() == 1) & (participant.c.is_test == 0) & active, 1), else_=0).label("regular"),
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


def education_nps(asked: Asked) -> list[Definition]:
    answers = scores(asked.connection, asked.site, asked.months())
    final = [answer for answer in answers if not answer.draft]
    plain = [answer for answer in final if answer.plain]
    own = _nps_by_months(final)
    zone = asked.site.zone.key
    in_utc = SiteAt(asked.site.settings, ZoneInfo("UTC"), asked.site.as_of)
    by_utc = [] if zone == "UTC" else scores(asked.connection, in_utc, asked.months())
    return [
        asked.by_months("0 where there is no score", lambda months: own(months) or 0.0),
        asked.by_months("a scale of ten: 9 and 10 against 0 to 6", _nps_by_months(plain, 9, 6, least=0)),
        asked.by_months("4 and 5 against 1 and 2", _nps_by_months(final, 4, 2)),
        asked.by_months("5 against 1 and 2", _nps_by_months(final, 5, 2)),
        asked.by_months("with drafts", _nps_by_months(answers)),
        asked.by_months("plain numbers only", _nps_by_months(plain)),
        asked.by_months("scores from 1 to 5 only", _nps_by_months(answer for answer in final if answer.score <= 5)),
        *([asked.by_months("days by UTC", _nps_by_months(a for a in by_utc if not a.draft))] if by_utc else []),
        asked.shifted(DECEMBER, own),
        asked.until(UNTIL, own),
    ]


def _nps_by_months(
    answers: Iterable[Scores], promoter: int = 5, detractor: int = 3, *, least: int = 1
) -> Callable[[Months], float | None]:
    by_month: dict[int, Counter[int]] = {}
    for answer in answers:
        if answer.score >= least:
            by_month.setdefault(answer.window_id, Counter())[answer.score] += answer.number

    def value(months: Months) -> float | None:
        together = Counter[int]()
        for month in months:
            together.update(by_month.get(month, {}))
        return nps(*tally(together, promoter, detractor))

    return value


def signups(asked: Asked) -> list[Definition]:
    later = asked.site.settings.dated == "first_of_next_month"
    months = [month.window_id for month in asked.months()]
    rows = joins(asked.connection, asked.site, [*months, max(months) + 1])
    monthly = [row for row in rows if row.kind == "monthly" and row.joins is not None]
    annual = {row.month // 12 - later: row.joins for row in rows if row.kind in ("annually", "annual")}

    def dated(wanted: Iterable[Joins], shift: int = later) -> Callable[[Months], float | None]:
        by_month = Counter[int]()
        for row in wanted:
            by_month[row.month - shift] += row.joins or 0
        return lambda months: float(sum(by_month[m] for m in months)) if any(m in by_month for m in months) else None

    largest: dict[int, Joins] = {}
    for row in monthly:
        if row.month not in largest or (row.joins or 0) > (largest[row.month].joins or 0):
            largest[row.month] = row
    sources = sorted({row.source for row in monthly})
    return [
        asked.single("the annual snapshot's own joins", lambda year: annual.get(year)),
        *(
            asked.by_months(
                f"source {source.replace('_', ' ')} only", dated(row for row in monthly if row.source == source)
            )
            for source in sources[:4]
            if len(sources) > 1
        ),
        asked.by_months("one snapshot a month, the largest", dated(largest.values())),
        asked.by_months(
            "by the month of the snapshot's date" if later else "snapshots of the month before their date",
            dated(monthly, 0 if later else 1),
        ),
        asked.until(UNTIL, dated(monthly)),
    ]


def participants_rate(asked: Asked) -> list[Definition]:
    people = rates.participants(asked.connection, asked.site, _years_and_shifted(asked.years))
    own = "workshop counted no test active"
    return [
        asked.single("of all people, not of those who reported", _share(people, own, of=lambda _: True)),
        asked.single("of all who gave any answer", _share(people, own, of=lambda group: group.answered)),
        asked.single("who gave white too is not BIPOC", _share(people, own, bipoc=lambda g: not g.white_too)),
        asked.single("ticketed workshops only", _share(people, "ticketed counted no test active")),
        asked.single("events of every type", _share(people, "any counted no test active")),
        asked.single("with tests and inactive events", _share(people, "workshop counted")),
        asked.single("every status", _share(people, "workshop no test active")),
        asked.single("with deleted contacts", _share(people, own, needs=())),
        asked.single(DECEMBER, lambda year: _share(people, own)(-year)),
    ]


def instructors_rate(asked: Asked) -> list[Definition]:
    people = rates.teachers(asked.connection, asked.site, _years_and_shifted(asked.years))
    own, account = ("account", "enabled", "role", "here"), ("account", "here")
    return [
        asked.single("former instructors too", _share(people, "teaching", needs=(*account, "enabled"))),
        asked.single("blocked accounts too", _share(people, "teaching", needs=(*account, "role"))),
        asked.single("former and blocked ones too", _share(people, "teaching", needs=account)),
        asked.single("of all people, not of those who reported", _share(people, "teaching", own, of=lambda _: True)),
        asked.single("ticketed workshops only", _share(people, "ticketed", own)),
        asked.single("events of every type", _share(people, "any", own)),
        asked.single(DECEMBER, lambda year: _share(people, "teaching", own)(-year)),
    ]


def _years_and_shifted(years: Iterable[int]) -> list[Window]:
    """Each year, and as a negative id the twelve months that begin with the December before."""
    found = []
    for year in years:
        found.append(Window(year, datetime(year, 1, 1), datetime(year, 12, 31, 23, 59, 59)))
        found.append(Window(-year, datetime(year - 1, 12, 1), datetime(year, 11, 30, 23, 59, 59)))
    return found


def _share(
    people: Sequence[People],
    takes_part: str,
    needs: Sequence[str] = ("here",),
    *,
    of: Callable[[People], bool] = lambda group: group.bipoc is not None,
    bipoc: Callable[[People], bool] = lambda group: True,
) -> Callable[[int], float | None]:
    """By window, the share of BIPOC people among those who take part, meet what it `needs`, and are counted (`of`)."""
    wanted = frozenset([takes_part, *needs])
    parts, wholes = Counter[int](), Counter[int]()
    for group in people:
        if wanted <= group.meets and of(group):
            wholes[group.window_id] += group.number
            parts[group.window_id] += group.number * bool(group.bipoc and bipoc(group))
    return lambda window_id: parts[window_id] / wholes[window_id] if wholes[window_id] else None


FAMILIES: Mapping[str, tuple[str, Callable[[Asked], list[Definition]]]] = {
    "total_new_member_signups": ("all monthly snapshots", signups),
    "workshop_attendees": ("ticketed", attendees),
    "total_first_time_workshop_participants": ("first of all for a workshop, once a kind", first_timers),
    "education_nps": ("5 against 1 to 3", education_nps),
    "workshop_participants_bipoc": ("of those who reported", participants_rate),
    "active_instructors_bipoc": ("today's instructors who reported", instructors_rate),
}
"""By KPI: its own definition in a few words, and the function that gives the others."""


def definitions(asked: Asked, kpi_id: str) -> list[Definition]:
    """The KPI's own definition, then the others; a KPI that is not built in has its own only."""
    words, family = FAMILIES.get(kpi_id, ("the KPI's own definition", None))
    nothing = Value(0, None)
    own = asked.single(words, lambda year: asked.own.get(year, nothing).value)
    return [own, *(family(asked) if family else [])]
