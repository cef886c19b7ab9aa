"""Checks of ``settings.ASHERAH``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning

from django_asherah.conf import Settings, find_problems, get_settings
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
    for name in ("SERVICE", "PRODUCT", "KEY_SUFFIX"):
        value = getattr(settings, name.lower())
        if value and "_" in value:
            yield Problem(
                "asherah.W002",
                f"ASHERAH[{name!r}] is {value!r}. Key ids join their parts with '_', so another partition, service "
                "and product may make the same key id.",
                "Choose a name without '_'; silence this if the keys exist already.",
            )
