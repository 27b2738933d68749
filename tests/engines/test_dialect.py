"""The dialect for Spark Connect does what SQLAlchemy's users expect of a dialect."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kpibackfill.database.engine import create_engine
from tests.engines.columnar import into_spark

EVENT = sa.Table(
    "civicrm_event",
    sa.MetaData(),
    sa.Column("id", sa.Integer),
    sa.Column("event_type_id", sa.Integer),
    sa.Column("start_date", sa.DateTime),
)
PARTICIPANT = sa.table("civicrm_participant", sa.column("event_id"), sa.column("contact_id"))
ODD_TEXTS = [
    "it's",
    'a "quoted" one',
    "🦊 Ünïcode",
    "100 %s %(x)s %",
    ":name :1",
    "back\\slash `tick`",
    "a\nb\tc",
    "\0",
    "",
]


@pytest.fixture(scope="module")
def url(sail: str, reference_parquet: list[Path]) -> str:
    return into_spark(reference_parquet, sail)


@pytest.fixture
def connection(url: str) -> Iterator[sa.Connection]:
    with create_engine(sa.make_url(url)).connect() as connection:
        yield connection


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_texts_come_back_as_they_were_bound(connection: sa.Connection, text: str) -> None:
    assert connection.scalar(sa.select(sa.literal(text))) == text
    assert connection.scalar(sa.select(sa.func.count()).where(sa.literal(text).in_([text, "other"]))) == 1


@pytest.mark.parametrize(
    "value",
    [None, 0, -1, 2**53 + 1, 0.1, 1e300, True, b"\0\xff\x01", date(2024, 2, 29)],
    ids=repr,
)
def test_values_come_back_as_they_were_bound(connection: sa.Connection, value: Any) -> None:
    found = connection.exec_driver_sql("SELECT :value AS value", {"value": value}).scalar()
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize(
    "moment", [datetime(2024, 3, 10, 2, 30), datetime(1950, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)], ids=str
)
def test_times_have_no_zone_wherever_this_computer_is(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch, moment: datetime, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    text = sa.cast(sa.cast(sa.literal(moment), sa.DateTime), sa.String)
    found = connection.execute(sa.select(sa.literal(moment), sa.cast(sa.literal(moment), sa.DateTime), text)).one()
    monkeypatch.undo()
    time.tzset()
    assert (found[0], found[1], datetime.fromisoformat(found[2])) == (moment, moment, moment)


def test_tables_are_joined_grouped_and_counted(connection: sa.Connection) -> None:
    year = sa.extract("year", EVENT.c.start_date).label("year")
    joined = (
        sa.select(year, sa.func.count(), sa.func.count(PARTICIPANT.c.contact_id.distinct()))
        .join_from(EVENT, PARTICIPANT, PARTICIPANT.c.event_id == EVENT.c.id)
        .where(EVENT.c.start_date >= datetime(2021, 1, 1), EVENT.c.start_date < datetime(2022, 1, 1))
        .group_by(year)
    )
    single = sa.select(PARTICIPANT.c.contact_id).join_from(EVENT, PARTICIPANT, PARTICIPANT.c.event_id == EVENT.c.id)
    rows = connection.execute(single.where(sa.extract("year", EVENT.c.start_date) == 2021)).scalars().all()
    assert connection.execute(joined).all() == [(2021, len(rows), len(set(rows)))]
    assert len(rows) > 100


def test_case_in_exists_union_and_common_tables_work(connection: sa.Connection) -> None:
    kind = sa.case((EVENT.c.event_type_id.in_([1, 2]), "low"), (EVENT.c.event_type_id.is_(None), None), else_="high")
    kinds = sa.select(EVENT.c.id, kind.label("kind")).cte("kinds")
    registered = sa.exists().where(PARTICIPANT.c.event_id == kinds.c.id)
    counts = sa.select(kinds.c.kind, sa.func.count()).where(registered).group_by(kinds.c.kind)
    total = sa.select(sa.literal("all"), sa.func.count()).select_from(kinds).where(registered)
    rows = {row[0]: row[1] for row in connection.execute(counts.union_all(total))}
    assert rows.pop("all") == sum(rows.values()) > 0


def test_windows_and_limits_work(connection: sa.Connection) -> None:
    place = sa.func.row_number().over(order_by=EVENT.c.id).label("place")
    numbered = sa.select(EVENT.c.id, place).subquery()
    rows = connection.execute(sa.select(numbered).where(numbered.c.place <= 3).order_by(numbered.c.place)).all()
    assert [row.place for row in rows] == [1, 2, 3]
    assert connection.scalars(sa.select(EVENT.c.id).order_by(EVENT.c.id).limit(2)).all() == [row.id for row in rows[:2]]
    result = connection.execute(sa.select(EVENT.c.id).order_by(EVENT.c.id))
    assert result.fetchone() == (rows[0].id,)
    assert [row.id for row in result.fetchmany(2)] == [row.id for row in rows[1:]]
    assert result.fetchone() is not None  # nothing was passed over


def test_casts_keep_whole_numbers_and_doubles(connection: sa.Connection) -> None:
    third = sa.cast(sa.literal(1), sa.Double) / 3
    row = connection.execute(
        sa.select(third, sa.cast(sa.literal(7), sa.String), sa.cast(sa.literal("12"), sa.BigInteger))
    ).one()
    assert tuple(row) == (1 / 3, "7", 12)


def test_names_that_need_quotes_get_them(connection: sa.Connection) -> None:
    odd = sa.select(sa.literal(1).label("select"), sa.literal(2).label("a `b` c")).subquery("from")
    row = connection.execute(sa.select(odd.c["select"], odd.c["a `b` c"])).one()
    assert tuple(row) == (1, 2)


def test_tables_are_looked_up(connection: sa.Connection) -> None:
    inspector = sa.inspect(connection)
    assert {"id", "event_type_id", "start_date"} <= {column["name"] for column in inspector.get_columns(EVENT.name)}
    assert inspector.has_table(EVENT.name)
    assert not inspector.has_table("nowhere")
    with pytest.raises(sa.exc.NoSuchTableError):
        inspector.get_columns("nowhere")


def test_what_the_server_refuses_is_an_error_of_sqlalchemy_without_the_bound_values(connection: sa.Connection) -> None:
    with pytest.raises(sa.exc.ProgrammingError) as refused:
        connection.execute(sa.text("SELECT :secret FROM nowhere"), {"secret": "hush"})
    assert "nowhere" in str(refused.value)
    assert "hush" not in str(refused.value)
    assert connection.scalar(sa.select(sa.literal(1))) == 1
