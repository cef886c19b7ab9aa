"""Providers of key management services and metastores: what a name in the settings stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_asherah.envelope.interfaces import Listener
from django_asherah.problems import Problem, is_dotted_path, unknown_names

T = TypeVar("T")

RawSettings = Mapping[str, Any]
"""``settings.ASHERAH`` as it was written."""


def _find_nothing(settings: Any) -> Iterable[Problem]:
    return ()


def _in_no_database(settings: Any) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Provider(Generic[T]):
    """One entry: all that the settings, the checks and the engine know of a provider.

    Importing the module of an entry must load no client library: checks do that in every process.

    Attributes:
        make: returns what is provided, given the ``conf.Settings`` and whom to tell of events.
        options: the names that ``KMS_OPTIONS`` or ``METASTORE_OPTIONS`` may have; None if any.
        find_problems: finds what is wrong with the settings as they were written, with check ids. Asks no network.
        find_warnings: finds what is better otherwise, in right ``conf.Settings``.
        find_deploy_problems: finds what is fine in development only, in right ``conf.Settings``.
        find_database: returns the alias of the database that holds the key table, if one does.
        extra: what to install for it: ``django-asherah[<extra>]``.
    """

    make: Callable[[Any, Listener], T]
    options: tuple[str, ...] | None = ()
    find_problems: Callable[[RawSettings], Iterable[Problem]] = _find_nothing
    find_warnings: Callable[[Any], Iterable[Problem]] = _find_nothing
    find_deploy_problems: Callable[[Any], Iterable[Problem]] = _find_nothing
    find_database: Callable[[Any], str | None] = _in_no_database
    extra: str = ""

    def __call__(self, settings: Any, on_event: Listener) -> T:
        """Return what is provided.

        Raises:
            ImproperlyConfigured: the library that it needs is not installed.
        """
        try:
            return self.make(settings, on_event)
        except ImportError as exc:
            if not self.extra:
                raise
            raise ImproperlyConfigured(f"{exc}. Install it: pip install 'django-asherah[{self.extra}]'") from exc


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The providers of one setting, by name. A dotted path names one of somebody else's.

    Attributes:
        setting: the setting's name. Its options are in ``<setting>_OPTIONS``.
        default: its value if it is not set.
        paths: maps each name to the dotted path of its :class:`Provider`.
        wrong_name: the id of the check of the setting's value.
        wrong_options: the id of the check of its options.
    """

    setting: str
    default: str
    paths: Mapping[str, str]
    wrong_name: str
    wrong_options: str

    def find(self, name: str) -> Provider[T]:
        """Return the provider of that name, or the one at that dotted path.

        What is not a ``Provider`` there is taken for a function, or class, that makes what is provided of the settings.
        If there is nothing, the provider refuses to make anything.
        """
        try:
            found = import_string(self.paths.get(name, name))
        except ImportError as exc:
            return self._refusal(name, f"can't be imported: {exc}")
        if isinstance(found, Provider):
            return found
        if not callable(found):
            return self._refusal(name, f"is no class, function or Provider, but a {type(found).__name__}")
        return Provider(make=lambda settings, on_event: found(settings), options=None)

    def find_problems(self, raw: RawSettings) -> Iterator[Problem]:
        """Find what is wrong with the setting and its options."""
        name, options = raw.get(self.setting, self.default), raw.get(f"{self.setting}_OPTIONS", {})
        where = f"ASHERAH['{self.setting}_OPTIONS']"
        if not isinstance(options, Mapping):
            yield Problem(self.wrong_options, f"{where} is not a dict.", "Give a dict, or leave it out.")
            return
        if not isinstance(name, str) or (name not in self.paths and not is_dotted_path(name)):
            names = ", ".join(map(repr, self.paths))
            hint = f"Choose {names}, or give the dotted path of a class."
            yield Problem(self.wrong_name, f"ASHERAH[{self.setting!r}] is {name!r}.", hint)
            return
        provider = self.find(name)
        if provider.options is not None:
            yield from unknown_names(self.wrong_options, where, options, provider.options)
        yield from provider.find_problems(raw)

    def _refusal(self, name: str, reason: str) -> Provider[T]:
        def make(settings: Any, on_event: Listener) -> NoReturn:
            raise ImproperlyConfigured(f"ASHERAH[{self.setting!r}] is {name!r}, which {reason}")

        return Provider(make=make, options=None)
