"""What another process has used, as Linux counts it."""

from __future__ import annotations

import os
from pathlib import Path


def processor_of(pid: int) -> float:
    """Processor seconds of a process, all of its threads together."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> float:
    """Peak memory (GiB) of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(text.split()[1]) for text in lines if text.startswith("VmHWM")) / 2**20
