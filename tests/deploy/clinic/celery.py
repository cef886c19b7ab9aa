"""Where ``celery --app clinic`` finds the app, whose keys nobody opens beforehand."""

from celery import signals

from tests.faults.site import celery as app
from tests.faults.site import open_keys_before_the_pool

signals.worker_init.disconnect(open_keys_before_the_pool)

__all__ = ["app"]
