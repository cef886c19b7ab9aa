"""Is encryption at work? For readiness probes and monitors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from django.core.exceptions import ImproperlyConfigured

from django_asherah import engine
from django_asherah.envelope.aead import wipe
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import AsherahError
from django_asherah.kms.regional import RegionalKMS


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of the keys.

    Attributes:
        keys_in_hand: opened keys that this process holds. While there are some, it works on without a KMS.
        failing_regions: maps each region that failed to the reason.
        problems: what keeps values from being encrypted or decrypted. A region that fails while
            another answers is none.
    """

    keys_in_hand: int = 0
    failing_regions: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether values can be encrypted and decrypted, as far as is known."""
        return not self.problems


def check(*, deep: bool = False) -> Health:
    """Tell how things stand. Never raises what goes wrong with keys, but reports it.

    Args:
        deep: ask. The newest system key is read from the metastore and unwrapped in each region alone, which takes one
            KMS call a region, and as long as the timeouts where one is down. Otherwise nobody is asked: only what this
            process has met since it started is told, and it takes microseconds.
    """
    try:
        factory = engine.get_factory()
        failing = _ask(factory) if deep else _remember(factory)
    except (ImproperlyConfigured, AsherahError) as exc:
        return Health(problems=(f"{type(exc).__name__}: {exc}",))
    keys = len(factory.system_keys) + len(factory.intermediate_keys)
    problems = [] if keys and not deep else list(_no_region_left(factory, failing))
    return Health(keys, failing, tuple(problems))


def _no_region_left(factory: SessionFactory, failing: dict[str, str]) -> Iterator[str]:
    regions = getattr(factory.kms, "master_keys", {})
    if regions and failing.keys() >= set(regions):
        yield f"no region's KMS answers: {', '.join(regions)}"


def _remember(factory: SessionFactory) -> dict[str, str]:
    failing: Callable[[], frozenset[str]] = getattr(factory.kms, "failing_regions", frozenset)
    return dict.fromkeys(sorted(failing()), "its last answer to this process was a failure")


def _ask(factory: SessionFactory) -> dict[str, str]:
    record = factory.metastore.load_latest(factory.system_key_id)
    kms = factory.kms
    if isinstance(kms, RegionalKMS):
        return dict(_ask_regions(kms, record.key if record else None))
    if record is not None:
        wipe(kms.decrypt_key(record.key))
    return {}


def _ask_regions(kms: RegionalKMS, wrapped: bytes | None) -> Iterator[tuple[str, str]]:
    for region in kms.master_keys:
        try:
            if wrapped is None:
                kms.check_region(region)
            else:
                wipe(kms.decrypt_key_in(region, wrapped))
        except AsherahError as exc:
            yield region, str(exc)
