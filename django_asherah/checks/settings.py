"""Checks of ``settings.ASHERAH``."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning

from django_asherah.conf import Settings, find_problems, get_settings


@register(Tags.security)
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report what is wrong with the settings, and what is better otherwise."""
    problems = list(find_problems())
    if problems:
        return [Error(problem.message, hint=problem.hint, id=problem.id) for problem in problems]
    settings = get_settings()
    return [*_one_region(settings), *_ambiguous_names(settings)]


@register(Tags.security, deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report what is fine in development only."""
    if any(find_problems()):
        return []
    settings = get_settings()
    return [*_static_kms(settings), *_endpoints(settings), *_dynamodb_endpoint(settings), *_memory(settings)]


def _one_region(settings: Settings) -> Iterator[CheckMessage]:
    if settings.kms == "aws" and len(settings.regions) == 1:
        yield CheckWarning(
            "ASHERAH['REGIONS'] names one region only: while its KMS is down, nothing can be decrypted.",
            hint="Add the ARN of a KMS key in a second region.",
            id="asherah.W001",
        )


def _ambiguous_names(settings: Settings) -> Iterator[CheckMessage]:
    for name in ("SERVICE", "PRODUCT", "KEY_SUFFIX"):
        value = getattr(settings, name.lower())
        if value and "_" in value:
            yield CheckWarning(
                f"ASHERAH[{name!r}] is {value!r}. Key ids join their parts with '_', so another partition, service "
                "and product may make the same key id.",
                hint="Choose a name without '_'; silence this if the keys exist already.",
                id="asherah.W002",
            )


def _static_kms(settings: Settings) -> Iterator[CheckMessage]:
    if settings.kms == "static":
        yield Error(
            "ASHERAH['KMS'] is 'static': the master key stands in the settings.",
            hint="Use 'aws' with a KMS key in each region. The static KMS is for development and tests.",
            id="asherah.E020",
        )


def _endpoints(settings: Settings) -> Iterator[CheckMessage]:
    if settings.kms != "aws":
        return
    urls = settings.kms_options.get("endpoint_urls", {})
    places = {f"ASHERAH['KMS_OPTIONS']['endpoint_urls'][{region!r}]": url for region, url in urls.items()}
    for name in ("AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"):
        places[f"The environment variable {name}"] = os.environ.get(name, "")
    for place, url in places.items():
        if url and _is_unsafe(url):
            yield Error(
                f"{place} is {url!r}: an emulated KMS, or one that is spoken to without TLS.",
                hint="Leave it out, so that AWS's own endpoint is used, or give the https:// URL of a VPC endpoint.",
                id="asherah.E021",
            )


def _dynamodb_endpoint(settings: Settings) -> Iterator[CheckMessage]:
    if settings.metastore != "dynamodb":
        return
    places = {
        "ASHERAH['METASTORE_OPTIONS']['endpoint_url']": settings.metastore_options.get("endpoint_url"),
        "The environment variable AWS_ENDPOINT_URL_DYNAMODB": os.environ.get("AWS_ENDPOINT_URL_DYNAMODB"),
    }
    for place, url in places.items():
        if url and _is_unsafe(url):
            yield Error(
                f"{place} is {url!r}: an emulated DynamoDB, or one that is spoken to without TLS.",
                hint="Leave it out, so that AWS's own endpoint is used, or give the https:// URL of a VPC endpoint.",
                id="asherah.E023",
            )


def _is_unsafe(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False


def _memory(settings: Settings) -> Iterator[CheckMessage]:
    if settings.metastore == "memory":
        yield Error(
            "ASHERAH['METASTORE'] is 'memory': every key is lost when the process ends, and all data with it.",
            hint="Use 'database'. The metastore in memory is for tests.",
            id="asherah.E022",
        )
