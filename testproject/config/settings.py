"""The clinic's settings, read from the environment. With nothing set: SQLite and a static master key.

==================================== =================================================================
variable                             meaning
==================================== =================================================================
``DATABASE_URL``                     the database, for example ``postgres://user@host:5432/name``
``ASHERAH_REGIONS``                  ``region=arn,region=arn``: use AWS KMS with these master keys
``ASHERAH_PREFERRED_REGION``         the region to ask first; the first of ``ASHERAH_REGIONS`` if not set
``ASHERAH_ENDPOINT_URLS``            ``region=url,region=url``: where KMS is, if it isn't AWS's own
``ASHERAH_SERVICE``                  ``clinic``
``ASHERAH_PRODUCT``                  ``records``
``SECRET_KEY``                       Django's
==================================== =================================================================
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import environ

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = env("SECRET_KEY", default="not a secret: this project is for trying things out")
DEBUG = env.bool("DEBUG", default=True)
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
USE_TZ = True
TIME_ZONE = "UTC"
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'clinic.sqlite3'}")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_asherah",
    "clinic",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "config.urls"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "static"

ASHERAH = {
    "SERVICE": env("ASHERAH_SERVICE", default="clinic"),
    "PRODUCT": env("ASHERAH_PRODUCT", default="records"),
}
if regions := env.dict("ASHERAH_REGIONS", default={}):
    ASHERAH |= {
        "REGIONS": regions,
        "PREFERRED_REGION": env("ASHERAH_PREFERRED_REGION", default=next(iter(regions))),
        "KMS_OPTIONS": {"endpoint_urls": env.dict("ASHERAH_ENDPOINT_URLS", default={})},
    }
else:
    # Anyone who reads this file knows this key: it is for development, and `check --deploy` refuses it.
    ASHERAH |= {"KMS": "static", "KMS_OPTIONS": {"key": hashlib.sha256(SECRET_KEY.encode()).hexdigest()}}
