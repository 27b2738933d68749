"""The tables that kpibackfill reads, and the one that it writes, as SQLAlchemy Core tables.

Only the columns in use are listed; a site's tables have many more. The store's tables belong to Drupal's snapshot
module, the ``civicrm_*`` tables to CiviCRM, the others to Drupal.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

store = sa.MetaData()  # the tables of the store, the others are those of the sources
drupal = sa.MetaData()
# CiviCRM may have its own database on the same server; a connection translates this schema name to the site's.
CIVICRM = "civicrm"
civicrm = sa.MetaData(schema=CIVICRM)

snapshot = sa.Table(
    "ms_snapshot",
    store,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("definition", sa.String(255)),
    sa.Column("snapshot_type", sa.String(255)),
    sa.Column("snapshot_date", sa.String(10)),
    sa.Column("source", sa.String(32)),
    sa.Column("created_at", sa.Integer),
)

org_fact = sa.Table(
    "ms_fact_org_snapshot",
    store,
    sa.Column("snapshot_id", sa.Integer, primary_key=True),
    sa.Column("joins", sa.Integer),
)

# `meta` has no type here: SQLite can hold texts and blobs in it, and a before-image distinguishes them.
# `id` exists in only one of the table's two layouts.
kpi_fact = sa.Table(
    "ms_fact_kpi_snapshot",
    store,
    sa.Column("id", sa.Integer),
    sa.Column("snapshot_id", sa.Integer),
    sa.Column("kpi_id", sa.String(128)),
    sa.Column("metric_value", sa.Float),
    sa.Column("period_year", sa.Integer),
    sa.Column("period_month", sa.Integer),
    sa.Column("meta"),
)

cachetags = sa.Table(
    "cachetags",
    store,
    sa.Column("tag", sa.String(255), primary_key=True),
    sa.Column("invalidations", sa.Integer),
)

event = sa.Table(
    "civicrm_event",
    civicrm,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("event_type_id", sa.Integer),
    sa.Column("start_date", sa.DateTime),
    sa.Column("is_active", sa.Integer),
)

participant = sa.Table(
    "civicrm_participant",
    civicrm,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("contact_id", sa.Integer),
    sa.Column("event_id", sa.Integer),
    sa.Column("status_id", sa.Integer),
    sa.Column("is_test", sa.Integer),
)

participant_status = sa.Table(
    "civicrm_participant_status_type",
    civicrm,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("is_counted", sa.Integer),
)

contact = sa.Table(
    "civicrm_contact",
    civicrm,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("display_name", sa.String(128)),
    sa.Column("is_deleted", sa.Integer),
)

option_group = sa.Table(
    "civicrm_option_group",
    civicrm,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64)),
)

option_value = sa.Table(
    "civicrm_option_value",
    civicrm,
    sa.Column("option_group_id", sa.Integer),
    sa.Column("label", sa.String(512)),
    sa.Column("value", sa.String(512)),
)

uf_match = sa.Table(
    "civicrm_uf_match",
    civicrm,
    sa.Column("uf_id", sa.Integer),
    sa.Column("contact_id", sa.Integer),
)

user = sa.Table(
    "users_field_data",
    drupal,
    sa.Column("uid", sa.Integer),
    sa.Column("name", sa.String(60)),
    sa.Column("status", sa.Integer),
)

user_role = sa.Table(
    "user__roles",
    drupal,
    sa.Column("entity_id", sa.Integer),
    sa.Column("roles_target_id", sa.String(255)),
)

event_instructor = sa.Table(
    "civicrm_event__field_civi_event_instructor",
    drupal,
    sa.Column("entity_id", sa.Integer),
    sa.Column("deleted", sa.Integer),
    sa.Column("field_civi_event_instructor_target_id", sa.Integer),
)

submission = sa.Table(
    "webform_submission",
    drupal,
    sa.Column("sid", sa.Integer, primary_key=True),
    sa.Column("webform_id", sa.String(32)),
    sa.Column("in_draft", sa.Integer),
    sa.Column("created", sa.Integer),
)

submission_data = sa.Table(
    "webform_submission_data",
    drupal,
    sa.Column("sid", sa.Integer),
    sa.Column("name", sa.String(128)),
    sa.Column("value", sa.Text),
)


def demographics(name: str, column: str | None = None) -> sa.Table:
    """The site's table of demographic answers; its name and its ethnicity column are settings."""
    columns: list[sa.Column[Any]] = [sa.Column("entity_id", sa.Integer)]
    if column is not None:
        columns.append(sa.Column(column, sa.Text))
    return sa.Table(name, sa.MetaData(schema=CIVICRM), *columns)
