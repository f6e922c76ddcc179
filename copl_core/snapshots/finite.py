"""Numbers of a snapshot that are not finite: none is published, and one that has them is not shown.

A right digest says that a file is as it was written, and not that a training went well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

_OTHER = {"labels", "config", "metrics", "limit"}  # fields that no score is computed with, or that may be infinite


def not_finite(part: object) -> list[str]:
    """Names of the tables and numbers in a part of a snapshot that hold NaN or an infinite number.

    It takes two passes over tables that are in memory, and no memory.
    """
    return [name for name, value in _numbers("", part) if not _is_finite(value)]


def not_finite_on_disk(folder: Path) -> list[str]:
    """The same of the tables in all safetensors files below a folder, one table at a time."""
    found = []
    for path in sorted(folder.rglob("*.safetensors")):
        with suppress(SafetensorError), safe_open(path, framework="numpy") as tables:  # its reader reports it
            for name in tables.keys():  # noqa: SIM118  (it is no dictionary)
                if tables.get_slice(name).get_dtype() not in ("F16", "F32", "F64") or name.endswith("limit"):
                    continue
                if not _is_finite(tables.get_tensor(name)):
                    found.append(f"{path.relative_to(folder)}: {name}")
    return found


def in_words(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"numbers that are not finite (in {', '.join(names[:3])}{more})"


def _numbers(name: str, part: object) -> Iterator[tuple[str, np.ndarray | float]]:
    if isinstance(part, float) or isinstance(part, np.ndarray) and part.dtype.kind == "f":
        yield name, part
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from _numbers(str(key), value)
    elif isinstance(part, tuple):
        for index, value in enumerate(part):
            yield from _numbers(f"{name}.{index}", value)
    elif is_dataclass(part):
        for field in fields(part):
            if field.name not in _OTHER:
                yield from _numbers(field.name, getattr(part, field.name))


def _is_finite(value: np.ndarray | float) -> bool:
    """The least and the largest number of a table are NaN where any is."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not value.size or bool(np.isfinite(value.min()) and np.isfinite(value.max()))
