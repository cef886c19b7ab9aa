"""Where WSGI servers find the application."""

from tests.faults.site import wsgi as application

__all__ = ["application"]
