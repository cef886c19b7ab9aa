"""What is taken for ciphertext, and what for text."""

from __future__ import annotations

import base64
import random

import pytest
from cryptography.fernet import Fernet
from django.core import signing

from django_asherah.copying.shapes import shape_of

RANDOM = random.Random(7).randbytes(1000)
TOKEN = base64.urlsafe_b64encode(b"\x80" + (1_800_000_000).to_bytes(8) + RANDOM[:64]).decode()


@pytest.mark.parametrize("size", [32, 33, 40, 64, 500])
def test_base64_of_random_bytes_looks_like_it_whatever_its_padding_and_alphabet(size: int) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(RANDOM[:size]).decode()
        for shown in (text, text.rstrip("="), f"vault:v1:{text}", f"hc1:{text}", f"2026:{text}", f" {text}\n"):
            assert shape_of(shown) == "base64"


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (TOKEN, "a Fernet token"),
        (TOKEN + "$" + "0a" * 32, "a Fernet token"),
        ("gAAAAA", "a Fernet token"),
        ("$argon2id$v=19$m=102400,t=2,p=8$c29tZXNhbHQ$aGFzaA", "$-separated"),
        ("$AES-GCM$Zm9v$YmFy", "$-separated"),
        ("eyJhbGciOiJkaXIifQ..c29tZQ.Y2lwaGVy.dGFn", "a JSON web token"),
        (RANDOM[:16].hex(), "hex"),
        (RANDOM[:16].hex().upper(), "hex"),
        ("0x" + RANDOM[:20].hex(), "hex"),
        ("\\x" + RANDOM[:20].hex(), "hex"),
        ("Zoë:1qK2Xw:" + base64.urlsafe_b64encode(RANDOM[:32]).decode().rstrip("="), "signed by Django"),
        (signing.Signer(key="key").sign("a: b"), "signed by Django"),
        (base64.b64encode(RANDOM[:16]).decode(), "base64"),
    ],
)
def test_ciphertext_and_tokens_have_a_shape(text: str, shape: str) -> None:
    assert shape_of(text) == shape


@pytest.mark.parametrize(
    "text",
    [
        "",
        "900-12-3456",
        "Wolfeschlegelsteinhausenbergerdorff",
        "zoe.müller@example.com",
        "DE89 3704 0044 0532 0130 00",
        "DE89370400440532013000",
        "4111111111111111",
        "123456789012345678901234567890123456789",
        "6f0c1f0e-8d0f-4d61-9d2c-2b6a3d9e7f11",
        "/home/zoe/Documents/2024/report.pdf",
        "https://example.com/Some/Path/2024?q=1",
        "the-slug-of-an-article-of-2024",
        "Dear Zoë: $5 for 2$ is fine",
        "12:30:45",
        "a:b:c",
        "王小明王小明王小明王小明王小明王小明王小明",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
    ],
)
def test_text_has_none(text: str) -> None:
    assert shape_of(text) == ""


def test_what_django_signs_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    for value in ("Zoë", {"a": 1}, list(range(50))):
        assert shape_of(signing.dumps(value, key="key")) == "signed by Django"
    assert shape_of(signing.TimestampSigner(key="key").sign("900-12-3456")) == "signed by Django"


def test_what_fernet_writes_has_one() -> None:
    assert shape_of(Fernet(Fernet.generate_key()).encrypt(b"900-12-3456").decode()) == "a Fernet token"
