"""The check that finds what ``test_history`` shows: who writes encrypted fields in clear, and nobody else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from auditlog.registry import auditlog
from django.apps import apps
from django.core.management import call_command
from reversion import revisions

from django_asherah.checks.copies import check_copies
from django_asherah.fields import EncryptedFieldMixin
from tests.ecosystem.suite import models as suite
from tests.ecosystem.suite.models import Historical, Patient


def found() -> list[tuple[str | None, str]]:
    """Return the ids of the messages, each with the field that it names."""
    return sorted((message.id, message.msg.split("suite.")[1].split()[0]) for message in check_copies(None))


def test_each_field_that_is_written_in_clear_is_a_warning() -> None:
    assert found() == [
        ("asherah.W116", "Versioned.doc"),
        ("asherah.W116", "Versioned.secret"),
        ("asherah.W117", "Logged.doc"),
        ("asherah.W117", "Logged.secret"),
        ("asherah.W117", "LoggedMasked.doc"),
        ("asherah.W117", "LoggedMasked.secret"),
        ("asherah.W117", "LoggedWhole.doc"),
        ("asherah.W117", "LoggedWhole.secret"),
        ("asherah.W117", "LoggedWholeMasked.doc"),
        ("asherah.W117", "LoggedWholeMasked.secret"),
    ]
    assert not any(message.is_serious() for message in check_copies(None))


def test_they_say_who_writes_what() -> None:
    first, *_, last = check_copies(None)
    assert (first.msg, first.obj) == (
        "django-reversion writes the encrypted field suite.Versioned.secret into its versions in plaintext.",
        suite.Versioned,
    )
    assert (last.msg, last.obj) == (
        "django-auditlog writes the encrypted field suite.LoggedWholeMasked.doc into its log in plaintext.",
        suite.LoggedWholeMasked,
    )


def test_apps_that_were_not_asked_for_are_left_alone() -> None:
    assert check_copies([apps.get_app_config("auth")]) == []
    assert len(check_copies([apps.get_app_config("suite")])) == len(found())


@pytest.mark.django_db(databases=["default", "other"])
def test_the_check_command_shows_them() -> None:
    err = io.StringIO()
    call_command("check", stderr=err)
    assert "(asherah.W116) django-reversion writes the encrypted field suite.Versioned.secret" in err.getvalue()
    assert "(asherah.W117) django-auditlog writes the encrypted field suite.Logged.secret" in err.getvalue()


class TestRegistrations:
    """Of a model that nobody has registered yet."""

    @pytest.fixture(autouse=True)
    def _unregistered(self) -> Iterator[None]:
        yield
        auditlog.unregister(Patient)
        if revisions.is_registered(Patient):
            revisions.unregister(Patient)

    def names(self) -> list[str]:
        return [name for _, name in found() if name.startswith("Patient.")]

    @pytest.mark.parametrize(
        ("options", "written"),
        [
            ({}, ["doc", "secret"]),
            ({"fields": ["name"]}, []),
            ({"fields": ["name", "secret"]}, ["secret"]),
            ({"exclude": ["doc"]}, ["secret"]),
        ],
    )
    def test_reversion(self, options: dict[str, Any], written: list[str]) -> None:
        revisions.register(Patient, **options)
        assert self.names() == [f"Patient.{name}" for name in written]

    def test_reversion_from_its_admin(self) -> None:
        from django.contrib.admin import AdminSite
        from reversion.admin import VersionAdmin

        VersionAdmin(Patient, AdminSite("versions"))
        assert self.names() == ["Patient.doc", "Patient.secret"]

    def test_a_reversion_that_does_not_say_what_it_writes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        revisions.register(Patient, fields=["name"])
        monkeypatch.delattr(revisions, "_get_options")
        assert self.names() == ["Patient.doc", "Patient.secret"]

    @pytest.mark.parametrize(
        ("options", "written"),
        [
            ({}, ["doc", "secret"]),
            ({"include_fields": ["name"]}, []),
            ({"include_fields": ["name", "doc"]}, ["doc"]),
            ({"include_fields": ["secret", "doc"], "exclude_fields": ["doc"]}, ["secret"]),
            ({"include_fields": ["name"], "serialize_data": True}, ["doc", "secret"]),
            ({"include_fields": ["name"], "serialize_data": True, "serialize_kwargs": {"fields": ["doc"]}}, ["doc"]),
            ({"include_fields": ["name"], "serialize_data": True, "serialize_auditlog_fields_only": True}, []),
        ],
    )
    def test_auditlog(self, options: dict[str, Any], written: list[str]) -> None:
        auditlog.register(Patient, **options)
        assert self.names() == [f"Patient.{name}" for name in written]

    def test_auditlog_with_a_mask_for_the_project(self, settings: Any) -> None:
        auditlog.register(Patient, mask_fields=["secret", "doc"])
        assert self.names() == ["Patient.doc", "Patient.secret"]
        settings.AUDITLOG_MASK_CALLABLE = "tests.ecosystem.suite.models.mask"
        assert self.names() == []

    def test_auditlog_with_fields_to_leave_out_for_the_project(self, settings: Any) -> None:
        settings.AUDITLOG_EXCLUDE_TRACKING_FIELDS = ("secret",)
        auditlog.register(Patient)
        assert self.names() == ["Patient.doc"]


def test_histories_that_are_encrypted_are_fine() -> None:
    """django-simple-history's model has the fields themselves."""
    history: Any = Historical.history
    for name in ("secret", "doc"):
        assert isinstance(history.model._meta.get_field(name), EncryptedFieldMixin)
    assert not [name for _, name in found() if name.startswith("Historical")]
