"""Keeps this process's memory, and the keys in it, out of core dumps."""

from __future__ import annotations

import ctypes
import os
import sys

from django.core.exceptions import ImproperlyConfigured

_PR_SET_DUMPABLE = 4
"""``linux/prctl.h``"""


def disable_core_dumps() -> None:
    """Permanently keep this process and its forks from leaving a core dump.

    The limit alone is not enough on Linux: the kernel ignores it when it pipes dumps into a program
    (``core_pattern``), so the process is also marked as not dumpable. Other processes of the same user then can't
    read its memory or attach a debugger either.

    Raises:
        ImproperlyConfigured: this system can't do it.
    """
    try:
        import resource
    except ImportError:
        raise _refusal("this system has no limit for core dumps") from None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise _refusal(f"prctl failed: {os.strerror(ctypes.get_errno())}")


def _refusal(why: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"ASHERAH['DISABLE_CORE_DUMPS'] is True, but {why}. Remove the setting.")
