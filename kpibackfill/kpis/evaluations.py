"""KPIs from the participants' evaluations, a webform."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from kpibackfill.database.expressions import Span, after, cut, exact, flag, same_text, windowed
from kpibackfill.database.query_log import RecordedConnection
from kpibackfill.kpis.registry import MONTHS, SiteAt, Value, Window, kpi
from kpibackfill.tables import submission, submission_data
from kpibackfill.text import count

FEW_SCORES = 5
"""Fewer scores than this are worth a warning."""

FINAL = flag(submission.c.in_draft) == 0
_NUMBER = re.compile(rb"[ \t\n\r\v\f]*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[ \t\n\r\v\f]*")
_NOT_IN_NUMBERS = re.compile(rb"[^0-9.-]")


@kpi(
    "education_nps",
    label="Education NPS",
    unit="points",
    family="evaluations",
    description="Promoters (5 or more) minus detractors (1 to 3), as a percentage of all scores above 0 for "
    "recommending the event; for a month or a quarter, over the twelve months that end with it; no value without a "
    "score.",
    sources=["webform_submission", "webform_submission_data"],
    cadences=("annual", "quarterly", "monthly"),
)
def education_nps(connection: RecordedConnection, site: SiteAt, windows: Sequence[Window]) -> Iterable[Value]:
    """Based on the scores, out of the submissions that are not drafts."""
    pieces, within = cut(unix_spans(map(twelve_months, windows), site))
    if not pieces:
        return [Value(window.window_id, None) for window in windows]
    submissions = evaluations(site, pieces, FINAL, distinct=False)
    answer = exact(submission_data.c.value)
    answers = (
        sa.select(submissions.c.window_id, answer.label("answer"), sa.func.count().label("number"))
        .join_from(submissions, submission_data, submission_data.c.sid == submissions.c.sid)
        .where(same_text(submission_data.c.name, site.settings.recommend_field), submission_data.c.value.is_not(None))
        .group_by(submissions.c.window_id, answer)
    )
    totals = sa.select(submissions.c.window_id, sa.null(), sa.func.count()).group_by(submissions.c.window_id)
    by_piece = defaultdict(list)
    for row in connection.execute(answers.union_all(totals)):
        by_piece[row.window_id].append(row)
    return [
        _nps(window, [row for piece in within.get(window.window_id, ()) for row in by_piece[piece]])
        for window in windows
    ]


def twelve_months(window: Window) -> Window:
    """A year as it is; for a month or a quarter the twelve months that end with it, as the site itself stores it."""
    year, month = divmod(window.start.year * 12 + window.start.month - 1 + MONTHS[window.cadence] - 12, 12)
    return replace(window, start=window.start.replace(year=year, month=month + 1))


def unix_spans(windows: Iterable[Window], site: SiteAt) -> list[Span]:
    """The windows over a column of unix times."""
    spans = [(window.window_id, site.unix(window.start), site.unix(after(window.end))) for window in windows]
    return [span for span in spans if span[1] < span[2]]


def evaluations(
    site: SiteAt,
    spans: Iterable[Span],
    *conditions: sa.ColumnElement[bool],
    columns: Sequence[sa.ColumnElement[Any]] = (),
    distinct: bool = True,
) -> sa.Subquery:
    """The submissions of the evaluation form in these spans: ``sid, window_id`` and the columns."""
    of_form = same_text(submission.c.webform_id, site.settings.evaluation_webform)
    chosen = [submission.c.sid, *columns]
    return windowed(chosen, submission.c.created, spans, of_form, *conditions, distinct=distinct)


def _nps(window: Window, rows: Sequence[sa.Row[tuple[int, bytes | None, int]]]) -> Value:
    promoters = detractors = scores = submissions = odd = 0
    for row in rows:
        answer, number = row.answer, row.number
        if answer is None:
            submissions += number
            continue
        value, plain = score(answer)
        odd += 0 if plain else number
        if value > 0:
            scores += number
            promoters += number if value >= 5 else 0
            detractors += number if value <= 3 else 0
    warnings = []
    if odd:
        are, their = ("is not a plain number", "its") if odd == 1 else ("are not plain numbers", "their")
        warnings.append(f"{count(odd, 'answer')} {are}; {their} digits were used, or 0.")
    if 0 < scores < FEW_SCORES:
        warnings.append(f"There {'is' if scores == 1 else 'are'} only {count(scores, 'score')}.")
    return Value(window.window_id, nps(promoters, detractors, scores), scores, submissions, warnings)


def nps(promoters: int, detractors: int, scores: int) -> float | None:
    """The net promoter score in points, rounded half away from zero to one decimal; ``None`` without scores.

    Rounding is done in whole numbers, since a float can't distinguish 6.25 from slightly less.
    """
    if not scores:
        return None
    net = promoters - detractors
    tenths = (abs(net) * 2000 + scores) // (2 * scores)
    return math.copysign(tenths, net) / 10 if tenths else 0.0


def score(answer: bytes) -> tuple[int, bool]:
    """The whole number in the text of an answer, 0 if there is none, and whether the text is a plain number.

    Of a text that holds more than a number, the digits, points and hyphens are read.
    """
    plain = _NUMBER.fullmatch(answer)
    number = plain or _NUMBER.fullmatch(_NOT_IN_NUMBERS.sub(b"", answer))
    value = float(number[1]) if number else 0.0
    return (int(value) if math.isfinite(value) else 0), bool(plain)
