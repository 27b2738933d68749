"""The table of snapshots as the site has it: which of its columns exist depends on the module that made it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.database.inspection import columns_of
from kpibackfill.tables import snapshot


def optional(connection: Connection, *names: str) -> list[sa.ColumnElement[Any]]:
    """These columns, each labelled with its name; NULL in the place of one that the table lacks.

    A snapshot whose `is_test` is NULL is one that pages skip, too: they read those that have a 0 there.
    """
    there = columns_of(connection, snapshot.name)
    columns: dict[str, sa.ColumnElement[Any]]
    columns = {name: snapshot.c[name] if name in there else sa.null() for name in names}
    if "is_test" in there:
        columns["is_test"] = sa.func.coalesce(snapshot.c.is_test, 1)
    return [columns[name].label(name) for name in names]


def made(there: Collection[str]) -> sa.ColumnElement[int | None]:
    """The unix time at which a snapshot was made, by the columns that the table has; NULL where that is unknown."""
    times = (snapshot.c[name] for name in ("created_at", "created") if name in there)
    return sa.func.coalesce(*(sa.case((time > 0, time)) for time in times), sa.null(), sa.null()).label("made")
