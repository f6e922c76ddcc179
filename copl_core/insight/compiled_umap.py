"""UMAP whose compiled functions stay on disk.

umap leaves most of its numba functions uncached, so that every process compiles them again at its first map: about
20 seconds of one core.  Here numba caches them beside umap's own files (or below ``NUMBA_CACHE_DIR``).
"""

from __future__ import annotations

import sys
from types import ModuleType


def load_umap() -> ModuleType:
    """The package ``umap``, imported with numba's cache on."""
    if "umap" not in sys.modules:
        import numba

        compile_now = numba.njit
        numba.njit = lambda *args, **options: compile_now(*args, **{"cache": True} | options)
        try:
            import umap  # noqa: F401
        finally:
            numba.njit = compile_now
    return sys.modules["umap"]
