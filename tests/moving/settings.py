"""The suite's settings, with an app whose migrations move a column, and no others."""

from tests.settings import *  # noqa: F403

INSTALLED_APPS = ["django_asherah", "tests.moving.movedapp"]
ROOT_URLCONF = "tests.moving.settings"
urlpatterns: list[object] = []
