"""What is measured side by side: one module each, run by ``worker.py`` in its own environment.

A module may define:

- ``SETTINGS``: Django settings beside ``DATABASES``; ``APPS``: what goes into ``INSTALLED_APPS``;
- ``prepare(directory)``: returns more settings; may write files into ``directory``;
- ``make_field()``: the model field to measure; or, for a floor that is no field, ``codec()``: the functions that turn
  a str into what a column would hold, and back.
- ``read(field, raw, connection)``: opens a column value, where that isn't ``field.from_db_value``.
"""
