"""The app without a trainer, for benchmarks that open its pages."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.cluster import free_ports

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def app_alone(home: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address of a fresh app on a free port, once it answers or a minute has gone, and its process."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "streamlit", "run", "streamlit_app.py", "--server.headless", "true"]
    process = subprocess.Popen(
        [*command, "--server.port", str(port), "--server.address", "127.0.0.1"],
        cwd=ROOT,
        env=os.environ | {"COPL_HOME": str(home)} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        for _ in range(300):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(20)
