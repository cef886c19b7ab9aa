"""``settings.ASHERAH``, typed. Read on access, so that ``override_settings`` works."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from django_asherah.envelope.partition import NAME, Partition
from django_asherah.exceptions import EncryptionError

KMS_NAMES = ("aws", "static")
METASTORE_NAMES = ("database", "dynamodb", "memory")
DYNAMODB_OPTIONS = ("table_name", "region", "endpoint_url", "connect_timeout", "read_timeout", "session")
AWS_OPTIONS = ("connect_timeout", "read_timeout", "max_attempts", "endpoint_urls", "session")
STATIC_OPTIONS = ("key",)

_ARN = re.compile(r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):\d{12}:(key|alias)/[A-Za-z0-9/_-]+")
_STATIC_KEY = re.compile(r"[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one setting. ``id`` is the system check's id, stable for ever."""

    id: str
    message: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``settings.ASHERAH`` with every default filled in. Field names are the setting names in lower case.

    ``kms_options`` may hold the static key, so it is not part of the repr.
    """

    service: str
    product: str
    regions: Mapping[str, str] = field(default_factory=dict)
    preferred_region: str = ""
    kms: str = "aws"
    kms_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metastore: str = "database"
    metastore_options: Mapping[str, Any] = field(default_factory=dict)
    database: str = "default"
    partition: str = "default"
    key_suffix: str = ""
    expire_key_after: timedelta = timedelta(days=90)
    revoke_check_interval: timedelta = timedelta(minutes=60)
    key_cache_size: int = 1000
    disable_core_dumps: bool = False


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
    for find in (_unknown_names, _names, _kms, _metastore, _numbers):
        yield from find(raw)


def _unknown_names(raw: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _unknown("asherah.E002", "settings.ASHERAH", raw, SETTING_NAMES)


def _unknown(id: str, place: str, given: Mapping[str, Any], known: Iterable[str]) -> Iterator[Problem]:
    spelled = {name.lower(): name for name in known}
    for name in given:
        if name in spelled.values():
            continue
        near = difflib.get_close_matches(str(name).lower(), spelled, n=1, cutoff=0.5)
        names = ", ".join(spelled.values()) or "none"
        yield Problem(
            id,
            f"{place} has no setting {name!r}.",
            f"Did you mean {spelled[near[0]]!r}?" if near else f"Known are: {names}.",
        )


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
    yield from _partition(raw)


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


def _kms(raw: Mapping[str, Any]) -> Iterator[Problem]:
    kms, options = raw.get("KMS", "aws"), raw.get("KMS_OPTIONS", {})
    if not isinstance(options, Mapping):
        yield Problem("asherah.E006", "ASHERAH['KMS_OPTIONS'] is not a dict.", "Give a dict, or leave it out.")
        return
    if kms == "aws":
        yield from _regions(raw)
        yield from _unknown("asherah.E006", "ASHERAH['KMS_OPTIONS']", options, AWS_OPTIONS)
        yield from _aws_options(options, raw.get("REGIONS"))
    elif kms == "static":
        yield from _unknown("asherah.E006", "ASHERAH['KMS_OPTIONS']", options, STATIC_OPTIONS)
        yield from _static_key(options)
    else:
        yield from _dotted("asherah.E007", "KMS", kms, KMS_NAMES)


def _regions(raw: Mapping[str, Any]) -> Iterator[Problem]:
    regions = raw.get("REGIONS")
    if not isinstance(regions, Mapping) or not regions:
        yield Problem(
            "asherah.E010",
            "ASHERAH['REGIONS'] is empty or not a dict.",
            "Map each region to the ARN of its KMS key: {'us-west-2': 'arn:aws:kms:us-west-2:…:key/…'}.",
        )
        return
    for region, arn in regions.items():
        yield from _arn(region, arn)
    preferred = raw.get("PREFERRED_REGION")
    if preferred not in list(regions):
        yield Problem(
            "asherah.E013",
            f"ASHERAH['PREFERRED_REGION'] is {preferred!r}, which is not in ASHERAH['REGIONS'].",
            f"Choose one of: {', '.join(map(str, regions))}.",
        )


def _arn(region: object, arn: object) -> Iterator[Problem]:
    match = _ARN.fullmatch(arn) if isinstance(arn, str) else None
    if match is None:
        yield Problem(
            "asherah.E011",
            f"ASHERAH['REGIONS'][{region!r}] is {arn!r}, which is not the ARN of a KMS key.",
            "An ARN looks like arn:aws:kms:<region>:<12-digit account>:key/<key id>.",
        )
    elif match["region"] != region:
        yield Problem(
            "asherah.E012",
            f"ASHERAH['REGIONS'][{region!r}] is the ARN of a key in {match['region']!r}.",
            "Give each region the ARN of a key in that region.",
        )


def _aws_options(options: Mapping[str, Any], regions: object) -> Iterator[Problem]:
    place = "ASHERAH['KMS_OPTIONS']"
    for name in ("connect_timeout", "read_timeout"):
        value = options.get(name, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            yield Problem("asherah.E006", f"{place}[{name!r}] is {value!r}.", "Give seconds, above 0.")
    attempts = options.get("max_attempts", 1)
    if not _is_count(attempts):
        yield Problem("asherah.E006", f"{place}['max_attempts'] is {attempts!r}.", "Give a whole number above 0.")
    yield from _endpoint_urls(options.get("endpoint_urls", {}), regions)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _endpoint_urls(urls: object, regions: object) -> Iterator[Problem]:
    place = "ASHERAH['KMS_OPTIONS']['endpoint_urls']"
    if not isinstance(urls, Mapping):
        yield Problem("asherah.E006", f"{place} is not a dict.", "Map regions to URLs.")
        return
    if isinstance(regions, Mapping):
        yield from _unknown("asherah.E006", place, urls, map(str, regions))
    for region, url in urls.items():
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            yield Problem("asherah.E006", f"{place}[{region!r}] is not a URL.", "It begins with https:// or http://.")


def _static_key(options: Mapping[str, Any]) -> Iterator[Problem]:
    key = options.get("key")
    if not isinstance(key, str) or not _STATIC_KEY.fullmatch(key):
        # The value itself stays out of the message: it is, or was meant to be, a key.
        yield Problem(
            "asherah.E014",
            "ASHERAH['KMS_OPTIONS']['key'] is not a key of 32 bytes.",
            "Give 64 hex digits, for example from python -c 'import secrets; print(secrets.token_hex(32))'.",
        )


def _metastore(raw: Mapping[str, Any]) -> Iterator[Problem]:
    metastore, options = raw.get("METASTORE", "database"), raw.get("METASTORE_OPTIONS", {})
    if not isinstance(options, Mapping):
        yield Problem("asherah.E016", "ASHERAH['METASTORE_OPTIONS'] is not a dict.", "Give a dict, or leave it out.")
    elif metastore in METASTORE_NAMES:
        known = DYNAMODB_OPTIONS if metastore == "dynamodb" else ()
        yield from _unknown("asherah.E016", "ASHERAH['METASTORE_OPTIONS']", options, known)
    else:
        yield from _dotted("asherah.E008", "METASTORE", metastore, METASTORE_NAMES)
    alias = raw.get("DATABASE", "default")
    if metastore == "database" and alias not in list(django_settings.DATABASES):
        yield Problem(
            "asherah.E009",
            f"ASHERAH['DATABASE'] is {alias!r}, which is not in settings.DATABASES.",
            f"Choose one of: {', '.join(django_settings.DATABASES)}.",
        )


def _dotted(id: str, name: str, value: object, known: tuple[str, ...]) -> Iterator[Problem]:
    if not isinstance(value, str) or "." not in value:
        names = ", ".join(map(repr, known))
        yield Problem(id, f"ASHERAH[{name!r}] is {value!r}.", f"Choose {names}, or give the dotted path of a class.")


def _numbers(raw: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("EXPIRE_KEY_AFTER", "REVOKE_CHECK_INTERVAL"):
        value = raw.get(name, timedelta(1))
        if not isinstance(value, timedelta) or value < timedelta(seconds=1):
            yield Problem("asherah.E015", f"ASHERAH[{name!r}] is {value!r}.", "Give a timedelta of a second or more.")
    size = raw.get("KEY_CACHE_SIZE", 1000)
    if not _is_count(size):
        yield Problem("asherah.E015", f"ASHERAH['KEY_CACHE_SIZE'] is {size!r}.", "Give a whole number above 0.")
    flag = raw.get("DISABLE_CORE_DUMPS", False)
    if not isinstance(flag, bool):
        yield Problem("asherah.E015", f"ASHERAH['DISABLE_CORE_DUMPS'] is {flag!r}.", "Give True or False.")
