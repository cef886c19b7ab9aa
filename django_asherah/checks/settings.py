"""Checks of ``settings.ASHERAH``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning

from django_asherah.conf import Settings, find_problems, get_settings
from django_asherah.envelope.partition import readable_system_ids, system_key_id
from django_asherah.problems import Problem


@register(Tags.security)
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report what is wrong with the settings, and what is better otherwise."""
    problems = list(find_problems())
    if problems:
        return [_message(Error, problem) for problem in problems]
    settings = get_settings()
    found = [
        *settings.kms_provider.find_warnings(settings),
        *settings.metastore_provider.find_warnings(settings),
        *_ambiguous_names(settings),
    ]
    return [_message(CheckWarning, problem) for problem in found]


@register(Tags.security, deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report what is fine in development only."""
    if any(find_problems()):
        return []
    settings = get_settings()
    found = [
        *settings.kms_provider.find_deploy_problems(settings),
        *settings.metastore_provider.find_deploy_problems(settings),
    ]
    return [_message(Error, problem) for problem in found]


def _message(level: type[Error | CheckWarning], problem: Problem) -> CheckMessage:
    return level(problem.message, hint=problem.hint, id=problem.id)


def _ambiguous_names(settings: Settings) -> Iterator[Problem]:
    for name in ("SERVICE", "PRODUCT", "KEY_SUFFIX", "READ_SUFFIXES"):
        value = getattr(settings, name.lower())
        if "_" in "".join(value):
            yield Problem(
                "asherah.W002",
                f"ASHERAH[{name!r}] is {value!r}. Key ids join their parts with '_', so another partition, service "
                "and product may make the same key id.",
                "Choose a name without '_'; silence this if the keys exist already.",
            )
    yield from _unread_suffixes(settings)


def _unread_suffixes(settings: Settings) -> Iterator[Problem]:
    service, product, own, others = settings.service, settings.product, settings.key_suffix, settings.read_suffixes
    read = readable_system_ids(service, product, own, others)
    for suffix in dict.fromkeys(("", *others)):
        if system_key_id(service, product, suffix) not in read:
            what = f"with the suffix {suffix!r}" if suffix else "without a suffix"
            yield Problem(
                "asherah.W002",
                f"Keys {what} are not read: one of a partition can have the same id as another partition's key with "
                "a suffix that is read.",
                "Choose a SERVICE, PRODUCT and KEY_SUFFIX that differ; silence this if there are no such keys.",
            )
