-- The demo makerspace on SQLite: the snapshot module's store, then the CiviCRM and Drupal source tables,
-- with the names and columns that a real site has. Text compares by bytes here, unlike on MariaDB.
PRAGMA application_id = 0x6b706964; -- "kpid": what `kpibackfill demo` made, and may replace
CREATE TABLE ms_snapshot (
  id INTEGER NOT NULL PRIMARY KEY,
  definition TEXT NOT NULL,
  snapshot_type TEXT NOT NULL,
  snapshot_date TEXT NOT NULL,
  source TEXT NOT NULL DEFAULT 'system',
  created_at INTEGER DEFAULT NULL
);
CREATE UNIQUE INDEX ms_snapshot__def_date_source ON ms_snapshot (definition, snapshot_date, source);
CREATE INDEX ms_snapshot__type_date ON ms_snapshot (snapshot_type, snapshot_date);
CREATE INDEX ms_snapshot__definition ON ms_snapshot (definition);

CREATE TABLE ms_fact_org_snapshot (
  snapshot_id INTEGER NOT NULL PRIMARY KEY,
  members_total INTEGER NOT NULL DEFAULT 0,
  members_active INTEGER NOT NULL DEFAULT 0,
  members_paused INTEGER NOT NULL DEFAULT 0,
  members_lapsed INTEGER NOT NULL DEFAULT 0,
  joins INTEGER NOT NULL DEFAULT 0,
  cancels INTEGER NOT NULL DEFAULT 0,
  net_change INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE ms_fact_kpi_snapshot (
  snapshot_id INTEGER NOT NULL,
  kpi_id TEXT NOT NULL,
  metric_value REAL NOT NULL DEFAULT 0,
  period_year INTEGER NOT NULL DEFAULT 0,
  period_month INTEGER NOT NULL DEFAULT 0,
  meta BLOB DEFAULT NULL,
  PRIMARY KEY (snapshot_id, kpi_id)
);

CREATE TABLE civicrm_option_group (
  id INTEGER NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  title TEXT DEFAULT NULL,
  data_type TEXT DEFAULT NULL,
  is_reserved INTEGER NOT NULL DEFAULT 1,
  is_active INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX civicrm_option_group__UI_name ON civicrm_option_group (name);

CREATE TABLE civicrm_option_value (
  id INTEGER NOT NULL PRIMARY KEY,
  option_group_id INTEGER NOT NULL,
  label TEXT DEFAULT NULL,
  value TEXT NOT NULL,
  name TEXT DEFAULT NULL,
  weight INTEGER NOT NULL,
  is_default INTEGER DEFAULT 0,
  is_reserved INTEGER DEFAULT 0,
  is_active INTEGER DEFAULT 1
);
CREATE INDEX civicrm_option_value__index_option_group_id_value ON civicrm_option_value (value, option_group_id);
CREATE INDEX civicrm_option_value__index_option_group_id_name ON civicrm_option_value (name, option_group_id);
CREATE INDEX civicrm_option_value__FK_option_group ON civicrm_option_value (option_group_id);

CREATE TABLE civicrm_contact (
  id INTEGER NOT NULL PRIMARY KEY,
  contact_type TEXT DEFAULT NULL,
  display_name TEXT DEFAULT NULL,
  gender_id INTEGER DEFAULT NULL,
  birth_date TEXT DEFAULT NULL,
  is_deleted INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX civicrm_contact__UI_gender ON civicrm_contact (gender_id);
CREATE INDEX civicrm_contact__index_is_deleted_sort_name ON civicrm_contact (is_deleted, id);

CREATE TABLE civicrm_event (
  id INTEGER NOT NULL PRIMARY KEY,
  title TEXT DEFAULT NULL,
  event_type_id INTEGER DEFAULT 0,
  start_date TEXT DEFAULT NULL,
  end_date TEXT DEFAULT NULL,
  max_participants INTEGER DEFAULT NULL,
  is_active INTEGER DEFAULT 1,
  is_template INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX civicrm_event__index_event_type_id ON civicrm_event (event_type_id);

CREATE TABLE civicrm_participant_status_type (
  id INTEGER NOT NULL PRIMARY KEY,
  name TEXT DEFAULT NULL,
  label TEXT DEFAULT NULL,
  class TEXT DEFAULT NULL,
  is_reserved INTEGER DEFAULT NULL,
  is_active INTEGER DEFAULT 1,
  is_counted INTEGER DEFAULT NULL,
  weight INTEGER NOT NULL
);

CREATE TABLE civicrm_participant (
  id INTEGER NOT NULL PRIMARY KEY,
  contact_id INTEGER NOT NULL,
  event_id INTEGER NOT NULL,
  status_id INTEGER NOT NULL DEFAULT 1,
  role_id TEXT DEFAULT NULL,
  register_date TEXT DEFAULT NULL,
  source TEXT DEFAULT NULL,
  is_test INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX civicrm_participant__index_status_id ON civicrm_participant (status_id);
CREATE INDEX civicrm_participant__index_role_id ON civicrm_participant (role_id);
CREATE INDEX civicrm_participant__FK_civicrm_participant_contact_id ON civicrm_participant (contact_id);
CREATE INDEX civicrm_participant__FK_civicrm_participant_event_id ON civicrm_participant (event_id);

CREATE TABLE civicrm_value_demographics_15 (
  id INTEGER NOT NULL PRIMARY KEY,
  entity_id INTEGER NOT NULL,
  custom_46 TEXT DEFAULT NULL
);
CREATE UNIQUE INDEX civicrm_value_demographics_15__unique_entity_id ON civicrm_value_demographics_15 (entity_id);

CREATE TABLE civicrm_uf_match (
  id INTEGER NOT NULL PRIMARY KEY,
  domain_id INTEGER NOT NULL,
  uf_id INTEGER NOT NULL,
  uf_name TEXT DEFAULT NULL,
  contact_id INTEGER DEFAULT NULL,
  language TEXT DEFAULT NULL
);
CREATE UNIQUE INDEX civicrm_uf_match__UI_uf_name_domain_id ON civicrm_uf_match (uf_name, domain_id);
CREATE UNIQUE INDEX civicrm_uf_match__UI_contact_domain_id ON civicrm_uf_match (contact_id, domain_id);
CREATE INDEX civicrm_uf_match__I_civicrm_uf_match_uf_id ON civicrm_uf_match (uf_id);

CREATE TABLE users_field_data (
  uid INTEGER NOT NULL,
  langcode TEXT NOT NULL,
  name TEXT NOT NULL,
  mail TEXT DEFAULT NULL,
  status INTEGER DEFAULT NULL,
  created INTEGER NOT NULL,
  changed INTEGER DEFAULT NULL,
  default_langcode INTEGER NOT NULL,
  PRIMARY KEY (uid, langcode)
);
CREATE UNIQUE INDEX users_field_data__user__name ON users_field_data (name, langcode);

CREATE TABLE user__roles (
  bundle TEXT NOT NULL DEFAULT '',
  deleted INTEGER NOT NULL DEFAULT 0,
  entity_id INTEGER NOT NULL,
  revision_id INTEGER NOT NULL,
  langcode TEXT NOT NULL DEFAULT '',
  delta INTEGER NOT NULL,
  roles_target_id TEXT NOT NULL,
  PRIMARY KEY (entity_id, deleted, delta, langcode)
);
CREATE INDEX user__roles__bundle ON user__roles (bundle);
CREATE INDEX user__roles__roles_target_id ON user__roles (roles_target_id);

CREATE TABLE civicrm_event__field_civi_event_instructor (
  bundle TEXT NOT NULL DEFAULT '',
  deleted INTEGER NOT NULL DEFAULT 0,
  entity_id INTEGER NOT NULL,
  revision_id INTEGER NOT NULL,
  langcode TEXT NOT NULL DEFAULT '',
  delta INTEGER NOT NULL,
  field_civi_event_instructor_target_id INTEGER NOT NULL,
  PRIMARY KEY (entity_id, deleted, delta, langcode)
);
CREATE INDEX civicrm_event__field_civi_event_instructor__bundle ON civicrm_event__field_civi_event_instructor (bundle);
CREATE INDEX civicrm_event__field_civi_event_instructor__target_id ON civicrm_event__field_civi_event_instructor (field_civi_event_instructor_target_id);

CREATE TABLE webform_submission (
  sid INTEGER NOT NULL PRIMARY KEY,
  webform_id TEXT NOT NULL,
  uuid TEXT NOT NULL,
  langcode TEXT NOT NULL,
  serial INTEGER DEFAULT NULL,
  created INTEGER DEFAULT NULL,
  completed INTEGER DEFAULT NULL,
  changed INTEGER DEFAULT NULL,
  in_draft INTEGER DEFAULT NULL,
  uid INTEGER DEFAULT NULL
);
CREATE UNIQUE INDEX webform_submission__uuid ON webform_submission (uuid);
CREATE INDEX webform_submission__webform_id ON webform_submission (webform_id);
CREATE INDEX webform_submission__uid ON webform_submission (uid);

CREATE TABLE webform_submission_data (
  webform_id TEXT NOT NULL,
  sid INTEGER NOT NULL DEFAULT 0,
  name TEXT NOT NULL,
  property TEXT NOT NULL DEFAULT '',
  delta INTEGER NOT NULL DEFAULT 0,
  value TEXT NOT NULL,
  PRIMARY KEY (sid, name, property, delta)
);
CREATE INDEX webform_submission_data__webform_id ON webform_submission_data (webform_id);
CREATE INDEX webform_submission_data__sid_webform_id ON webform_submission_data (sid, webform_id);

CREATE TABLE cachetags (
  tag TEXT NOT NULL PRIMARY KEY,
  invalidations INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE key_value (
  collection TEXT NOT NULL DEFAULT '',
  name TEXT NOT NULL DEFAULT '',
  value BLOB NOT NULL,
  PRIMARY KEY (collection, name)
);
