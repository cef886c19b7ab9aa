"""The page's settings of django-tenants, with the key table in the schemas that ``KEY_SCHEMAS`` says."""

from __future__ import annotations

from tests.deploy.settings import *  # noqa: F403
from tests.deploy.settings import SHARED_APPS, TENANT_APPS, env  # type: ignore[attr-defined]

WHERE = env.str("KEY_SCHEMAS")
SHARED_APPS = [app for app in SHARED_APPS if app != "django_asherah" or WHERE in ("public", "both")]
TENANT_APPS = [*TENANT_APPS, *(["django_asherah"] if WHERE in ("tenants", "both") else [])]
INSTALLED_APPS = [*SHARED_APPS, *(app for app in TENANT_APPS if app not in SHARED_APPS)]
SILENCED_SYSTEM_CHECKS = env.list("SILENCED", default=[])
PUBLIC_SCHEMA_NAME = env.str("PUBLIC_SCHEMA", default="public")
TENANT_LIMIT_SET_CALLS = env.bool("LIMIT_SET_CALLS", default=False)
