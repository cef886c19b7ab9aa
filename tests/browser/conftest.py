"""Debian's Chromium against the admin of a clinic whose KMS is two moto servers and a third region that is down."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, Page, Response, sync_playwright

from django_asherah import engine
from django_asherah.envelope.records import KeyMeta
from tests.admin.conftest import Maker
from tests.databases import ROOT, VENDOR
from tests.moto_servers import ACCESS, MotoRegion, moto_region, refused_url

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1280, 900


@pytest.fixture(autouse=True, scope="session")
def _only_where_it_can() -> None:
    if VENDOR != "postgresql":
        pytest.skip("the browser tests run on PostgreSQL")
    if CHROMIUM is None:
        reason = "there is no Chromium on this machine (Debian's package is called chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


# Not for the session: Playwright's loop runs in this very thread, where every later test would find it.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Here Django would see the loop and refuse its ORM.
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            yield browser
            browser.close()
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
        if before is not None:
            os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = before


@pytest.fixture(scope="session")
def regions() -> Iterator[list[MotoRegion]]:
    with moto_region("us-west-2") as west, moto_region("us-east-1") as east:
        yield [west, east]


class Clinic(Maker):
    """The keys of a clinic that has been running for a year."""

    def __init__(self) -> None:
        super().__init__()
        first = self.made(200, ["st-mary", "northside"])
        self.broken = self.made(110, ["st-mary", "northside", "o'connor & sons"], revoked=True)
        self.between = self.made(80, ["st-mary", "northside", "o'connor & sons", "Zoë & søn"])
        self.current = self.made(12, ["st-mary", "northside", "o'connor & sons", "Zoë & søn"])
        assert first != self.current

    def made(self, days: int, partitions: list[str], **members: Any) -> KeyMeta:
        """Make a system key, and a key of each partition under it."""
        system = self.system(days, key_id="_SK_clinic_records", **members)
        for place, partition in enumerate(partitions):
            key_id = f"_IK_{partition}_clinic_records"
            self.intermediate(system, days=days - 1 - place, key_id=key_id)
        return system


@pytest.fixture
def clinic(transactional_db: None, settings: Any, regions: list[MotoRegion], monkeypatch: pytest.MonkeyPatch) -> Clinic:
    """A clinic with three regions, the last of which is down."""
    for name, value in ACCESS.items():
        monkeypatch.setenv(name.upper(), value)
    settings.TIME_ZONE = "UTC"
    settings.ASHERAH = {
        "SERVICE": "clinic",
        "PRODUCT": "records",
        "REGIONS": {
            **{region.region: region.arn for region in regions},
            "eu-central-1": "arn:aws:kms:eu-central-1:123456789012:key/0b3f6a51-93a5-4f0c-8a3c-58e0d2f0c7aa",
        },
        "PREFERRED_REGION": "us-west-2",
        "KMS_OPTIONS": {
            "endpoint_urls": {**{region.region: region.url for region in regions}, "eu-central-1": refused_url()}
        },
    }
    engine.reset()
    return Clinic()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    """The colour scheme that the user's system prefers."""
    return str(request.param)


@pytest.fixture
def page(browser: Browser, clinic: Clinic, live_server: Any, scheme: str) -> Iterator[Page]:
    """A page that a superuser looks at. Errors of the page's own, and requests to anywhere else, fail the test."""
    client = Client()
    client.force_login(User.objects.create_superuser("grace"))
    context = browser.new_context(
        base_url=live_server.url, color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT}
    )
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}])
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda response: wrong.append(response.url) if _is_wrong(response) else None)
    page.on("request", lambda request: None if request.url.startswith(live_server.url) else wrong.append(request.url))
    yield page
    context.close()
    assert wrong == []


def _is_wrong(response: Response) -> bool:
    return response.status >= 400 and not response.url.endswith("/favicon.ico")


@pytest.fixture
def picture(page: Page, scheme: str) -> Callable[[str], None]:
    """Keep what the page shows as an image of the documentation, if WRITE_SCREENSHOTS says so."""

    def take(name: str) -> None:
        path: Path = IMAGES / f"{name}-{scheme}.png"
        if os.environ.get("WRITE_SCREENSHOTS"):
            page.screenshot(path=path)
        assert path.is_file(), f"{path} is missing: run this test with WRITE_SCREENSHOTS=1"

    return take
