"""For the tests of projects that use django-asherah: keys without a network, a database or AWS."""

from django_asherah.testing.kms import FakeKMS
from django_asherah.testing.override import override_asherah

__all__ = ["FakeKMS", "override_asherah"]
