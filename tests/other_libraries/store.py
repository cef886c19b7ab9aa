"""Says what the fields of libraries store under keys, or in releases, that only this process has.

Reads one JSON object, ``{"settings": {…}, "path": [folder], "fields": {package: [import, field]}, "values": [text]}``,
and answers with ``{package: [["text", what is stored] or ["bytes", that in base64]]}``.
"""

import base64
import json
import os
import sys

import django
from django.conf import settings


def stored(field, value):
    from django.db import connection

    raw = field.get_db_prep_save(value, connection)
    return ("text", raw) if isinstance(raw, str) else ("bytes", base64.b64encode(bytes(raw)).decode())


def main():
    request = json.load(sys.stdin)
    sys.path += request["path"]
    os.environ["ENV"] = "test"  # Without which hyperscale-crypto takes no keys in clear.
    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    settings.configure(DATABASES=databases, **request["settings"])
    django.setup()
    from django.db import models

    answer = {}
    for package, (imports, field) in request["fields"].items():
        names = {"models": models}
        exec(
            f"{imports}\nclass Patient(models.Model):\n    ssn = {field}\n    class Meta: app_label = 'testapp'", names
        )
        column = names["Patient"]._meta.get_field("ssn")
        answer[package] = [stored(column, value) for value in request["values"]]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
