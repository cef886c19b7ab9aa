"""KMS and metastores by name: built in or somebody else's, one entry each, which is asked for all there is to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from pytest_django import Settings as DjangoSettings

from django_asherah import conf, engine
from django_asherah.conf import Settings
from django_asherah.envelope.interfaces import KMSCalled, Listener
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.problems import Problem
from django_asherah.providers import Provider, RawSettings

pytestmark = pytest.mark.django_db(databases="__all__")  # Django 6.1's checks ask every database.

BASE = {"SERVICE": "suite", "PRODUCT": "tests", "METASTORE": "memory"}


class ObservedKMS(StaticKMS):
    """A KMS that tells of its calls."""

    def __init__(self, slot: int, on_event: Listener) -> None:
        super().__init__(bytes([slot]) * 32)
        self._on_event = on_event

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        self._on_event(KMSCalled("rack", "Encrypt", 0.5, None))
        return super().encrypt_key(key)


def _make(settings: Settings, on_event: Listener) -> ObservedKMS:
    return ObservedKMS(settings.kms_options["slot"], on_event)


def _find_problems(raw: RawSettings) -> Iterator[Problem]:
    if not isinstance(raw["KMS_OPTIONS"].get("slot"), int):
        yield Problem("rack.E001", "ASHERAH['KMS_OPTIONS']['slot'] is no number.", "Give the slot's number.")


def _find_warnings(settings: Settings) -> Iterator[Problem]:
    if settings.kms_options["slot"] == 0:
        yield Problem("rack.W001", "Slot 0 is slow.", "Take another.")


def _find_deploy_problems(settings: Settings) -> Iterator[Problem]:
    if settings.kms_options["slot"] == 9:
        yield Problem("rack.E002", "Slot 9 is a simulator.", "Take another.")


RACK = Provider(
    make=_make,
    options=("slot",),
    find_problems=_find_problems,
    find_warnings=_find_warnings,
    find_deploy_problems=_find_deploy_problems,
)


def _import_rack(settings: Settings, on_event: Listener) -> Any:
    import no_such_rack_library  # type: ignore[import-not-found]

    return no_such_rack_library


NOT_INSTALLED = Provider(make=_import_rack, options=None, extra="rack")
BROKEN = Provider(make=_import_rack, options=None)


def make_own_kms(settings: Settings) -> StaticKMS:
    return StaticKMS(settings.kms_options["anything"])


def configure(settings: DjangoSettings, name: str, **options: Any) -> None:
    settings.ASHERAH = {**BASE, "KMS": f"tests.test_providers.{name}", "KMS_OPTIONS": options}


def ids() -> list[str]:
    return [problem.id for problem in conf.find_problems()]


class TestAnEntryOfSomebodyElses:
    """It has every right that a built-in one has."""

    def test_it_makes_what_it_provides_and_is_told_where_events_go(self, settings: DjangoSettings) -> None:
        from django_asherah import signals

        heard: list[dict[str, Any]] = []

        def hear(**arguments: Any) -> None:
            heard.append(arguments)

        signals.kms_called.connect(hear)
        configure(settings, "RACK", slot=5)
        try:
            session = engine.get_session()
            assert session.decrypt(session.encrypt(b"x")) == b"x"
        finally:
            signals.kms_called.disconnect(hear)
        assert [(call["region"], call["operation"], call["seconds"]) for call in heard] == [("rack", "Encrypt", 0.5)]

    def test_an_option_that_it_does_not_have_is_named(self, settings: DjangoSettings) -> None:
        configure(settings, "RACK", slot=5, slto=6)
        (problem,) = conf.find_problems()
        assert problem == Problem(
            "asherah.E006", "ASHERAH['KMS_OPTIONS'] has no setting 'slto'.", "Did you mean 'slot'?"
        )

    def test_its_own_checks_run(self, settings: DjangoSettings) -> None:
        configure(settings, "RACK", slot="five")
        assert ids() == ["rack.E001"]
        with pytest.raises(SystemCheckError, match=r"rack\.E001"):
            call_command("check")
        with pytest.raises(ImproperlyConfigured, match=r"is no number\. Give the slot's number\. \(rack\.E001\)"):
            engine.get_factory()

    def test_its_warnings_are_warnings(self, settings: DjangoSettings) -> None:
        configure(settings, "RACK", slot=0)
        with pytest.raises(SystemCheckError, match=r"WARNINGS:\n\?: \(rack\.W001\) Slot 0 is slow\."):
            call_command("check", fail_level="WARNING")
        assert engine.get_factory().kms is not None

    def test_its_checks_of_a_deployment_run_with_deploy_alone(self, settings: DjangoSettings) -> None:
        configure(settings, "RACK", slot=9)
        call_command("check")
        with pytest.raises(SystemCheckError, match=r"ERRORS:\n(.*\n)*\?: \(rack\.E002\) Slot 9 is a simulator\."):
            call_command("check", deploy=True)

    def test_a_library_that_is_not_installed_is_named_with_what_installs_it(self, settings: DjangoSettings) -> None:
        configure(settings, "NOT_INSTALLED")
        with pytest.raises(ImproperlyConfigured) as caught:
            engine.get_factory()
        assert str(caught.value) == (
            "No module named 'no_such_rack_library'. Install it: pip install 'django-asherah[rack]'"
        )

    def test_an_import_that_fails_without_an_extra_is_the_error_that_it_is(self, settings: DjangoSettings) -> None:
        configure(settings, "BROKEN")
        with pytest.raises(ImportError, match="no_such_rack_library"):
            engine.get_factory()


class TestAFunctionOfSomebodyElses:
    """It is given the settings, and its options are its own affair."""

    def test_it_makes_what_it_returns(self, settings: DjangoSettings) -> None:
        configure(settings, "make_own_kms", anything=b"k" * 32)
        assert ids() == []
        call_command("check", deploy=True, fail_level="CRITICAL")
        session = engine.get_session()
        assert session.decrypt(session.encrypt(b"x")) == b"x"

    @pytest.mark.parametrize(("setting", "name"), [("KMS", "no.such.Class"), ("METASTORE", "tests.no_such_class")])
    def test_one_that_is_not_there_is_refused_when_the_engine_starts(
        self, settings: DjangoSettings, setting: str, name: str
    ) -> None:
        settings.ASHERAH = {**BASE, "KMS": "static", "KMS_OPTIONS": {"key": "5a" * 32}, setting: name}
        assert ids() == []
        call_command("check", deploy=True, fail_level="CRITICAL")
        with pytest.raises(ImproperlyConfigured) as caught:
            engine.get_factory()
        assert str(caught.value).startswith(f"ASHERAH['{setting}'] is '{name}', which can't be imported: ")

    @pytest.mark.parametrize(("name", "kind"), [("tests.test_providers.BASE", "dict"), ("tests.databases", "module")])
    def test_what_can_not_be_called_is_refused_by_name(self, settings: DjangoSettings, name: str, kind: str) -> None:
        settings.ASHERAH = {**BASE, "KMS": name}
        assert ids() == []
        with pytest.raises(ImproperlyConfigured) as caught:
            engine.get_factory()
        assert str(caught.value) == f"ASHERAH['KMS'] is '{name}', which is no class, function or Provider, but a {kind}"


class TestBuiltIn:
    @pytest.mark.parametrize("name", conf.KMS.paths)
    def test_every_kms_has_an_entry(self, name: str) -> None:
        assert isinstance(conf.KMS.find(name), Provider)

    @pytest.mark.parametrize("name", conf.METASTORE.paths)
    def test_every_metastore_has_an_entry(self, name: str) -> None:
        assert isinstance(conf.METASTORE.find(name), Provider)

    @pytest.mark.parametrize(
        ("name", "alias"), [("database", "other"), ("memory", None), ("dynamodb", None), ("tests.x.Y", None)]
    )
    def test_which_database_holds_the_key_table(self, settings: DjangoSettings, name: str, alias: str | None) -> None:
        settings.ASHERAH = {**BASE, "KMS": "static", "KMS_OPTIONS": {"key": "5a" * 32}, "METASTORE": name}
        found = conf.get_settings()
        with_database = Settings(service="suite", product="tests", metastore=name, database="other")
        assert found.metastore_provider.find_database(with_database) == alias

    def test_the_memory_metastore_begins_empty(self, settings: DjangoSettings) -> None:
        settings.ASHERAH = {**BASE, "KMS": "static", "KMS_OPTIONS": {"key": "5a" * 32}}
        metastore = engine.get_factory().metastore
        assert isinstance(metastore, MemoryMetastore)
        assert metastore.records == {}
