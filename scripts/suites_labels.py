"""What is run of Django's suites, and with which kinds of fields encrypted."""

from __future__ import annotations

KINDS = ("TextField", "CharField", "JSONField")
"""The classes of Django's that are swapped for their encrypted twins."""

LABELS = [
    *("model_fields", "queries", "expressions", "expressions_case", "aggregation", "annotations"),
    *("bulk_create", "update", "update_only_fields", "defer", "defer_regress", "get_or_create", "delete"),
    *("model_forms", "model_formsets", "inline_formsets", "modeladmin", "admin_inlines"),
    *("serializers", "fixtures", "fixtures_regress", "composite_pk"),
    *("migrations", "schema", "lookup", "basic", "select_related", "prefetch_related"),
    *("custom_managers", "model_inheritance", "many_to_one", "signals", "validation", "raw_query", "generic_views"),
]
