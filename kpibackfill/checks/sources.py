"""Checks the source tables: that the KPIs can read them, that they have the site's labels and names, and indexes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill import tables
from kpibackfill.checks.finding import Finding, note, ok, wrong
from kpibackfill.config import Site
from kpibackfill.database import inspection
from kpibackfill.database.expressions import event_options, same_text
from kpibackfill.kpis.registry import Kpi
from kpibackfill.tables import option_group, option_value, participant, submission, submission_data, user_role
from kpibackfill.text import count

_TABLES = {table.name: table for part in (tables.civicrm, tables.drupal) for table in part.tables.values()}
DEMOGRAPHICS = Site().demographics_table
LARGE = 200_000
"""From this many rows on, a missing index costs more than a few seconds."""
_INDEXES = (
    (participant, ("event_id", "contact_id", "status_id"), "with it, registrations are read from the index alone"),
    (submission_data, ("sid", "name"), "without it, all answers are searched for those of one form"),
)


def check_sources(connection: Connection, site: Site, kpis: Sequence[Kpi]) -> Iterator[Finding]:
    readers: dict[str, list[Kpi]] = {}
    for entry in kpis:
        for name in entry.sources:
            readers.setdefault(name, []).append(entry)
    readable = set()
    for name, entries in readers.items():
        if name in tables.store.tables or name == DEMOGRAPHICS:
            continue
        reason = _refused(connection, name)
        if not reason:
            readable.add(name)
            continue
        stored = inspection.name_of(connection, name)
        text = f"{stored} can't be used: {reason}. KPIs that read it: {', '.join(entry.kpi_id for entry in entries)}."
        # A run computes risky KPIs only on request.
        yield note(text) if all(entry.risky for entry in entries) else wrong(text)
    yield ok(f"{count(len(readable), 'source table')} can be read, with the columns that the KPIs need.")
    if DEMOGRAPHICS in readers:
        yield _demographics(connection, site)
    yield from _names(connection, site, readable)
    yield from _indexes(connection, readable)


def _refused(connection: Connection, name: str) -> str:
    if name in _TABLES:
        return inspection.reading_refused(connection, _TABLES[name], _TABLES[name].c.keys())
    # A table that only the site's own KPIs read, in Drupal's schema or CiviCRM's.
    places = [sa.table(name, sa.column("*", is_literal=True), schema=schema) for schema in (None, tables.CIVICRM)]
    reasons = [
        inspection.refusal(connection, sa.select(sa.text("*")).select_from(place).where(sa.false())) for place in places
    ]
    return reasons[0] if all(reasons) else ""


def _demographics(connection: Connection, site: Site) -> Finding:
    name = site.demographics_table
    reason = inspection.reading_refused(connection, tables.demographics(name), ["entity_id"])
    if reason:
        return note(f"{name} (demographics_table) can't be used: {reason}. Rates by ethnicity will have no data.")
    for column in site.ethnicity_columns:
        if inspection.has_column(connection, tables.demographics(name, column), column):
            return ok(f"Ethnicity is read from {name}.{column}.")
    columns = ", ".join(site.ethnicity_columns)
    return note(
        f"{name} has none of the columns {columns}, so rates by ethnicity will have no data. Set ethnicity_columns."
    )


def _names(connection: Connection, site: Site, readable: set[str]) -> Iterator[Finding]:
    """Whether the labels, form, field and role named in the settings occur in the sources."""
    missing: list[str] = []
    if {option_group.name, option_value.name} <= readable:
        missing += _labels(connection, site)
    if {submission.name, submission_data.name} <= readable:
        missing += _form(connection, site)
    role = same_text(user_role.c.roles_target_id, site.instructor_role)
    if user_role.name in readable and not _any(connection, sa.select(user_role.c.entity_id).where(role)):
        missing.append(f"Nobody has the role {site.instructor_role!r} (instructor_role).")
    for text in missing:
        yield note(f"{text} The KPIs that need it will be 0 or have no data: see [site] in kpibackfill.toml.")
    if not missing:
        yield ok("The labels, form, field and role named in the settings occur in the sources.")


def _labels(connection: Connection, site: Site) -> Iterator[str]:
    labeled = sa.select(event_options(option_value.c.label.is_not(None)).c.label)
    labels = {bytes(label).decode("utf-8", "replace") for label in connection.scalars(labeled)}
    lower = {label.lower() for label in labels}
    there = f"labels in use: {', '.join(sorted(map(repr, labels))) or 'none'}."
    if site.attendance_label not in labels:
        yield f"No event type is labeled {site.attendance_label!r} (attendance_label); {there}"
    if not any(site.workshop_word.lower() in label for label in lower):
        yield f"No event type's label contains {site.workshop_word!r} (workshop_word); {there}"
    if not lower & {label.lower() for label in site.instructor_labels}:
        yield f"No event type has one of the instructor_labels; {there}"


def _form(connection: Connection, site: Site) -> Iterator[str]:
    form = same_text(submission.c.webform_id, site.evaluation_webform)
    answers = (
        sa.select(submission.c.sid)
        .join(submission_data, submission_data.c.sid == submission.c.sid)
        .where(form, same_text(submission_data.c.name, site.recommend_field))
    )
    if not _any(connection, sa.select(submission.c.sid).where(form)):
        forms = connection.scalars(sa.select(submission.c.webform_id).distinct().limit(20)).all()
        yield (
            f"The form {site.evaluation_webform!r} (evaluation_webform) has no submissions; forms in use: "
            f"{', '.join(sorted(forms)) or 'none'}."
        )
    elif not _any(connection, answers):
        yield f"No submission answers {site.recommend_field!r} (recommend_field)."


def _indexes(connection: Connection, readable: set[str]) -> Iterator[Finding]:
    for table, columns, why in _INDEXES:
        if table.name not in readable or connection.dialect.name not in (*inspection.SERVERS, "sqlite"):
            continue
        rows = inspection.rows_about(connection, table)
        found = [index for index, _ in inspection.indexes(connection, table)]
        served = any(index[:1] == [columns[0]] and set(columns) <= set(index) for index in found)
        if rows >= LARGE and not served:
            name = inspection.name_of(connection, table.name)
            yield note(
                f"{name} has about {rows:,} rows and no index on ({', '.join(columns)}): {why}. "
                "An administrator can create one; kpibackfill never does."
            )


def _any(connection: Connection, statement: sa.Select[tuple[int]]) -> bool:
    return connection.execute(statement.limit(1)).first() is not None
