import os

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "127.0.0.1",
        "PORT": os.environ.get("PGBOUNCER_PORT", "6432"),
        "NAME": "clinic",
        "USER": os.environ["DATABASE_USER"],
        "DISABLE_SERVER_SIDE_CURSORS": True,  # A cursor would outlive the transaction, and its connection.
    }
}
