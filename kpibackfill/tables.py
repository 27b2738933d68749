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


def _table(name: str, metadata: sa.MetaData, /, **columns: Any) -> sa.Table:
    return sa.Table(name, metadata, *(sa.Column(column, kind) for column, kind in columns.items()))


# The snapshot module's layout has `source` and `created_at`, the dashboard module's `is_test` and `created`.
snapshot = _table(
    "ms_snapshot",
    store,
    id=sa.Integer,
    definition=sa.String(255),
    snapshot_type=sa.String(255),
    snapshot_date=sa.String(10),
    source=sa.String(32),
    created_at=sa.Integer,
    created=sa.Integer,
    is_test=sa.Integer,
)

org_fact = _table("ms_fact_org_snapshot", store, snapshot_id=sa.Integer, joins=sa.Integer)

# `meta` has no type here: SQLite can hold texts and blobs in it, and a before-image distinguishes them.
# `id` exists in only one of the table's two layouts.
kpi_fact = _table(
    "ms_fact_kpi_snapshot",
    store,
    id=sa.Integer,
    snapshot_id=sa.Integer,
    kpi_id=sa.String(128),
    metric_value=sa.Float,
    period_year=sa.Integer,
    period_month=sa.Integer,
    meta=None,
)

# Where the dashboard keeps what its pages show, PHP-serialized.
key_value = _table("key_value", store, collection=sa.String(128), name=sa.String(128), value=sa.LargeBinary)

cachetags = _table("cachetags", store, tag=sa.String(255), invalidations=sa.Integer)

event = _table(
    "civicrm_event", civicrm, id=sa.Integer, event_type_id=sa.Integer, start_date=sa.DateTime, is_active=sa.Integer
)

participant = _table(
    "civicrm_participant",
    civicrm,
    id=sa.Integer,
    contact_id=sa.Integer,
    event_id=sa.Integer,
    status_id=sa.Integer,
    is_test=sa.Integer,
)

participant_status = _table("civicrm_participant_status_type", civicrm, id=sa.Integer, is_counted=sa.Integer)

contact = _table("civicrm_contact", civicrm, id=sa.Integer, display_name=sa.String(128), is_deleted=sa.Integer)

option_group = _table("civicrm_option_group", civicrm, id=sa.Integer, name=sa.String(64))

option_value = _table(
    "civicrm_option_value", civicrm, option_group_id=sa.Integer, label=sa.String(512), value=sa.String(512)
)

uf_match = _table("civicrm_uf_match", civicrm, uf_id=sa.Integer, contact_id=sa.Integer)

user = _table("users_field_data", drupal, uid=sa.Integer, name=sa.String(60), status=sa.Integer)

user_role = _table("user__roles", drupal, entity_id=sa.Integer, roles_target_id=sa.String(255))

event_instructor = _table(
    "civicrm_event__field_civi_event_instructor",
    drupal,
    entity_id=sa.Integer,
    deleted=sa.Integer,
    field_civi_event_instructor_target_id=sa.Integer,
)

submission = _table(
    "webform_submission", drupal, sid=sa.Integer, webform_id=sa.String(32), in_draft=sa.Integer, created=sa.Integer
)

submission_data = _table("webform_submission_data", drupal, sid=sa.Integer, name=sa.String(128), value=sa.Text)


def stored_name(name: str, prefix: str) -> str:
    """The name of a table in a site's database: Drupal's tables have the site's prefix, all others are as named."""
    return prefix + name if name in store.tables or name in drupal.tables else name


def demographics(name: str, column: str | None = None) -> sa.Table:
    """The site's table of demographic answers; its name and its ethnicity column are settings."""
    answers = {} if column is None else {column: sa.Text}
    return _table(name, sa.MetaData(schema=CIVICRM), entity_id=sa.Integer, **answers)
