"""The memory of the trainer: what it used at most, and giving back what it no longer uses."""

from __future__ import annotations

import ctypes
import resource
import sys

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's mallopt
_LARGE = 4 << 20  # bytes; a larger tensor is returned to the system when it is freed
_ARENAS = 2


def peak_gigabytes() -> float:
    """The most memory that this process has used so far, in GB (10^9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def keep_memory_low() -> None:
    """Let glibc keep no large freed blocks: tensors of many sizes would leave holes that add up to half a GB."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def release_memory() -> None:
    """Return freed memory to the system."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    try:
        libc = ctypes.CDLL(None)
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
