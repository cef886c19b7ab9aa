"""A system key's regions, compared with the configured ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class RegionFit(StrEnum):
    """How what wraps a system key in one region fits the settings."""

    WRAPPED = "wrapped"
    MISSING = "missing"
    ANOTHER_KEY = "another key"
    NOT_CONFIGURED = "not configured"


@dataclass(frozen=True, slots=True)
class RegionCopy:
    """One region of one system key.

    Attributes:
        region: its name.
        master_key: the master key that wraps it there; the one that should, if it is missing.
        fit: see :class:`RegionFit`.
        is_preferred: whether this region is asked first.
    """

    region: str
    master_key: str
    fit: RegionFit
    is_preferred: bool = False

    @property
    def problem(self) -> str:
        """What is wrong, or nothing."""
        match self.fit:
            case RegionFit.MISSING:
                return f"not wrapped for {self.region}"
            case RegionFit.ANOTHER_KEY:
                return f"wrapped for another key of {self.region}: {self.master_key}"
            case RegionFit.NOT_CONFIGURED:
                return f"wrapped for {self.region}, which is not configured"
        return ""


def compare_regions(held: Mapping[str, str], configured: Mapping[str, str] | None) -> tuple[RegionCopy, ...]:
    """Compare the regions that wrap a system key with those that should.

    Args:
        held: maps each region that wraps it to the name of its master key.
        configured: the same as it should be, the preferred region first; None if nothing is known of that.
    """
    if configured is None:
        return tuple(RegionCopy(region, master_key, RegionFit.WRAPPED) for region, master_key in held.items())
    preferred = next(iter(configured), None)
    wanted = [
        RegionCopy(
            region, held.get(region, master_key), _fit(held.get(region), master_key), is_preferred=region == preferred
        )
        for region, master_key in configured.items()
    ]
    others = [
        RegionCopy(region, master_key, RegionFit.NOT_CONFIGURED)
        for region, master_key in held.items()
        if region not in configured
    ]
    return (*wanted, *others)


def _fit(held: str | None, master_key: str) -> RegionFit:
    if held is None:
        return RegionFit.MISSING
    return RegionFit.WRAPPED if held == master_key else RegionFit.ANOTHER_KEY
