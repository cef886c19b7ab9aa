"""What ciphertext and tokens look like as text."""

from __future__ import annotations

import re

_SHAPES = {
    "a Fernet token": re.compile(r"gAAAAA.*", re.DOTALL),  # Version 0x80 and a time before 2106, in base64.
    "a JSON web token": re.compile(r"eyJ[\w-]+(\.[\w-]*){1,4}"),  # Of RFC 7515 and 7516: it begins with {" in base64.
    "$-separated": re.compile(r"\$[\w./+=,-]+\$\S+"),  # As of crypt(3), PHC and many encryptors.
}

_BASE64 = re.compile(r"(?:[\w.-]{1,64}:){0,3}([A-Za-z0-9+/_-]{22,}={0,2})")
"""16 bytes or more, after the names of a format or a key (``vault:v1:``), or after a signed value and its time."""

_HEX = re.compile(r"(?:[\w.-]{1,64}:){0,3}(?:0x|\\x)?(?=[0-9]*[A-Fa-f])([0-9a-f]{32,}|[0-9A-F]{32,})")
_SIGNED = re.compile(r".*:([\w-]{27}|[\w-]{43})", re.DOTALL)
"""Of ``django.core.signing``: SHA-1 (before Django 3.1) or SHA-256 in base64, after what is signed."""


def shape_of(text: str) -> str:
    """Return what ciphertext or token ``text`` looks like; an empty string if it looks like none.

    A UUID, an IBAN, a number, a path and words joined by hyphens look like none.
    """
    text = text.strip()
    for name, shape in _SHAPES.items():
        if shape.fullmatch(text):
            return name
    if _HEX.fullmatch(text):
        return "hex"
    if (found := _SIGNED.fullmatch(text)) and _is_mixed(found[1]):
        return "signed by Django"
    if (found := _BASE64.fullmatch(text)) and _is_mixed(found[1]):
        return "base64"
    return ""


def _is_mixed(text: str) -> bool:
    """Tell whether text of the base64 alphabet looks random: padded, or with small letters, capitals and digits.

    Random text of 22 characters has no digit or no letter of one kind with a chance of 2.5%; of 40, the least of
    authenticated ciphertext, of 0.2%.
    """
    return text.endswith("=") or all(re.search(kind, text) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
