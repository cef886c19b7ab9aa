"""The router of a deployment with one replica."""

from __future__ import annotations

from typing import Any


class ReplicaRouter:
    """Reads from the replica, writes to the primary."""

    def db_for_read(self, model: type, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: type, **hints: Any) -> str:
        return "default"

    def allow_relation(self, left: object, right: object, **hints: Any) -> bool:
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "default"
