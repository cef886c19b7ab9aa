"""The provider ``aws``: AWS KMS in every region that ``REGIONS`` names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from django_asherah.conf import Settings
from django_asherah.envelope.interfaces import KeyManagementService, Listener
from django_asherah.problems import Problem, is_count, is_duration, is_url, unknown_names, unsafe_endpoints
from django_asherah.providers import Provider, RawSettings

_ARN = re.compile(r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):\d{12}:(?P<kind>key|alias)/[A-Za-z0-9/_-]+")

_OPTIONS = "ASHERAH['KMS_OPTIONS']"


def _make(settings: Settings, on_event: Listener) -> KeyManagementService:
    from django_asherah.kms.aws import AwsKMS

    return AwsKMS(settings.regions, settings.preferred_region, on_event=on_event, **settings.kms_options)


def _find_problems(raw: RawSettings) -> Iterator[Problem]:
    yield from _regions(raw)
    yield from _options(raw.get("KMS_OPTIONS", {}), raw.get("REGIONS"))


def _regions(raw: RawSettings) -> Iterator[Problem]:
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
    elif match["kind"] == "alias":
        # Whoever points it at another key makes every record unreadable, and no record says which key it was.
        yield Problem(
            "asherah.E011",
            f"ASHERAH['REGIONS'][{region!r}] is {arn!r}, an alias, which may be pointed at another key.",
            f"Give the key's own ARN: aws kms describe-key --region {region} --key-id {arn} --query KeyMetadata.Arn "
            "--output text. Keys that were wrapped under the alias open as before; asherah_rewrap stores the key's "
            "own ARN with them.",
        )


def _options(options: Mapping[str, Any], regions: object) -> Iterator[Problem]:
    for name in ("connect_timeout", "read_timeout"):
        value = options.get(name, 1.0)
        if not is_duration(value):
            yield Problem("asherah.E006", f"{_OPTIONS}[{name!r}] is {value!r}.", "Give seconds, above 0.")
    attempts = options.get("max_attempts", 1)
    if not is_count(attempts):
        yield Problem("asherah.E006", f"{_OPTIONS}['max_attempts'] is {attempts!r}.", "Give a whole number above 0.")
    yield from _endpoint_urls(options.get("endpoint_urls", {}), regions)


def _endpoint_urls(urls: object, regions: object) -> Iterator[Problem]:
    where = f"{_OPTIONS}['endpoint_urls']"
    if not isinstance(urls, Mapping):
        yield Problem("asherah.E006", f"{where} is not a dict.", "Map regions to URLs.")
        return
    if isinstance(regions, Mapping):
        yield from unknown_names("asherah.E006", where, urls, map(str, regions))
    for region, url in urls.items():
        if not is_url(url):
            yield Problem("asherah.E006", f"{where}[{region!r}] is not a URL.", "It begins with https:// or http://.")


def _find_warnings(settings: Settings) -> Iterator[Problem]:
    if len(settings.regions) == 1:
        yield Problem(
            "asherah.W001",
            "ASHERAH['REGIONS'] names one region only: while its KMS is down, nothing can be decrypted.",
            "Add the ARN of a KMS key in a second region.",
        )


def _find_deploy_problems(settings: Settings) -> Iterator[Problem]:
    urls = {f"{_OPTIONS}['endpoint_urls'][{name!r}]": url for name, url in _urls_of(settings).items()}
    for name in ("AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"):
        urls[f"The environment variable {name}"] = os.environ.get(name, "")
    yield from unsafe_endpoints("asherah.E021", "KMS", urls.items())


def _urls_of(settings: Settings) -> Mapping[str, str]:
    urls: Mapping[str, str] = settings.kms_options.get("endpoint_urls", {})
    return urls


PROVIDER = Provider(
    make=_make,
    options=("connect_timeout", "read_timeout", "max_attempts", "endpoint_urls", "session"),
    find_problems=_find_problems,
    find_warnings=_find_warnings,
    find_deploy_problems=_find_deploy_problems,
)
