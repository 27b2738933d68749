"""SQL expressions that differ between dialects or that every KPI needs: windows over a time, bytes of a text.

Each engine compares texts by its own collations: MariaDB's ignore case, accents, control characters and trailing
spaces, others don't. For numbers that are the same everywhere, the *bytes* of texts are compared, and only ASCII is
folded.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from kpibackfill.tables import event, option_group, option_value, participant, participant_status

Span = tuple[int, Any, Any]
"""A window over a column: its id, the first value inside, the first value after."""


class LocalTime(TypeDecorator[datetime]):
    """A local time in whole seconds.

    SQLite stores times as texts, so midnight is bound as its date alone, which sorts before any spelling of that day's
    times.
    """

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.String() if dialect.name == "sqlite" else sa.DateTime())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return value.isoformat(" ", "seconds").removesuffix(" 00:00:00")


class _Bytes(TypeDecorator[bytes]):
    """Results are bytes, whether the engine sends bytes or a text."""

    impl = sa.LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.types.NullType())

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> bytes | None:
        if value is None:
            return None
        return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)


class exact(FunctionElement[bytes]):
    """A text that compares and groups by its bytes; results are bytes."""

    type = _Bytes()
    inherit_cache = True


class folded(FunctionElement[bytes]):
    """A text in ASCII lower case that compares by its bytes."""

    type = _Bytes()
    inherit_cache = True


class local_time(FunctionElement[datetime]):
    """A column of local times. SQLite holds them as texts; columnar copies may too, or hold them as UTC."""

    type = LocalTime()
    inherit_cache = True


class one_spelling(FunctionElement[datetime]):
    """A local time that equals any other of the same second, however SQLite's texts spell them."""

    type = LocalTime()
    inherit_cache = True


class flag(FunctionElement[int]):
    """A column of 0 and 1. Columnar copies may hold booleans, which Spark doesn't compare with numbers."""

    type = sa.Integer()
    inherit_cache = True


class unindexed(FunctionElement[int]):
    """A number that no index is used for, so that its table is scanned from start to end.

    Where most rows are needed, looking them up one by one in an index takes several times as long.
    """

    type = sa.Integer()
    inherit_cache = True


class contains(FunctionElement[bool]):
    """Whether the first text contains the second, byte for byte."""

    type = sa.Boolean()
    inherit_cache = True


def in_any_case(column: sa.ColumnElement[str], texts: Iterable[str]) -> sa.ColumnElement[bool]:
    """Whether the column is one of the texts, whatever their ASCII case."""
    return folded(column).in_([folded(sa.literal(text)) for text in texts])


def has_word(column: sa.ColumnElement[str], word: str) -> sa.ColumnElement[bool]:
    """Whether the column's text contains the word, whatever its ASCII case."""
    return contains(folded(column), folded(sa.literal(word)))


def same_text(column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
    """Whether the column is the text, byte for byte; an index on the column can still be used."""
    return (column == text) & (exact(column) == exact(sa.literal(text)))


def after(end: datetime) -> datetime:
    """The first second after a window's inclusive end."""
    return end + timedelta(seconds=1) if end < datetime.max.replace(microsecond=0) else datetime.max


def layers(spans: Iterable[Span]) -> list[list[Span]]:
    """The spans in as few lists as possible, so that the spans of a list don't overlap; each list is in order."""
    result: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: span[1:]):
        if span[1] >= span[2]:
            continue
        for layer in result:
            if layer[-1][2] <= span[1]:
                layer.append(span)
                break
        else:
            result.append([span])
    return result


def cut(spans: Iterable[Span]) -> tuple[list[Span], dict[int, range]]:
    """The spans cut where any of them begins or ends, and the ids of the pieces that each consists of.

    Pieces don't overlap, so a row is read once, however many spans it falls in.
    """
    spans = list(spans)
    edges = sorted({edge for _, *both in spans for edge in both})
    number = {edge: index for index, edge in enumerate(edges)}
    within = {window_id: range(number[first], number[end]) for window_id, first, end in spans}
    return [(piece, edges[piece], edges[piece + 1]) for piece in sorted(set().union(*within.values()))], within


def window_of(column: sa.ColumnElement[Any], layer: Sequence[Span]) -> sa.ColumnElement[Any]:
    """The id of the span that holds the column's value, or NULL: a CASE that halves the layer's spans at each step."""
    edges: list[tuple[Any, int | None]] = []
    for window_id, start, end in layer:
        if edges and edges[-1][0] == start:
            edges.pop()
        edges += [(start, window_id), (end, None)]

    def search(low: int, high: int) -> sa.ColumnElement[Any]:
        if high - low == 1:
            window_id = edges[low][1]
            return sa.null() if window_id is None else sa.literal(window_id, sa.BigInteger)
        middle = (low + high) // 2
        return sa.case((column < _edge(column, edges[middle][0]), search(low, middle)), else_=search(middle, high))

    return sa.case((_between(column, layer), search(0, len(edges) - 1)))


def windowed(
    columns: Sequence[sa.ColumnElement[Any]],
    column: sa.ColumnElement[Any],
    spans: Iterable[Span],
    *conditions: sa.ColumnElement[bool],
    source: sa.FromClause | None = None,
    distinct: bool = True,
) -> sa.Subquery:
    """The different rows that fall in a span, once for each span: the columns, and the span's id as ``window_id``.

    `distinct` also keeps an engine from merging the few events into the join with the many registrations. Registrations
    are then looked up in a small table in memory, without comparing any times.
    """
    parts = []
    for layer in layers(spans):
        window_id = window_of(column, layer)
        part = sa.select(*columns, window_id.label("window_id")).where(_between(column, layer), *conditions)
        if distinct:
            part = part.distinct()
        if any(before[2] != following[1] for before, following in pairwise(layer)):
            part = part.where(window_id.is_not(None))
        parts.append(part if source is None else part.select_from(source))
    return (parts[0] if len(parts) == 1 else sa.union_all(*parts)).subquery()


def start() -> sa.ColumnElement[datetime]:
    """The event's start as a local time."""
    return local_time(event.c.start_date)


def event_options(condition: sa.ColumnElement[bool]) -> sa.Subquery:
    """The different labels of event types that meet the condition: ``value`` and ``label``, both as bytes."""
    return (
        sa.select(exact(option_value.c.value).label("value"), exact(option_value.c.label).label("label"))
        .join_from(option_value, option_group, option_group.c.id == option_value.c.option_group_id)
        .where(same_text(option_group.c.name, "event_type"), condition)
        .distinct()
        .subquery()
    )


def is_option(event_type_id: sa.ColumnElement[int], options: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether an event's type is that option: an option's value is a text, and is compared as one.

    Programs that write columnar files turn whole numbers into fractional ones where some are missing.
    """
    return exact(sa.cast(sa.cast(event_type_id, sa.BigInteger), sa.String)) == options.c.value


def event_types(condition: sa.ColumnElement[bool]) -> sa.Subquery:
    """The event types with labels that meet the condition: ``event_type_id``, and the number of its ``labels``."""
    types = sa.select(event.c.event_type_id).distinct().subquery()
    options = event_options(condition)
    return (
        sa.select(types.c.event_type_id, sa.func.count().label("labels"))
        .join_from(types, options, is_option(types.c.event_type_id, options))
        .group_by(types.c.event_type_id)
        .subquery()
    )


def is_type(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether an event has a type with a label that meets the condition."""
    return event.c.event_type_id.in_(sa.select(event_types(condition).c.event_type_id))


def counted(registration: sa.FromClause = participant) -> sa.ColumnElement[bool]:
    """Whether a registration counts, by its status."""
    statuses = sa.select(participant_status.c.id).where(flag(participant_status.c.is_counted) == 1)
    return unindexed(registration.c.status_id).in_(statuses)


def in_order(select: sa.Select[Any]) -> sa.Select[Any]:
    """Make MariaDB and MySQL join the tables in the order of the statement.

    A large table is then scanned once, with look-ups in the small ones. On their own they would go the other way, row
    by row through an index.
    """
    return select.prefix_with("STRAIGHT_JOIN", dialect="mysql").prefix_with("STRAIGHT_JOIN", dialect="mariadb")


def _between(column: sa.ColumnElement[Any], layer: Sequence[Span]) -> sa.ColumnElement[bool]:
    return (column >= _edge(column, layer[0][1])) & (column < _edge(column, layer[-1][2]))


def _edge(column: sa.ColumnElement[Any], value: Any) -> sa.ColumnElement[Any]:
    # Unix times of far years don't fit the 4 bytes of PostgreSQL's integer.
    return sa.literal(value, sa.BigInteger() if isinstance(value, int) else column.type)


def _spell(element: type[FunctionElement[Any]], template: str, *dialects: str) -> None:
    """Have these dialects, or all others, spell the element by a template of its arguments."""

    @compiles(element, *dialects)
    def spelled(found: FunctionElement[Any], compiler: Any, **options: Any) -> str:
        return template.format(*(compiler.process(argument, **options) for argument in found.clauses))


_spell(exact, "{0}")
_spell(exact, '({0} COLLATE "C")', "postgresql")
_spell(exact, "CAST({0} AS BLOB)", "sqlite")
_spell(exact, "CAST(CONVERT({0} USING utf8mb4) AS BINARY)", "mysql", "mariadb")
_spell(folded, f"translate({{0}}, '{string.ascii_uppercase}', '{string.ascii_lowercase}')")
_spell(folded, 'lower({0} COLLATE "C")', "postgresql")
_spell(folded, "CAST(lower({0}) AS BLOB)", "sqlite")
# LOWER leaves binary strings alone and folds all of Unicode in others. So the bytes are read as Hebrew, a character set
# of one byte per character in which only ASCII has case, then folded and turned back into bytes.
_spell(
    folded,
    "CAST(LOWER(CONVERT(CAST(CONVERT({0} USING utf8mb4) AS BINARY) USING hebrew)) AS BINARY)",
    "mysql",
    "mariadb",
)
_spell(local_time, "{0}")
_spell(local_time, "CAST({0} AS TIMESTAMP WITHOUT TIME ZONE)", "duckdb")
_spell(local_time, "CAST({0} AS TIMESTAMP_NTZ)", "spark")
_spell(one_spelling, "{0}")
# A date becomes midnight, and a time without seconds gets 0 seconds.
_spell(one_spelling, "replace(substr({0} || substr(' 00:00:00', max(length({0}) - 9, 1)), 1, 19), 'T', ' ')", "sqlite")
_spell(flag, "{0}")
_spell(flag, "CAST({0} AS INT)", "spark")
_spell(unindexed, "({0} + 0)")
_spell(unindexed, "{0}", "postgresql")  # it chooses well on its own, as long as it sees the column itself
_spell(contains, "instr({0}, {1}) > 0")
_spell(contains, "strpos({0}, {1}) > 0", "postgresql")
