"""The suite's settings, with the packages that people use beside encrypted fields."""

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS = [
    *INSTALLED_APPS,
    "rest_framework",
    "django_filters",
    "import_export",
    "simple_history",
    "reversion",
    "auditlog",
    "tests.ecosystem.suite",
]
if DATABASES["default"]["ENGINE"] != "django.db.backends.sqlite3":
    DATABASES["default"]["NAME"] += "_ecosystem"
ROOT_URLCONF = "tests.ecosystem.suite.urls"
