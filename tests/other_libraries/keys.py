"""The keys of the libraries: those in use, the older ones beside them, and some that nobody has any more."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

FILES = Path(__file__).with_name(".keysets")
"""Where Tink's keysets are. Settings name them; they are read when they are used."""

_KEY_NAMES = {"in use": "2026", "older": "2025", "lost": "2026"}
"""How django-field-encryption is told which key is meant. What is lost had the name of the one in use."""

_KEY_IDS = {"in use": 1, "older": 2, "lost": 1}
"""How Tink is."""


def settings(first: str, *more: str) -> dict[str, Any]:
    """Return settings with these keys, the first of which encrypts; a library that has one key has that."""
    names = [first, *more]
    keysets = _keysets(names)
    return {
        "CRYPTOGRAPHY_KEY": first,
        "FERNET_KEYS": names,
        "FIELD_ENCRYPTION_KEY": [_base64(name) for name in names],
        "SALT_KEY": names,
        "SECURED_FIELDS_KEY": [_base64(name) for name in names],
        "DATA_PROTECTION_KEYS": {_KEY_NAMES[name]: _base64(name) for name in names},
        "DATA_PROTECTION_ACTIVE_KEY_ID": _KEY_NAMES[first],
        "MIRAGE_SECRET_KEY": f"{first:32} and all that it takes",
        "TINK_FIELDS_CONFIG": {"default": {"cleartext": True, "path": str(keysets / "dev" / "aead.json")}},
        "HYPERSCALE_CRYPTO": {"mode": "cleartext", "keyset_dir": str(keysets)},
    }


def _base64(name: str) -> str:
    return base64.urlsafe_b64encode(name.ljust(32).encode()).decode()


def _keysets(names: list[str]) -> Path:
    """Return the folder of a keyset, in which it is where hyperscale-crypto looks for it."""
    return FILES / "-".join(names)


def write_keysets(*names: str) -> None:
    """Write a keyset of these keys, as Tink writes it in clear."""
    place = _keysets([*names]) / "dev"
    place.mkdir(parents=True, exist_ok=True)
    keyset = {"primaryKeyId": _KEY_IDS[names[0]], "key": [_key(name) for name in names]}
    for primitive in ("aead", "daead"):  # hyperscale-crypto wants both, and the second one is never used.
        file = place / f"{primitive}.json"
        if not file.exists():  # Others may read it by now.
            file.write_text(json.dumps(keyset))


def _key(name: str) -> dict[str, Any]:
    message = b"\x1a\x20" + name.ljust(32).encode()  # Field 3 of Tink's AesGcmKey, 32 bytes long.
    return {
        "keyData": {
            "typeUrl": "type.googleapis.com/google.crypto.tink.AesGcmKey",
            "value": base64.b64encode(message).decode(),
            "keyMaterialType": "SYMMETRIC",
        },
        "status": "ENABLED",
        "keyId": _KEY_IDS[name],
        "outputPrefixType": "TINK",
    }
