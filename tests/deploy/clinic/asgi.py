"""Where ASGI servers find it."""

from tests.faults.site import asgi as application

__all__ = ["application"]
