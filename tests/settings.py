"""Settings of the test suite. ``DATABASE_URL`` chooses the database; SQLite in memory when it is not set."""

from __future__ import annotations

import environ

from tests.other_libraries import keys

env = environ.Env()

SECRET_KEY = "only for tests"
USE_TZ = True
DEBUG = False
DATABASES = {
    "default": env.db("DATABASE_URL", default="sqlite://:memory:"),
    # A second database, so that data and keys can be apart.
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Django's own hasher is slow on purpose, and each test of the admin makes a user.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_asherah",
    "tests.testapp",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
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
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
ASHERAH = {
    "SERVICE": "suite",
    "PRODUCT": "tests",
    "KMS": "static",
    "KMS_OPTIONS": {"key": "5a" * 32},
}

# The keys of the libraries that tests/other_libraries leaves. Some of them are read when a library is imported.
globals().update(keys.settings("in use", "older"))
