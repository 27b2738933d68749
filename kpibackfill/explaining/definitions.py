"""The plausible definitions that a stored value may have followed, and what each gives year by year.

Each KPI family counts once by month, with everything in the groups that some definition looks at, and puts the
definitions together from that; so a definition more costs no query more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from kpibackfill.explaining import rates
from kpibackfill.explaining.attendance_definitions import attendees, first_timers
from kpibackfill.explaining.evaluations import Scores, scores, tally
from kpibackfill.explaining.membership import Joins, joins
from kpibackfill.explaining.question import DECEMBER, UNTIL, Asked, Definition, Months
from kpibackfill.explaining.rates import People
from kpibackfill.kpis.evaluations import nps
from kpibackfill.kpis.registry import SiteAt, Value, Window


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
