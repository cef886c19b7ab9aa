"""System checks. Their ids are stable: users silence checks by them.

================ ===== ======================================================================================
id               when  what
================ ===== ======================================================================================
asherah.E001           ``settings.ASHERAH`` is missing or not a dict
asherah.E002           an unknown setting
asherah.E003           ``SERVICE`` or ``PRODUCT`` is not set
asherah.E004           ``SERVICE``, ``PRODUCT``, ``KEY_SUFFIX`` or one of ``READ_SUFFIXES`` can't be part of a key id
asherah.E005           ``PARTITION`` can't be part of a key id
asherah.E006           ``KMS_OPTIONS`` is not a dict, or an option in it is unknown or wrong
asherah.E007           ``KMS`` is neither a known name nor a dotted path
asherah.E008           ``METASTORE`` is neither a known name nor a dotted path
asherah.E009           ``DATABASE`` is not in ``settings.DATABASES``
asherah.E010           ``REGIONS`` is empty or not a dict
asherah.E011           a region's ARN is not the ARN of a KMS key
asherah.E012           a region's ARN belongs to another region
asherah.E013           ``PREFERRED_REGION`` is not in ``REGIONS``
asherah.E014           the static key is not 64 hex digits
asherah.E015           ``EXPIRE_KEY_AFTER``, ``REVOKE_CHECK_INTERVAL`` or ``KEY_CACHE_SIZE`` is wrong
asherah.E016           ``METASTORE_OPTIONS`` is not a dict, or an option in it is unknown
asherah.E017           ``PARTITION_GUARD`` is not the dotted path of a function, or the middleware needs it
asherah.E018           django-tenants makes a key table in each tenant's schema
asherah.W001           ``REGIONS`` names only one region
asherah.W002           key ids are ambiguous: a name holds ``_``, or ids of two suffixes, or of two services, can be one
asherah.W003           ``PARTITION_GUARD`` is set, and the middleware is missing
asherah.E020     (d)   the static KMS
asherah.E021     (d)   a KMS endpoint on this very machine, or one without TLS
asherah.E022     (d)   the metastore in memory
asherah.E023     (d)   a DynamoDB endpoint on this very machine, or one without TLS
asherah.E030     (db)  the key table can't be read
asherah.E031     (db)  the key table lacks a column
asherah.E032     (db)  a column's type in the key table can't hold what belongs there
asherah.E033     (db)  key ids are not compared byte for byte, or not in Unicode
asherah.E034     (db)  nothing keeps (``id``, ``created``) unique
asherah.W031     (db)  the key table is missing
asherah.W032     (db)  the key table lacks the column that the admin needs
asherah.W030     (db)  a column's type works for us, but not for every official SDK
asherah.W035     (db)  the key table depends on the server's time zone, which is not UTC
asherah.W036     (db)  MySQL or MariaDB would cut encrypted values, as its sessions are not strict
asherah.E101           ``unique`` on an encrypted field
asherah.E102           ``primary_key`` on an encrypted field
asherah.E103           ``db_index`` on an encrypted field
asherah.E104           ``db_default`` on an encrypted field
asherah.W105           ``allow_plaintext`` is on
asherah.E105           ``Meta.ordering`` or ``Meta.get_latest_by`` names an encrypted field
asherah.E106           ``Meta.unique_together`` names an encrypted field
asherah.E107           a constraint uses an encrypted field for more than whether it is NULL
asherah.E108           an index names an encrypted field
asherah.E109           ``unique_for_date``, ``unique_for_month`` or ``unique_for_year`` with an encrypted field
asherah.E110           a ``GeneratedField`` is computed from an encrypted field
asherah.E118           a ``GenericForeignKey`` keeps its object id in an encrypted field
asherah.E120           a partition template names no column of the model
asherah.E121           a partition template names a column that may be NULL
asherah.E122           a partition template names a column whose value is made by the database or by the save
asherah.E123           a partition template names a column whose values have no one text
asherah.E124           a partition template names a column whose collation ignores case
asherah.E125           a partition template names a foreign key that changes when its target is deleted
asherah.E126           a partition template could make one partition of different rows
asherah.E127           a partition template names a column of another table
asherah.W128           a partition template names a foreign key whose rows the database deletes
asherah.E111           ``ModelAdmin.search_fields`` names an encrypted field
asherah.E112           ``ModelAdmin.list_filter`` names an encrypted field
asherah.E113           ``ordering`` of a ``ModelAdmin`` or of an inline names an encrypted field
asherah.E114           ``ModelAdmin.date_hierarchy`` names an encrypted field
asherah.E115           ``ModelAdmin.sortable_by``, or the ordering of a column, names an encrypted field
asherah.W115           ``ModelAdmin.list_display`` names an encrypted field, and its heading can be clicked
asherah.W116           django-reversion writes an encrypted field into its versions in plaintext
asherah.W117           django-auditlog writes an encrypted field into its log in plaintext
asherah.E130           a model admin shows an encrypted file whose storage has no ``base_url``
================ ===== ======================================================================================

(d) only with ``check --deploy``; (db) only with ``check --database``. None needs a KMS, a key or a network, and only
those marked (db) need a database.
"""

from django_asherah.checks import admin, copies, files, guard, models, sessions, settings, table, tenants

__all__ = ["admin", "copies", "files", "guard", "models", "sessions", "settings", "table", "tenants"]
