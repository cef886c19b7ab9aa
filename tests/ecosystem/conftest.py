"""The suite runs with settings of its own, so that no other test has the packages' apps."""

from django.conf import settings

collect_ignore = [] if "reversion" in settings.INSTALLED_APPS else ["suite"]
