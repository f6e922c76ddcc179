"""The memory of the trainer: what it used at most, and giving back what it no longer uses."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's mallopt
_LARGE = 4 << 20  # bytes; a larger tensor is returned to the system when it is freed
_ARENAS = 2
# Compiled matrix products, by their shapes, that oneDNN and torch's layer above it keep; 1,024 are half a GB in a fit.
_KEPT_PRODUCTS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16", "LRU_CACHE_CAPACITY": "16"}


def peak_gigabytes() -> float:
    """The most memory that this process has used so far, in GB (10^9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def keep_memory_low() -> None:
    """Let glibc keep no large freed blocks and oneDNN few compiled products, before torch computes anything.

    Texts of a fit have many lengths: tensors of as many sizes would leave holes, and products of as many shapes would
    all stay compiled.
    """
    for name, capacity in _KEPT_PRODUCTS.items():
        os.environ.setdefault(name, capacity)
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
