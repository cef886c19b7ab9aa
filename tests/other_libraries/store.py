"""Says what the fields of libraries store under keys, or in releases, that only this process has.

Reads one JSON object, ``{"settings": {…}, "fields": {package: [import, field]}, "value": text}``, and answers with
``{package: ["text", what is stored] or ["bytes", that in base64]}``.
"""

import base64
import json
import sys

import django
from django.conf import settings


def stored(field, value):
    from django.db import connection

    raw = field.get_db_prep_save(value, connection)
    return ("text", raw) if isinstance(raw, str) else ("bytes", base64.b64encode(bytes(raw)).decode())


def main():
    request = json.load(sys.stdin)
    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    settings.configure(DATABASES=databases, **request["settings"])
    django.setup()
    answer = {}
    for package, (imports, field) in request["fields"].items():
        names = {}
        exec(f"from django.db import models\n{imports}\nfield = {field}", names)
        answer[package] = stored(names["field"], request["value"])
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
