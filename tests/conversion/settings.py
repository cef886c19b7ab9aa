"""The suite's settings, with an app whose migrations convert a column, and no others."""

from tests.settings import *  # noqa: F403

INSTALLED_APPS = ["django_asherah", "tests.conversion.movedapp"]
ROOT_URLCONF = "tests.conversion.settings"
urlpatterns: list[object] = []
