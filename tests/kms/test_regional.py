"""What counts as a KMS with regions: all of the protocol, however it comes by it, and never a part of it."""

from __future__ import annotations

from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from pytest_django import Settings

from django_asherah import engine, health, lifecycle
from django_asherah.exceptions import KMSError
from django_asherah.kms.regional import is_regional
from django_asherah.kms.static import StaticKMS
from tests.databases import as_asherah
from tests.regional import OwnKMS

MEMBERS = ["master_keys", "regions_of", "decrypt_key_in", "check_region", "check_wrap", "rewrap", "last_answers"]


class Wrapper:
    """Passes everything on to a KMS, but for some members, which it does not have."""

    def __init__(self, kms: Any, *missing: str) -> None:
        self._kms, self._missing = kms, missing

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(name)
        return getattr(self._kms, name)


class HalfKMS(OwnKMS):
    """Lacks one member."""

    @property
    def last_answers(self) -> Any:  # type: ignore[override]
        raise AttributeError("last_answers")


def own_kms() -> OwnKMS:
    given: Any = SimpleNamespace(kms_options={"arns": {"zurich": "rack-1"}})
    return OwnKMS(given)


def test_one_with_every_member_has_regions() -> None:
    kms = own_kms()
    assert is_regional(kms)
    assert is_regional(Wrapper(kms))
    kms.master_keys = MappingProxyType(kms.master_keys)  # type: ignore[assignment]
    assert is_regional(kms)


def test_one_with_none_has_none() -> None:
    assert not is_regional(StaticKMS(bytes(32)))


@pytest.mark.parametrize("member", MEMBERS)
def test_one_that_lacks_a_member_is_an_error_that_names_it(member: str) -> None:
    with pytest.raises(KMSError) as caught:
        is_regional(Wrapper(own_kms(), member))
    assert str(caught.value) == (
        f"Wrapper has regions, but no {member}. Implement django_asherah.kms.regional.RegionalKMS"
    )


def test_nobody_reports_that_all_is_well_with_half_of_it(settings: Settings) -> None:
    options = {"arns": {"zurich": "rack-1"}}
    settings.ASHERAH = as_asherah(METASTORE="memory", KMS="tests.kms.test_regional.HalfKMS", KMS_OPTIONS=options)
    session = engine.get_session()
    assert session.decrypt(session.encrypt(b"x")) == b"x"
    for work in (lifecycle.verify_keys, lifecycle.rotate, lifecycle.rewrap, lambda: list(lifecycle.list_keys())):
        with pytest.raises(KMSError, match=r"^HalfKMS has regions, but no last_answers\."):
            work()
    assert health.check().problems[0].startswith("KMSError: HalfKMS has regions, but no last_answers.")
    assert health.check(deep=True).problems[0].startswith("KMSError: HalfKMS has regions, but no last_answers.")
