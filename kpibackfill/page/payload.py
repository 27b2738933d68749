"""The dashboard's payload: what its pages show at this moment. It is only ever read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.database import php_serialize
from kpibackfill.database.inspection import name_of, reading_refused
from kpibackfill.page.annual_tables import Payload, Section, Showing
from kpibackfill.tables import key_value
from kpibackfill.text import some

COLLECTION = "makerspace_dashboard_kpi"
LARGEST = 4_000_000
"""Bytes; a section's payload has some ten thousand."""
_SECTION = re.compile(r"section:v2:([a-z0-9_-]{1,64})")


def read_payload(connection: Connection) -> Payload:
    """Read the payload of every section; what can't be read is a note, whatever it is."""
    columns = ["collection", "name", "value"]
    refused = reading_refused(connection, key_value, columns)
    if refused:
        absent = refused.startswith("it doesn't exist") and "denied" not in refused.lower()
        name = name_of(connection, key_value.name)
        note = f"What the dashboard shows now is not known, since {name} can't be used: {refused}."
        return Payload(notes=() if absent else (note,))
    size = sa.func.length(key_value.c.value)
    rows = connection.execute(
        sa.select(key_value.c.name, sa.case((size <= LARGEST, key_value.c.value)).label("value"))
        .where(key_value.c.collection == COLLECTION, key_value.c.name.startswith("section:v2:"))
        .order_by(key_value.c.name)
        .limit(100)
    )
    sections: list[Section] = []
    unread: list[str] = []
    for name, value in rows:
        matched = _SECTION.fullmatch(name)
        if matched:
            section = _section(matched[1], php_serialize.loads(value))
            if section is None:
                unread.append(matched[1])
            else:
                sections.append(section)
    notes = []
    if unread:
        notes.append(
            f"What the dashboard shows in {some(unread)} is not known: the payload there is larger than "
            f"{LARGEST // 1_000_000} MB or not the PHP array that the dashboard stores."
        )
    return Payload(tuple(sections), tuple(notes))


def _section(name: str, document: Mapping[str | int, Any] | None) -> Section | None:
    data = None if document is None else document.get("data")
    if document is None or not isinstance(data, dict):
        return None
    # An id is printed, and could steer a terminal.
    entries = {str(kpi_id): entry for kpi_id, entry in data.items() if str(kpi_id).isprintable()}
    annual = {kpi_id: dict(_annual(entry)) for kpi_id, entry in entries.items() if isinstance(entry, dict)}
    return Section(name, _instant(document.get("computed_at")), _instant(document.get("expires_at")), annual)


def _annual(entry: Mapping[str | int, Any]) -> Iterator[tuple[int, Showing]]:
    values, sources = entry.get("annual_values"), entry.get("annual_value_sources")
    for key, value in values.items() if isinstance(values, dict) else ():
        year, number = _number(key), _number(value)
        if year is not None and year.is_integer() and number is not None:
            source = sources.get(key) if isinstance(sources, dict) else None
            yield int(year), Showing(number, source if isinstance(source, str) else "")


def _number(value: object) -> float | None:
    """A number, or the number in a text, as PHP reads it; ``None`` for anything else."""
    if isinstance(value, str) and not re.fullmatch(r"[-+.0-9eE]+", value):
        return None  # Python also reads 1_000 and digits of other scripts
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = float(value)
            return number if math.isfinite(number) else None
    return None


def _instant(value: object) -> datetime | None:
    seconds = _number(value)
    if seconds is not None:
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(seconds, UTC)
    return None
