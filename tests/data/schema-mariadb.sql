-- MariaDB: the tables that kpibackfill reads and writes, with the types that Drupal and CiviCRM give them
-- (civicrm_* reduced to the relevant columns, with the usual indexes).
CREATE TABLE ms_snapshot (
  id int(11) NOT NULL AUTO_INCREMENT,
  definition varchar(255) NOT NULL,
  snapshot_type varchar(255) NOT NULL,
  snapshot_date varchar(10) NOT NULL,
  source varchar(32) NOT NULL DEFAULT 'system',
  created_at int(11) DEFAULT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY def_date_source (definition, snapshot_date, source),
  KEY type_date (snapshot_type(191), snapshot_date),
  KEY definition (definition(191))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
CREATE TABLE ms_fact_org_snapshot (
  snapshot_id int(11) NOT NULL,
  members_total int(11) NOT NULL DEFAULT 0,
  members_active int(11) NOT NULL DEFAULT 0,
  members_paused int(11) NOT NULL DEFAULT 0,
  members_lapsed int(11) NOT NULL DEFAULT 0,
  joins int(11) NOT NULL DEFAULT 0,
  cancels int(11) NOT NULL DEFAULT 0,
  net_change int(11) NOT NULL DEFAULT 0,
  PRIMARY KEY (snapshot_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
CREATE TABLE ms_fact_kpi_snapshot (
  snapshot_id int(11) NOT NULL,
  kpi_id varchar(128) NOT NULL,
  metric_value float NOT NULL DEFAULT 0,
  period_year int(11) NOT NULL DEFAULT 0,
  period_month int(11) NOT NULL DEFAULT 0,
  meta blob DEFAULT NULL,
  PRIMARY KEY (snapshot_id, kpi_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
CREATE TABLE civicrm_option_group (
  id int(10) unsigned NOT NULL AUTO_INCREMENT,
  name varchar(64) NOT NULL,
  title varchar(255) DEFAULT NULL,
  data_type varchar(128) DEFAULT NULL,
  is_reserved tinyint(4) NOT NULL DEFAULT 1,
  is_active tinyint(4) NOT NULL DEFAULT 1,
  PRIMARY KEY (id), UNIQUE KEY UI_name (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE civicrm_option_value (
  id int(10) unsigned NOT NULL AUTO_INCREMENT,
  option_group_id int(10) unsigned NOT NULL,
  label varchar(512) DEFAULT NULL,
  value varchar(512) NOT NULL,
  name varchar(255) DEFAULT NULL,
  weight int(10) unsigned NOT NULL,
  is_default tinyint(4) DEFAULT 0,
  is_reserved tinyint(4) DEFAULT 0,
  is_active tinyint(4) DEFAULT 1,
  PRIMARY KEY (id),
  KEY index_option_group_id_value (value(128), option_group_id),
  KEY index_option_group_id_name (name(128), option_group_id),
  KEY FK_option_group (option_group_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE civicrm_contact (
  id int(10) unsigned NOT NULL AUTO_INCREMENT,
  contact_type varchar(64) DEFAULT NULL,
  display_name varchar(128) DEFAULT NULL,
  gender_id int(10) unsigned DEFAULT NULL,
  birth_date date DEFAULT NULL,
  is_deleted tinyint(4) NOT NULL DEFAULT 0,
  PRIMARY KEY (id),
  KEY UI_gender (gender_id),
  KEY index_is_deleted_sort_name (is_deleted, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE civicrm_event (
  id int(10) unsigned NOT NULL AUTO_INCREMENT,
  title varchar(255) DEFAULT NULL,
  event_type_id int(10) unsigned DEFAULT 0,
  start_date datetime DEFAULT NULL,
  end_date datetime DEFAULT NULL,
  max_participants int(10) unsigned DEFAULT NULL,
  is_active tinyint(4) DEFAULT 1,
  is_template tinyint(4) NOT NULL DEFAULT 0,
  PRIMARY KEY (id),
  KEY index_event_type_id (event_type_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE civicrm_participant_status_type (
  id int(10) unsigned NOT NULL AUTO_INCREMENT,
  name varchar(64) DEFAULT NULL,
  label varchar(255) DEFAULT NULL,
  class varchar(15) DEFAULT NULL,
  is_reserved tinyint(4) DEFAULT NULL,
  is_active tinyint(4) DEFAULT 1,
  is_counted tinyint(4) DEFAULT NULL,
  weight int(10) unsigned NOT NULL,
  PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE civicrm_participant (
  id int(10) unsigned NOT NULL AUTO_INCREMENT,
  contact_id int(10) unsigned NOT NULL,
  event_id int(10) unsigned NOT NULL,
  status_id int(10) unsigned NOT NULL DEFAULT 1,
  role_id varchar(128) DEFAULT NULL,
  register_date datetime DEFAULT NULL,
  source varchar(128) DEFAULT NULL,
  is_test tinyint(4) NOT NULL DEFAULT 0,
  PRIMARY KEY (id),
  KEY index_status_id (status_id),
  KEY index_role_id (role_id),
  KEY FK_civicrm_participant_contact_id (contact_id),
  KEY FK_civicrm_participant_event_id (event_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE civicrm_value_demographics_15 (
  id int(10) unsigned NOT NULL AUTO_INCREMENT,
  entity_id int(10) unsigned NOT NULL,
  custom_46 varchar(255) DEFAULT NULL,
  PRIMARY KEY (id), UNIQUE KEY unique_entity_id (entity_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE civicrm_uf_match (
  id int(10) unsigned NOT NULL AUTO_INCREMENT,
  domain_id int(10) unsigned NOT NULL,
  uf_id int(10) unsigned NOT NULL,
  uf_name varchar(128) DEFAULT NULL,
  contact_id int(10) unsigned DEFAULT NULL,
  language varchar(5) DEFAULT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY UI_uf_name_domain_id (uf_name, domain_id),
  UNIQUE KEY UI_contact_domain_id (contact_id, domain_id),
  KEY I_civicrm_uf_match_uf_id (uf_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE users_field_data (
  uid int(10) unsigned NOT NULL,
  langcode varchar(12) NOT NULL,
  name varchar(60) NOT NULL,
  mail varchar(254) DEFAULT NULL,
  status tinyint(4) DEFAULT NULL,
  created int(11) NOT NULL,
  changed int(11) DEFAULT NULL,
  default_langcode tinyint(4) NOT NULL,
  PRIMARY KEY (uid, langcode),
  UNIQUE KEY user__name (name, langcode)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
CREATE TABLE user__roles (
  bundle varchar(128) NOT NULL DEFAULT '',
  deleted tinyint(4) NOT NULL DEFAULT 0,
  entity_id int(10) unsigned NOT NULL,
  revision_id int(10) unsigned NOT NULL,
  langcode varchar(32) NOT NULL DEFAULT '',
  delta int(10) unsigned NOT NULL,
  roles_target_id varchar(255) NOT NULL,
  PRIMARY KEY (entity_id, deleted, delta, langcode),
  KEY bundle (bundle), KEY roles_target_id (roles_target_id(191))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
CREATE TABLE civicrm_event__field_civi_event_instructor (
  bundle varchar(128) NOT NULL DEFAULT '',
  deleted tinyint(4) NOT NULL DEFAULT 0,
  entity_id int(10) unsigned NOT NULL,
  revision_id int(10) unsigned NOT NULL,
  langcode varchar(32) NOT NULL DEFAULT '',
  delta int(10) unsigned NOT NULL,
  field_civi_event_instructor_target_id int(10) unsigned NOT NULL,
  PRIMARY KEY (entity_id, deleted, delta, langcode),
  KEY bundle (bundle), KEY target_id (field_civi_event_instructor_target_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
CREATE TABLE webform_submission (
  sid int(10) unsigned NOT NULL AUTO_INCREMENT,
  webform_id varchar(32) NOT NULL,
  uuid varchar(128) NOT NULL,
  langcode varchar(12) NOT NULL,
  serial int(10) unsigned DEFAULT NULL,
  created int(11) DEFAULT NULL,
  completed int(11) DEFAULT NULL,
  changed int(11) DEFAULT NULL,
  in_draft tinyint(4) DEFAULT NULL,
  uid int(10) unsigned DEFAULT NULL,
  PRIMARY KEY (sid),
  UNIQUE KEY uuid (uuid),
  KEY webform_id (webform_id), KEY uid (uid)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
CREATE TABLE webform_submission_data (
  webform_id varchar(32) NOT NULL,
  sid int(10) unsigned NOT NULL DEFAULT 0,
  name varchar(128) NOT NULL,
  property varchar(128) NOT NULL DEFAULT '',
  delta int(10) unsigned NOT NULL DEFAULT 0,
  value mediumtext NOT NULL,
  PRIMARY KEY (sid, name, property, delta),
  KEY webform_id (webform_id), KEY sid_webform_id (sid, webform_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
