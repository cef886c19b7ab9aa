"""django-simple-history, django-reversion and django-auditlog: where do copies of the values go?"""

from __future__ import annotations

from typing import Any

import pytest
import reversion
from auditlog.models import LogEntry
from django.db import connection, models
from reversion.models import Version

from tests.ecosystem.suite.models import (
    Historical,
    Logged,
    LoggedMasked,
    LoggedThatItChanged,
    LoggedWhole,
    LoggedWholeMasked,
    LoggedWholeWithout,
    LoggedWithout,
    Versioned,
    VersionedWithout,
)

pytestmark = pytest.mark.django_db

PLAINTEXT = "900-12-3456"


def everything(model: type[models.Model]) -> str:
    """Return all that a model's table holds, as the database has it."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {model._meta.db_table}")
        return str(cursor.fetchall())


def changed(model: Any) -> Any:
    """Save an instance twice."""
    instance = model(name="a", secret=PLAINTEXT, doc={"ssn": PLAINTEXT})
    instance.save()
    instance.secret, instance.doc = PLAINTEXT[::-1], {"ssn": PLAINTEXT[::-1]}
    instance.save()
    return instance


class TestSimpleHistory:
    def test_the_history_holds_records_only(self) -> None:
        instance = changed(Historical)
        stored = everything(Historical.history.model)
        assert PLAINTEXT not in stored
        assert PLAINTEXT[::-1] not in stored
        assert stored.count("_IK_default_suite_tests") == 4
        assert [version.secret for version in instance.history.order_by("history_id")] == [PLAINTEXT, PLAINTEXT[::-1]]

    def test_differences_and_going_back(self) -> None:
        instance = changed(Historical)
        new, old = instance.history.order_by("-history_id")
        assert sorted(new.diff_against(old).changed_fields) == ["doc", "secret"]
        old.instance.save()
        instance.refresh_from_db()
        assert instance.secret == PLAINTEXT


class TestReversion:
    def test_as_it_is_it_writes_plaintext(self) -> None:
        with reversion.create_revision():
            changed(Versioned)
        assert PLAINTEXT[::-1] in everything(Version)

    def test_excluded_fields_are_kept_out(self) -> None:
        with reversion.create_revision():
            changed(VersionedWithout)
        assert Version.objects.count() == 1
        assert PLAINTEXT[::-1] not in everything(Version)

    def test_but_going_back_empties_them(self) -> None:
        with reversion.create_revision():
            instance = changed(VersionedWithout)
        Version.objects.get().revert()
        instance.refresh_from_db()
        assert (instance.secret, instance.doc) == (None, {})


class TestAuditlog:
    def test_as_it_is_it_writes_plaintext(self) -> None:
        changed(Logged)
        assert PLAINTEXT in everything(LogEntry)

    def test_its_own_mask_leaves_half_of_the_value(self) -> None:
        changed(LoggedMasked)
        assert PLAINTEXT not in everything(LogEntry)
        assert PLAINTEXT[len(PLAINTEXT) // 2 :] in everything(LogEntry)

    def test_excluded_fields_are_kept_out(self) -> None:
        changed(LoggedWithout)
        assert LogEntry.objects.count() == 1
        assert PLAINTEXT[-6:] not in everything(LogEntry)

    def test_a_mask_of_ones_own_tells_that_they_changed_and_nothing_else(self) -> None:
        changed(LoggedThatItChanged)
        _, update = LogEntry.objects.order_by("id")
        assert update.changes == {"secret": ["(encrypted)"] * 2, "doc": ["(encrypted)"] * 2}
        assert PLAINTEXT[-6:] not in everything(LogEntry)

    @pytest.mark.parametrize("model", [LoggedWhole, LoggedWholeMasked])
    def test_copies_of_the_row_hold_plaintext_whatever_is_excluded_or_masked(self, model: type[models.Model]) -> None:
        changed(model)
        assert PLAINTEXT in everything(LogEntry)

    def test_copies_of_the_row_may_keep_to_the_fields_of_the_log(self) -> None:
        changed(LoggedWholeWithout)
        assert LogEntry.objects.get().serialized_data["fields"] == {"name": "a"}
        assert PLAINTEXT[-6:] not in everything(LogEntry)
