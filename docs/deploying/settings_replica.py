import os

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["DATABASE_HOST"],
        "PORT": os.environ["DATABASE_PORT"],
        "NAME": os.environ["DATABASE_NAME"],
        "USER": os.environ["DATABASE_USER"],
    },
    "replica": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["REPLICA_HOST"],
        "PORT": os.environ["DATABASE_PORT"],
        "NAME": os.environ["DATABASE_NAME"],
        "USER": os.environ["REPLICA_USER"],
    },
}
DATABASE_ROUTERS = ["clinic.routers.ReplicaRouter"]
