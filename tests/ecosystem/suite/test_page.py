"""The code of ``docs/how-to/use-with-other-packages.md`` does what the page says."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reversion
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.contrib.admin import AdminSite, ModelAdmin
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import path
from import_export.admin import ImportMixin
from reversion.models import Version

from django_asherah.checks.copies import check_copies
from tests.databases import as_asherah
from tests.ecosystem.suite.models import Documented, Patient
from tests.ecosystem.suite.test_history import PLAINTEXT, everything
from tests.fields.helpers import opened
from tests.test_docs import DOCS, blocks

pytestmark = pytest.mark.django_db

CODES = [code for _, code, _ in blocks(DOCS / "how-to" / "use-with-other-packages.md", "python")]
(IMPORTS,) = [code for code in CODES if "STORAGES" in code]
(MASK,) = [code for code in CODES if "def mask" in code]
REGISTRATIONS = [code for code in CODES if "register(" in code]


@pytest.fixture
def mask_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("clinic.audit")
    exec(MASK, vars(module))
    monkeypatch.setitem(sys.modules, "clinic", ModuleType("clinic"))
    monkeypatch.setitem(sys.modules, "clinic.audit", module)


def registered(code: str) -> bool:
    """Run a block, and what is left to whoever runs the admin; tell whether that registered the patient."""
    namespace: dict[str, Any] = {"Patient": Documented, "auditlog": auditlog}
    exec(code, namespace)
    if "PatientAdmin" in namespace:
        namespace["PatientAdmin"](Documented, AdminSite("versions"))
    return auditlog.contains(Documented) or reversion.is_registered(Documented)


@pytest.mark.usefixtures("mask_of_the_page")
@pytest.mark.parametrize("code", REGISTRATIONS)
def test_what_it_registers_writes_nothing_in_clear(code: str) -> None:
    try:
        assert registered(code)
        assert [message for message in check_copies(None) if message.obj is Documented] == []
        with reversion.create_revision():
            patient = Documented.objects.create(ssn=PLAINTEXT, record={"ssn": PLAINTEXT})
            patient.ssn, patient.record = PLAINTEXT[::-1], {"ssn": PLAINTEXT[::-1]}
            patient.save()
        copies = everything(Version) + everything(LogEntry)
    finally:
        auditlog.unregister(Documented)
        if reversion.is_registered(Documented):
            reversion.unregister(Documented)
    assert f"Documented object ({patient.pk})" in copies
    for part in (PLAINTEXT[:4], PLAINTEXT[-4:], PLAINTEXT[::-1][:4], PLAINTEXT[::-1][-4:]):
        assert part not in copies


class PatientAdmin(ImportMixin, ModelAdmin):  # type: ignore[type-arg]
    pass


site = AdminSite("imports")
site.register(Patient, PatientAdmin)
urlpatterns = [path("imports/", site.urls)]
IMPORT = "/imports/suite/patient/import/"


@pytest.mark.urls("tests.ecosystem.suite.test_page")
class TestImports:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Path:
        """Where temporary files go."""
        settings.ASHERAH = as_asherah(METASTORE="memory")  # A file may not outlive a key that the test rolls back.
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        return tmp_path

    def upload(self, client: Client) -> dict[str, Any]:
        """Take the first step; return what the page then sends for the second."""
        file = SimpleUploadedFile("x.csv", f"id,name,secret,doc\n,a,{PLAINTEXT},{{}}\n".encode(), "text/csv")
        response = client.post(IMPORT, {"import_file": file, "format": "0", "resource": "0"})
        form = response.context["confirm_form"]
        return {name: form[name].value() for name in form.fields}

    def waiting(self, folder: Path) -> bytes:
        return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())

    def test_as_it_is_an_upload_waits_in_clear(self, admin_client: Client, folder: Path) -> None:
        self.upload(admin_client)
        assert PLAINTEXT.encode() in self.waiting(folder)

    def test_as_documented_it_waits_encrypted(self, admin_client: Client, folder: Path, settings: Any) -> None:
        namespace: dict[str, Any] = {}
        exec(IMPORTS.replace("/var/lib/clinic", str(folder)), namespace)
        settings.STORAGES = namespace["STORAGES"]
        settings.IMPORT_EXPORT_TMP_STORAGE_CLASS = namespace["IMPORT_EXPORT_TMP_STORAGE_CLASS"]
        confirmed = self.upload(admin_client)
        assert PLAINTEXT.encode() not in self.waiting(folder)
        assert b"_IK_default" in self.waiting(folder)
        assert admin_client.post("/imports/suite/patient/process_import/", confirmed).status_code == 302
        assert opened(Patient.objects.get(), "secret") == PLAINTEXT.encode()
        assert self.waiting(folder) == b""
