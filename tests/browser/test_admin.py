"""The keys in the admin as people see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from django_asherah import lifecycle
from django_asherah.lifecycle import KeyState
from tests.admin.conftest import LIST, page_of
from tests.browser.conftest import Clinic

pytestmark = pytest.mark.slow

AA = 4.5
"""The least contrast of text of this size (WCAG 2.2, 1.4.3)."""

CONTRASTS = """() => {
  const luminance = ([r, g, b]) => [r, g, b]
    .map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const background = (node) => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const holdsText = (node) => [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const ours = ['.asherah-badge', '.asherah-region', '.asherah-region *', '.asherah-summary *', '.asherah-detail *',
    '.asherah-table *'];
  return [...document.querySelectorAll(ours.join())].filter(holdsText).map((node) => {
    const [a, b] = [luminance(parse(getComputedStyle(node).color)), luminance(background(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return [node.className + ' ' + node.textContent.trim(), ratio];
  });
}"""

COLOURS = """() => Object.fromEntries([...document.querySelectorAll('#result_list .asherah-badge')]
  .map((badge) => [badge.textContent, getComputedStyle(badge).backgroundColor]))"""


def assert_readable(page: Page, *words: str) -> None:
    """Check the contrast of all that is ours on the page, and that ``words`` were among it."""
    # Links change their colour slowly.
    page.add_style_tag(content="* { transition: none !important; }")
    found: list[tuple[str, float]] = page.evaluate(CONTRASTS)
    for word in words:
        assert any(word in text for text, _ in found)
    assert [(text, ratio) for text, ratio in found if ratio < AA] == []


def assert_no_key_material(page: Page, clinic: Clinic) -> None:
    clinic.assert_none_shown(page.content())


def test_the_list(page: Page, clinic: Clinic, picture: Callable[[str], None]) -> None:
    page.goto(LIST)

    expect(page.get_by_role("heading", name="Encryption keys", exact=True)).to_be_visible()
    summary = page.get_by_label("Summary")
    expect(summary.get_by_role("listitem")).to_contain_text(["us-west-2 preferred", "us-east-1", "eu-central-1"])
    expect(summary.locator(".asherah-badge")).to_have_text(["healthy", "healthy", "failing"])
    expect(page.locator("#result_list tbody tr")).to_have_count(17)
    assert_readable(page, "current", "superseded", "expired", "revoked", "healthy", "failing", "missing", "preferred")
    colours: dict[str, str] = page.evaluate(COLOURS)
    assert colours.keys() == {"current", "superseded", "expired", "revoked"}
    assert len({*colours.values(), page.evaluate("getComputedStyle(document.body).backgroundColor")}) == 5
    assert_no_key_material(page, clinic)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    picture("admin-list")


def test_filters_and_search(page: Page) -> None:
    page.goto(LIST)
    page.locator("#changelist-filter").get_by_role("link", name="system", exact=True).click()
    expect(page.locator("#result_list tbody tr")).to_have_count(4)
    page.locator("#changelist-filter").get_by_role("link", name="revoked").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.goto(LIST)
    page.get_by_role("textbox", name="Search").fill("søn")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(2)


def test_one_key(page: Page, clinic: Clinic, picture: Callable[[str], None]) -> None:
    page.goto(page_of(clinic.current))

    expect(page.locator(".asherah-tree")).to_contain_text("_IK_Zoë & søn_clinic_records")
    expect(page.locator(".asherah-tree > li > ul > li")).to_have_count(4)
    assert_readable(page, "current", "missing", "preferred")
    assert_no_key_material(page, clinic)
    picture("admin-key")


def test_verify_and_revoke(page: Page, clinic: Clinic, picture: Callable[[str], None]) -> None:
    page.goto(page_of(clinic.current))
    page.get_by_role("button", name="Verify in every region").click()
    said = page.locator(".messagelist")
    expect(said).to_contain_text("and it failed: not wrapped for eu-central-1; no region could unwrap")

    page.goto(page_of(clinic.current))
    page.get_by_role("button", name="Revoke…").click()
    expect(page.get_by_role("heading", name="Are you sure?")).to_be_visible()
    expect(page.locator(".asherah-table")).to_contain_text("4 intermediate keys")
    assert_readable(page, "current")
    picture("admin-revoke")
    assert _state(clinic) is KeyState.CURRENT

    page.get_by_role("link", name="Cancel").click()
    assert _state(clinic) is KeyState.CURRENT

    page.goto(page_of(clinic.current))
    page.get_by_role("button", name="Revoke…").click()
    page.get_by_role("button", name="Revoke 1 key").click()
    expect(said).to_contain_text(f"Revoked {clinic.current}.")
    assert _state(clinic) is KeyState.REVOKED

    page.goto(page_of(clinic.current))
    expect(page.get_by_role("button", name="Revoke…")).to_have_count(0)
    page.get_by_role("link", name="History").click()
    history: Any = page.locator("#change-history tbody tr")
    expect(history).to_have_count(2)
    expect(history.last).to_contain_text(f"Revoked {clinic.current}.")


def test_several_at_once_from_the_list(page: Page, clinic: Clinic) -> None:
    page.goto(f"{LIST}?kind=intermediate&state=current")
    page.locator("#action-toggle").click()
    page.get_by_label("Action:").select_option("revoke_keys")
    page.locator(".actions button").click()
    expect(page.locator(".asherah-table tbody tr")).to_have_count(4)
    page.get_by_role("button", name="Revoke 4 keys").click()
    expect(page.locator(".messagelist li")).to_have_count(4)


def _state(clinic: Clinic) -> KeyState:
    (state,) = [key.state for key in lifecycle.list_keys() if key.meta == clinic.current]
    return state
