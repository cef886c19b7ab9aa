"""``python -m tests.faults.uwsgi`` is uWSGI, of the interpreter under test."""

from __future__ import annotations

import pyuwsgi

pyuwsgi.run()
