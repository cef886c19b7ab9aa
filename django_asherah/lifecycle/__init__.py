"""The life of keys and data: the functions behind the commands.

Every function works on the process's own settings. None of them ever logs or returns a secret.
"""

from django_asherah.lifecycle.columns import Column, UnknownColumnError, count_values, encrypted_columns
from django_asherah.lifecycle.data_verification import DataReport, verify_data
from django_asherah.lifecycle.keys import KeyInfo, KeyState, Listing, list_keys
from django_asherah.lifecycle.reencryption import ReencryptionReport, reencrypt
from django_asherah.lifecycle.revocation import RevocationReport, revoke
from django_asherah.lifecycle.rewrapping import RewrapReport, rewrap
from django_asherah.lifecycle.rotation import RotationReport, rotate
from django_asherah.lifecycle.sharding import run_shard, split
from django_asherah.lifecycle.verification import KeyReport, verify_key, verify_keys

__all__ = [
    "Column",
    "DataReport",
    "KeyInfo",
    "KeyReport",
    "KeyState",
    "Listing",
    "ReencryptionReport",
    "RevocationReport",
    "RewrapReport",
    "RotationReport",
    "UnknownColumnError",
    "count_values",
    "encrypted_columns",
    "list_keys",
    "reencrypt",
    "revoke",
    "rewrap",
    "rotate",
    "run_shard",
    "split",
    "verify_data",
    "verify_key",
    "verify_keys",
]
