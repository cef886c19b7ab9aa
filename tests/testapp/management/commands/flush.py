"""Django's ``flush``; that which ends each test of real transactions, in a tenth of its time."""

from __future__ import annotations

from typing import Any

from django.core.management.color import no_style
from django.core.management.commands import flush
from django.db import connections, transaction

from django_asherah import engine

KEPT = {"django_content_type", "auth_permission"}
"""What Django makes after ``migrate``, and after each of its flushes again; no test changes it."""


class Command(flush.Command):
    """Nearly all tables are empty, and the others short: PostgreSQL's TRUNCATE makes new files for every one."""

    def handle(self, **options: Any) -> None:
        """Delete the rows of the tables that have any, for Django's test case, which says ``reset_sequences=False``."""
        if options.get("reset_sequences", True):
            super().handle(**options)
            return
        engine.reset()  # As post_migrate does after Django's own.
        connection = connections[options["database"]]
        tables = set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - KEPT
        quoted = {connection.ops.quote_name(table): table for table in sorted(tables)}
        if not quoted:
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT " + ", ".join(f"EXISTS (SELECT 1 FROM {table})" for table in quoted))
            filled = [table for table, has_rows in zip(quoted, cursor.fetchone(), strict=True) if has_rows]
        if filled and connection.vendor == "postgresql":
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL DEFERRED; " + "; ".join(f"DELETE FROM {table}" for table in filled))
        elif filled:
            connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), [quoted[table] for table in filled]))
