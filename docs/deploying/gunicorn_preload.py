# gunicorn --config gunicorn_preload.py clinic.wsgi
workers = 2
threads = 8
preload_app = True


def when_ready(server):
    """Open the keys in the parent, before it forks the workers, and leave them no connection of its own."""
    from django.db import connections

    from django_asherah import engine

    engine.get_factory().current_keys(["default"])
    connections.close_all()
