"""Measures one contender; started by ``contender.py`` with the Python of the contender's own environment.

Reads one JSON object a line and answers each with one. The first is ``{"contender", "database", "directory"}``.
Of this project it imports ``timing`` only, so that a peer's environment needs nothing of ours.
"""

import importlib
import json
import random
import string
import sys
import traceback
from pathlib import Path

from timing import timed

sys.path[0] = str(Path(__file__).parent)


def main():
    """Answer until the input ends."""
    out = sys.stdout
    sys.stdout = sys.stderr
    work = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if work is None:
                work, reply = Work(**request), {}
            else:
                reply = getattr(work, request.pop("do"))(**request)
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=out, flush=True)


class Work:
    """One contender, its models and its measurements."""

    def __init__(self, contender, database, directory):
        self._contender = importlib.import_module(f"contenders.{contender}")
        self._set_up(database, directory)
        self._connection = self._connect()
        self._models = {}
        if hasattr(self._contender, "make_field"):
            self._models = {"one": self._model(contender, "one", 1), "five": self._model(contender, "five", 5)}
            self._rebuild_tables()
        self._encrypt, self._decrypt = self._codec()
        self._text = {}

    def _set_up(self, database, directory):
        import django
        from django.conf import settings

        prepare = getattr(self._contender, "prepare", lambda directory: {})
        settings.configure(
            SECRET_KEY="only for benchmarks",
            USE_TZ=True,
            DEBUG=False,
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            DATABASES={"default": database},
            INSTALLED_APPS=getattr(self._contender, "APPS", []),
            **getattr(self._contender, "SETTINGS", {}),
            **prepare(directory),
        )
        django.setup()

    def _connect(self):
        from django.core.management import call_command
        from django.db import connections

        if getattr(self._contender, "APPS", None):
            call_command("migrate", verbosity=0, skip_checks=True)
        return connections["default"]  # What Django hands to fields; django.db.connection is a proxy, and slow.

    def _model(self, contender, name, columns):
        from django.db import models

        fields = {f"f{place}": self._contender.make_field() for place in range(columns)}
        meta = type("Meta", (), {"app_label": "bench", "db_table": f"bench_{contender}_{name}"})
        return type(f"Bench{name.title()}", (models.Model,), {"__module__": __name__, "Meta": meta, **fields})

    def _rebuild_tables(self):
        existing = self._connection.introspection.table_names()
        with self._connection.schema_editor() as editor:
            for model in self._models.values():
                if model._meta.db_table in existing:
                    editor.delete_model(model)
                editor.create_model(model)

    def _codec(self):
        if not self._models:
            return self._contender.codec()
        field, connection = self._models["one"]._meta.get_field("f0"), self._connection
        instance = self._models["one"]()
        attribute, save, pre_save = field.attname, field.get_db_prep_save, field.pre_save

        def encrypt(value):
            instance.__dict__[attribute] = value
            return save(pre_save(instance, False), connection)

        if hasattr(self._contender, "read"):
            read = self._contender.read
            return encrypt, lambda raw: read(field, raw, connection)
        open_ = field.from_db_value
        return encrypt, lambda raw: open_(raw, None, connection)

    def values(self, size, count):
        """Return ``count`` random texts of ``size`` ASCII letters."""
        letters = random.Random(7)
        block = "".join(letters.choices(string.ascii_letters, k=size + count))
        return [block[place : place + size] for place in range(count)]

    def encrypt(self, size, count):
        """Return the seconds that it takes to turn ``count`` values into what goes to the database."""
        values, encrypt = self.values(size, count), self._encrypt
        return {"seconds": timed(lambda: [encrypt(value) for value in values])}

    def decrypt(self, size, count):
        """Return the seconds that it takes to read ``count`` values from what the database gives."""
        values, decrypt = self.values(size, count), self._decrypt
        stored = [self._as_read(self._encrypt(value)) for value in values]
        assert [decrypt(raw) for raw in stored] == values
        return {"seconds": timed(lambda: [decrypt(raw) for raw in stored])}

    def _as_read(self, raw):
        # Drivers take buffers of many kinds and give bytes; a driver's wrapper holds what it was given.
        raw = getattr(raw, "obj", raw) if not isinstance(raw, memoryview) else raw
        return bytes(raw) if isinstance(raw, bytes | bytearray | memoryview) else raw

    def create(self, model, rows):
        """Return the seconds of a ``bulk_create``, the table having been emptied before."""
        kind = self._models[model]
        kind.objects.all().delete()
        names = [field.attname for field in kind._meta.concrete_fields if not field.primary_key]
        values = self.values(100, rows)
        objects = [kind(**dict.fromkeys(names, value)) for value in values]
        return {"seconds": timed(lambda: kind.objects.bulk_create(objects, batch_size=1000))}

    def iterate(self, model, rows):
        """Return the seconds of reading every row and looking at each of its values."""
        kind = self._models[model]
        names = [field.attname for field in kind._meta.concrete_fields if not field.primary_key]
        seen = []

        def read():
            for row in kind.objects.iterator(chunk_size=2000):
                seen.extend(getattr(row, name) for name in names)

        seconds = timed(read)
        shown = getattr(self._contender, "shown", str)
        assert sorted(map(shown, seen)) == sorted(self.values(100, rows) * len(names))
        return {"seconds": seconds}

    def look(self, model, rows):
        """Return the seconds of reading every row and looking at none of its values."""
        kind = self._models[model]
        counted = []

        def read():
            counted.append(sum(1 for _ in kind.objects.iterator(chunk_size=2000)))

        seconds = timed(read)
        assert set(counted) == {rows}
        return {"seconds": seconds}

    def touch(self, model, rows):
        """Return the seconds of saving rows one by one, each with one of its columns changed."""
        from django.db import transaction

        kind = self._models[model]

        def save():
            with transaction.atomic():
                for row in kind.objects.order_by("pk"):
                    row.f0 = "y" * 100
                    row.save()
                transaction.set_rollback(True)

        return {"seconds": timed(save)}

    def stored_bytes(self):
        """Return the mean length of a column value, in bytes as the database counts them."""
        length = {
            "sqlite": "LENGTH(CAST(f0 AS BLOB))",
            "postgresql": "OCTET_LENGTH(f0)",
            "mysql": "LENGTH(f0)",
        }[self._connection.vendor]
        with self._connection.cursor() as cursor:
            cursor.execute(f"SELECT AVG({length}) FROM {self._models['one']._meta.db_table}")
            return {"bytes": float(cursor.fetchone()[0])}


if __name__ == "__main__":
    main()
