"""``django_asherah.testing``: what it gives to the suites of others."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.management import call_command
from django.test import SimpleTestCase, TestCase

from django_asherah import conf, engine, signals
from django_asherah.exceptions import DecryptionError, KeyNotFoundError, KMSError
from django_asherah.kms.aws import AwsKMS
from django_asherah.kms.regional import is_regional
from django_asherah.kms.static import StaticKMS
from django_asherah.metastores.memory import MemoryMetastore
from django_asherah.testing import FakeKMS, override_asherah
from django_asherah.testing.fixtures import asherah, fake_kms  # noqa: F401 - fixtures
from tests.databases import ROOT
from tests.testapp.models import Note


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_network")
class TestOverride:
    def test_a_context_manager(self) -> None:
        outside = settings.ASHERAH
        with override_asherah():
            factory = engine.get_factory()
            assert isinstance(factory.kms, StaticKMS)
            assert isinstance(factory.metastore, MemoryMetastore)
            session = engine.get_session()
            assert session.decrypt(session.encrypt(b"x")) == b"x"
        assert settings.ASHERAH is outside
        assert engine.get_factory() is not factory

    def test_functions_coroutines_and_methods(self) -> None:
        @override_asherah()
        def function() -> str:
            return engine.get_factory().service

        @override_asherah(SERVICE="own")
        async def coroutine() -> str:
            return engine.get_factory().service

        class Own:
            @override_asherah()
            def method(self) -> str:
                return engine.get_factory().service

        assert (function(), async_to_sync(coroutine)(), Own().method()) == ("test", "own", "test")
        assert engine.get_factory().service == "suite"

    def test_no_use_shares_keys_with_another(self) -> None:
        with override_asherah():
            record = engine.get_session().encrypt(b"x")
        with override_asherah(), pytest.raises(KeyNotFoundError):
            engine.get_session().decrypt(record)

    def test_uses_within_one_another(self) -> None:
        with override_asherah(PARTITION="outer"):
            record = engine.get_session().encrypt(b"x")
            with override_asherah(PARTITION="inner"), pytest.raises(DecryptionError):
                engine.get_session().decrypt(record)
            assert engine.get_session().decrypt(record) == b"x"

    def test_the_settings_are_right(self) -> None:
        for options in ({}, {"kms": FakeKMS()}, {"METASTORE": "database"}):
            with override_asherah(**options):  # type: ignore[arg-type]
                assert list(conf.find_problems()) == []

    @pytest.mark.django_db
    def test_fields_use_it(self) -> None:
        with override_asherah():
            note = Note.objects.create(body="x")
            note.refresh_from_db()
            assert note.body == "x"


@pytest.mark.slow
def test_the_page_shows_tests_that_pass(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "test-your-app.md").read_text(encoding="utf-8")
    codes = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for number, code in enumerate(codes):
        name = "conftest.py" if code.startswith("# conftest.py") else f"test_{number}.py"
        (tmp_path / name).write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-c", tmp_path / "pytest.ini", "--ds", "tests.settings", tmp_path]
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"DATABASE_URL": "sqlite://:memory:", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


@override_asherah(PARTITION="of the class")
class SimpleCase(SimpleTestCase):
    def test_the_class_is_decorated(self) -> None:
        assert engine.get_session().partition.partition_id == "of the class"

    @override_asherah(PARTITION="of the method")
    def test_a_method_is_decorated_in_turn(self) -> None:
        assert engine.get_session().partition.partition_id == "of the method"


@override_asherah()
class DatabaseCase(TestCase):
    note: Note

    @classmethod
    def setUpTestData(cls) -> None:
        cls.note = Note.objects.create(body="x")

    def test_data_of_the_class_opens(self) -> None:
        assert Note.objects.get().body == "x"

    @override_asherah()
    def test_it_does_not_in_a_method_with_keys_of_its_own(self) -> None:
        note = Note.objects.get()
        with pytest.raises(KeyNotFoundError):
            _ = note.body

    def test_it_does_in_every_other_test(self) -> None:
        assert Note.objects.get().body == "x"


@pytest.mark.usefixtures("no_network")
class TestFixtures:
    @pytest.mark.usefixtures("asherah")
    def test_asherah(self) -> None:
        assert isinstance(engine.get_factory().kms, StaticKMS)

    def test_fake_kms(self, fake_kms: FakeKMS) -> None:  # noqa: F811 - the fixture
        assert isinstance(engine.get_factory().kms, AwsKMS)
        assert engine.get_session().encrypt(b"x")


@pytest.mark.usefixtures("no_network")
class TestFakeKMS:
    def test_is_a_kms_with_regions(self) -> None:
        kms = FakeKMS("eu-west-1", "eu-central-1")
        with override_asherah(kms):
            running = engine.get_factory().kms
            assert is_regional(running)
            assert list(running.master_keys) == ["eu-west-1", "eu-central-1"]
            engine.get_session().encrypt(b"x")
        assert kms.calls == {
            ("eu-west-1", "GenerateDataKey"): 1,
            ("eu-west-1", "Decrypt"): 1,
            ("eu-central-1", "Encrypt"): 1,
            ("eu-central-1", "Decrypt"): 1,
        }

    def test_shows_its_regions_and_no_key(self) -> None:
        assert repr(FakeKMS("a", "b")) == "<FakeKMS a, b>"

    def test_any_region_is_enough(self) -> None:
        kms = FakeKMS("a", "b", "c")
        with override_asherah(kms):
            record = engine.get_session().encrypt(b"x")
            for region in kms.arns:
                kms.switch_off()
                kms.switch_on(region)
                engine.get_factory().clear()
                assert engine.get_session().decrypt(record) == b"x"
            kms.switch_off()
            engine.get_factory().clear()
            with pytest.raises(KMSError) as caught:
                engine.get_session().decrypt(record)
            assert set(caught.value.failures) == {"a", "b", "c"}
            assert str(caught.value.failures["a"]) == "region a is switched off"

    def test_a_failing_region_is_told_of(self) -> None:
        kms, heard = FakeKMS(), []

        def listen(*, region: str, **kwargs: Any) -> None:
            heard.append(region)

        signals.region_failed.connect(listen)
        try:
            with override_asherah(kms):
                kms.switch_off("us-west-2")
                engine.get_session().encrypt(b"x")
        finally:
            signals.region_failed.disconnect(listen)
        assert set(heard) == {"us-west-2"}

    def test_a_region_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(KeyError):
            FakeKMS().switch_off("eu-west-1")

    def test_regions_have_master_keys_of_their_own(self) -> None:
        kms = FakeKMS("a", "b")
        client = kms.client("kms", region_name="a")
        blob = client.encrypt(KeyId=kms.arns["a"], Plaintext=b"k" * 32)["CiphertextBlob"]
        with pytest.raises(LookupError):
            client.decrypt(KeyId=kms.arns["b"], CiphertextBlob=blob)
        with pytest.raises(DecryptionError):
            kms.client("kms", region_name="b").decrypt(KeyId=kms.arns["b"], CiphertextBlob=blob)

    @pytest.mark.django_db(transaction=True)
    def test_status_verify_and_rewrap_work_on_it(self) -> None:
        def run(*arguments: str) -> str:
            out = io.StringIO()
            with suppress(SystemExit):  # With 1, when there is something to say.
                call_command(*arguments, stdout=out, stderr=out)
            return out.getvalue()

        kms = FakeKMS("us-west-2", "us-east-1")
        with override_asherah(kms, METASTORE="database"):
            kms.switch_off("us-east-1")
            record = engine.get_session().encrypt(b"x")
            assert "not wrapped for us-east-1" in run("asherah_status")
            kms.switch_on()
            run("asherah_rewrap")
            assert "not wrapped for us-east-1" not in run("asherah_status")
            run("asherah_verify")
            kms.switch_off("us-west-2")
            engine.get_factory().clear()
            assert engine.get_session().decrypt(record) == b"x"
