"""``settings.ASHERAH``, typed. Read on access, so that ``override_settings`` works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from django_asherah.envelope.interfaces import KeyManagementService, Metastore
from django_asherah.envelope.partition import NAME, Partition
from django_asherah.exceptions import EncryptionError
from django_asherah.problems import Problem, is_count, is_dotted_path, unknown_names
from django_asherah.providers import Provider, Registry

KMS: Registry[KeyManagementService] = Registry(
    "KMS",
    default="aws",
    paths={
        "aws": "django_asherah.kms.aws_provider.PROVIDER",
        "static": "django_asherah.kms.static_provider.PROVIDER",
    },
    wrong_name="asherah.E007",
    wrong_options="asherah.E006",
)
METASTORE: Registry[Metastore] = Registry(
    "METASTORE",
    default="database",
    paths={
        "database": "django_asherah.metastores.database_provider.PROVIDER",
        "dynamodb": "django_asherah.metastores.dynamodb_provider.PROVIDER",
        "memory": "django_asherah.metastores.memory_provider.PROVIDER",
    },
    wrong_name="asherah.E008",
    wrong_options="asherah.E016",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``settings.ASHERAH`` with every default filled in. Field names are the setting names in lower case.

    ``kms_options`` may hold the static key, so it is not part of the repr.
    """

    service: str
    product: str
    regions: Mapping[str, str] = field(default_factory=dict)
    preferred_region: str = ""
    kms: str = KMS.default
    kms_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metastore: str = METASTORE.default
    metastore_options: Mapping[str, Any] = field(default_factory=dict)
    database: str = "default"
    partition: str = "default"
    partition_guard: str = ""
    key_suffix: str = ""
    read_suffixes: Sequence[str] = ()
    expire_key_after: timedelta = timedelta(days=90)
    revoke_check_interval: timedelta = timedelta(minutes=60)
    key_cache_size: int = 1000
    disable_core_dumps: bool = False

    @property
    def kms_provider(self) -> Provider[KeyManagementService]:
        """What makes the KMS."""
        return KMS.find(self.kms)

    @property
    def metastore_provider(self) -> Provider[Metastore]:
        """What makes the metastore."""
        return METASTORE.find(self.metastore)


SETTING_NAMES = tuple(item.name.upper() for item in fields(Settings))


def get_settings() -> Settings:
    """Return the settings as they are now.

    Raises:
        ImproperlyConfigured: they are wrong; the message names the setting and the fix.
    """
    for problem in find_problems():
        raise ImproperlyConfigured(f"{problem.message} {problem.hint} ({problem.id})")
    given: dict[str, Any] = {name.lower(): value for name, value in django_settings.ASHERAH.items()}
    return Settings(**given)


def find_problems() -> Iterator[Problem]:
    """Find what is wrong with ``settings.ASHERAH``, without touching a network, a database or a key."""
    raw = getattr(django_settings, "ASHERAH", None)
    if not isinstance(raw, Mapping):
        yield Problem(
            "asherah.E001",
            "settings.ASHERAH is missing or not a dict.",
            "Set at least SERVICE and PRODUCT in it.",
        )
        return
    yield from unknown_names("asherah.E002", "settings.ASHERAH", raw, SETTING_NAMES)
    yield from _names(raw)
    yield from KMS.find_problems(raw)
    yield from METASTORE.find_problems(raw)
    yield from _guard(raw)
    yield from _limits(raw)


def _names(raw: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("SERVICE", "PRODUCT"):
        if not raw.get(name):
            yield Problem(
                "asherah.E003",
                f"ASHERAH[{name!r}] is not set.",
                "It becomes part of every key id: choose it once.",
            )
    for name in ("SERVICE", "PRODUCT", "KEY_SUFFIX"):
        value = raw.get(name)
        if value and not _is_name(value):
            yield Problem(
                "asherah.E004",
                f"ASHERAH[{name!r}] is {value!r}.",
                "Use ASCII letters, digits, '.', '_' and '-': other SDKs can't read key records with more.",
            )
    yield from _read_suffixes(raw.get("READ_SUFFIXES", ()))
    yield from _partition(raw)


def _read_suffixes(value: object) -> Iterator[Problem]:
    if not isinstance(value, list | tuple) or not all(map(_is_name, value)):
        yield Problem(
            "asherah.E004",
            f"ASHERAH['READ_SUFFIXES'] is {value!r}.",
            "Give a list of the other regions' suffixes, each of ASCII letters, digits, '.', '_' and '-'.",
        )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(NAME.fullmatch(value))


def _partition(raw: Mapping[str, Any]) -> Iterator[Problem]:
    service, product = (raw[name] if _is_name(raw.get(name)) else "x" for name in ("SERVICE", "PRODUCT"))
    try:
        Partition(raw.get("PARTITION", "default"), service, product)
    except EncryptionError as exc:
        yield Problem(
            "asherah.E005",
            f"ASHERAH['PARTITION']: {exc}.",
            "Name a partition, or leave it out for 'default'.",
        )


def _guard(raw: Mapping[str, Any]) -> Iterator[Problem]:
    path = raw.get("PARTITION_GUARD", "")
    if path != "" and not is_dotted_path(path):
        yield Problem(
            "asherah.E017",
            f"ASHERAH['PARTITION_GUARD'] is {path!r}.",
            "Give the dotted path of a function that takes a request and returns its partitions, or leave it out.",
        )


def _limits(raw: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("EXPIRE_KEY_AFTER", "REVOKE_CHECK_INTERVAL"):
        value = raw.get(name, timedelta(1))
        if not isinstance(value, timedelta) or value < timedelta(seconds=1):
            yield Problem("asherah.E015", f"ASHERAH[{name!r}] is {value!r}.", "Give a timedelta of a second or more.")
    size = raw.get("KEY_CACHE_SIZE", 1000)
    if not is_count(size):
        yield Problem("asherah.E015", f"ASHERAH['KEY_CACHE_SIZE'] is {size!r}.", "Give a whole number above 0.")
    flag = raw.get("DISABLE_CORE_DUMPS", False)
    if not isinstance(flag, bool):
        yield Problem("asherah.E015", f"ASHERAH['DISABLE_CORE_DUMPS'] is {flag!r}.", "Give True or False.")
