import os

SERVER = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": os.environ["DATABASE_HOST"],
    "PORT": os.environ["DATABASE_PORT"],
    "NAME": os.environ["DATABASE_NAME"],
    "USER": os.environ["DATABASE_USER"],
}
POOLER = {
    "HOST": "127.0.0.1",
    "PORT": os.environ.get("PGBOUNCER_PORT", "6432"),
    "NAME": "clinic",
    "DISABLE_SERVER_SIDE_CURSORS": True,  # A cursor would outlive the transaction, and its connection.
}
DATABASES = {
    "default": {**SERVER, **POOLER, "ATOMIC_REQUESTS": True},
    "keys": SERVER,  # The same database, beside the pooler.
}
ASHERAH = {"DATABASE": "keys"}  # And what you have there already.
