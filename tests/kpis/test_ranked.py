"""Which of several answers is the greatest: the one that MariaDB's collation says, on every engine."""

from __future__ import annotations

import itertools

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from kpibackfill.database.expressions import exact, ranked, unranked
from tests.databases import Database

RISING = [
    "\tasian", "\nasian", "\vasian", "\fasian", "\rasian", "", " asian", "_asian", "-asian", ",asian", ";asian",
    "'asian", "/asian", "|asian", "5", "\0Asian", "as\x01ian\0black", "p\tq", "p", "p_", "pQ", "white\r\nasian",
    "\x02WHITE", "white\0 asian", "white_asian", "white-asian", "white,asian", "white;asian", "white'asian",
    "white/asian", "white|asian", "white\0asian", "\0whiteB\0\0", "white\x03\0\x01c",
]  # fmt: skip
"""Each is greater than the one before, as MariaDB compares them."""


def test_the_greatest_text_is_the_one_that_mariadb_says_and_comes_back_as_it_was(store: Database) -> None:
    texts = [text for text in RISING if "\0" not in text or store.name != "postgresql"]
    pairs = [pair for two in itertools.combinations(texts, 2) for pair in (two, two[::-1])]
    collated = sa.Text().with_variant(mysql.TEXT(charset="utf8mb4", collation="utf8mb4_unicode_ci"), "mysql", "mariadb")
    table = sa.Table("answers", sa.MetaData(), sa.Column("pair", sa.Integer), sa.Column("answer", collated))
    with sa.create_engine(store.url, poolclass=sa.NullPool).begin() as connection:
        table.create(connection)
        rows = [{"pair": number, "answer": text} for number, pair in enumerate(pairs) for text in pair]
        connection.execute(sa.insert(table), rows)
        greatest = sa.select(table.c.pair, sa.func.max(ranked(table.c.answer), type_=exact.type))
        found = {pair: unranked(answer) for pair, answer in connection.execute(greatest.group_by(table.c.pair))}
        assert found == {number: max(pair, key=RISING.index).encode() for number, pair in enumerate(pairs)}
        if store.name == "mariadb":
            own = sa.select(table.c.pair, exact(sa.func.max(table.c.answer, type_=sa.String())))
            assert found == {row[0]: row[1] for row in connection.execute(own.group_by(table.c.pair))}
