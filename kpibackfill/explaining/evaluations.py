"""How the NPS is computed: answers by score, by kind of score and by month."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from kpibackfill.database.expressions import exact, same_text
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.explaining.alternatives import DECEMBER, UNTIL, Alternatives, Rule, by_months, compares, grid, until
from kpibackfill.explaining.parts import Explained, Parts, explains
from kpibackfill.explaining.registrations import Alike, by_window, numbers, total
from kpibackfill.explaining.windows import month_name, month_windows, months_of
from kpibackfill.kpis.evaluations import FINAL, evaluations, nps, score, unix_spans
from kpibackfill.kpis.registry import SiteAt, Window
from kpibackfill.tables import submission_data
from kpibackfill.text import count

MOST = 99
"""Scores above this are shown as one: a longer number may be something a person typed in."""


@dataclass(frozen=True, slots=True)
class Scores(Alike):
    """Answers, by their score, and by whether the text was a plain number or empty."""

    draft: bool
    score: int
    plain: bool
    empty: bool


def scores(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> list[Scores]:
    """The answers to the question in the windows, drafts included; their texts don't leave this function."""
    spans = unix_spans(windows, site)
    if not spans:
        return []
    draft = sa.case((FINAL, 0), else_=1).label("draft")
    submissions = evaluations(site, spans, columns=[draft])
    answer = exact(submission_data.c.value)
    rows = connection.execute(
        sa.select(submissions.c.window_id, submissions.c.draft, answer, sa.func.count())
        .join_from(submissions, submission_data, submission_data.c.sid == submissions.c.sid)
        .where(same_text(submission_data.c.name, site.settings.recommend_field))
        .group_by(submissions.c.window_id, submissions.c.draft, answer)
    )
    return [
        Scores(window_id, number, bool(is_draft), *score(text or b""), empty=not (text or b"").strip())
        for window_id, is_draft, text, number in rows
    ]


@explains("education_nps")
def education_nps(connection: RecordedConnection, site: SiteAt, window: Window) -> Explained:
    """Of all answers in the period: those that are not drafts and have a score above 0."""
    months = month_windows(months_of(window))
    answers = scores(connection, site, months)
    final = [answer for answer in answers if not answer.draft]
    counts = [answer for answer in final if answer.score > 0]
    ignored = [answer for answer in final if answer.score <= 0]
    by_month, by_score = by_window(counts), numbers(counts, lambda answer: answer.score)
    promoters, detractors, every = tally(by_score)
    kinds = {"promoters": promoters, "passives": every - promoters - detractors, "detractors": detractors}
    result = nps(promoters, detractors, every)
    odd = total(answer for answer in counts if not answer.plain)
    notes = [f"{count(odd, 'score')} {'was' if odd == 1 else 'were'} read from the digits in a longer text."]
    return Explained(
        [
            Parts("score", _labelled(by_score), result=result),
            Parts("kind of score", kinds, result=result),
            Parts("month", {month_name(month.window_id): by_month[month.window_id] for month in months}, "basis"),
        ],
        {
            "drafts": total(answers) - total(final),
            "empty": total(answer for answer in ignored if answer.empty),
            "not a number": total(answer for answer in ignored if not answer.plain and not answer.empty),
            "no score above 0": total(answer for answer in ignored if answer.plain),
        },
        considered=total(answers),
        what="answers in the period",
        arrives_at="basis",
        population="submitted evaluations",
        notes=notes if odd else [],
    )


def tally(by_score: Counter[int], promoter: int = 5, detractor: int = 3) -> tuple[int, int, int]:
    """The numbers of promoters, of detractors, and of all scores."""
    promoters = sum(number for value, number in by_score.items() if value >= promoter)
    return promoters, sum(number for value, number in by_score.items() if value <= detractor), by_score.total()


def _labelled(by_score: Counter[int]) -> dict[str, float]:
    labelled: dict[str, float] = {str(value): by_score[value] for value in sorted(by_score) if value <= MOST}
    above = sum(number for value, number in by_score.items() if value > MOST)
    return labelled | ({f"above {MOST}": above} if above else {})


@compares("education_nps", own="5 against 1 to 3")
def other_nps(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> Alternatives:
    """Other scales, other answers, or other months."""
    answers = scores(connection, site, grid(windows))
    final = [answer for answer in answers if not answer.draft]
    plain = [answer for answer in final if answer.plain]
    own = _nps_of(final)
    rules = {
        "0 where there is no score": lambda months: own(months) or 0.0,
        "ten-point scale: 9 and 10 against 0 to 6": _nps_of(plain, 9, 6, least=0),
        "4 and 5 against 1 and 2": _nps_of(final, 4, 2),
        "5 against 1 and 2": _nps_of(final, 5, 2),
        "with drafts": _nps_of(answers),
        "plain numbers only": _nps_of(plain),
        "scores from 1 to 5 only": _nps_of(answer for answer in final if answer.score <= 5),
    }
    if site.zone.key != "UTC":
        by_utc = scores(connection, replace(site, zone=ZoneInfo("UTC")), grid(windows))
        rules["days in UTC"] = _nps_of(answer for answer in by_utc if not answer.draft)
    return {
        **{words: by_months(windows, rule) for words, rule in rules.items()},
        DECEMBER: by_months(windows, own, -1),
        UNTIL: until(windows, own),
    }


def _nps_of(answers: Iterable[Scores], promoter: int = 5, detractor: int = 3, *, least: int = 1) -> Rule:
    scored = [answer for answer in answers if answer.score >= least]

    def value(months: Sequence[int]) -> float | None:
        wanted = set(months)
        by_score = numbers((found for found in scored if found.window_id in wanted), lambda found: found.score)
        return nps(*tally(by_score, promoter, detractor))

    return value
