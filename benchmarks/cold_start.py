"""The timeline of a first start: from the command to the first pair, map and experts on screen.

    python -m benchmarks.cold_start [--weights FOLDER]

It runs what ``make run`` runs after the packages are installed, ``python -m copl_core up``, in an empty home with the
weights in place, and opens the pages in a real browser as the owner.  Each line is a moment at which something is on
screen, in seconds since the command and since the address was printed.  The browser starts before the clock.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from copl_core.config import Settings

DESCRIPTION = "the timeline of a first start: link, first pair, first map, first experts"
ROOT = Path(__file__).resolve().parents[1]
PATIENCE_MS = 180_000
# (moment, page, selector of what must be on screen)
MOMENTS = (
    ("first pair", "label", ".st-key-response-a, .st-key-response-left"),
    ("first map", "people", ".js-plotly-plot .main-svg"),
    ("first experts", "experts", ".js-plotly-plot .main-svg"),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=Settings.from_environment().weights)
    arguments = parser.parse_args(argv)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("chromium is needed to see when a page is on screen; install it (on Debian: apt install chromium)")
        return 1
    with _browser(chromium) as page, tempfile.TemporaryDirectory() as home:
        (Path(home) / "weights").symlink_to(arguments.weights.resolve(), target_is_directory=True)
        timeline(page, Path(home))
    return 0


def timeline(page, home: Path) -> None:
    started = time.monotonic()
    with studio(home) as link:
        printed = time.monotonic()
        print(f"{'':16}{'since the command':>20}{'since the address':>20}")
        _line("address printed", started, printed)
        root, _, secret = link.partition("/?")
        for moment, name, selector in MOMENTS:
            page.goto(f"{root}/{name}?{secret}")
            page.locator(selector).first.wait_for(timeout=PATIENCE_MS)
            _line(moment, started, printed)


def _line(moment: str, started: float, printed: float) -> None:
    now = time.monotonic()
    print(f"{moment:16}{now - started:18.1f} s{max(0.0, now - printed):18.1f} s", flush=True)


@contextmanager
def studio(home: Path) -> Iterator[str]:
    """A studio in an empty home; yields the owner's sign-in link as soon as it is printed."""
    environment = os.environ | {"COPL_HOME": str(home), "COPL_PORT": str(_free_port())}
    process = subprocess.Popen(
        [sys.executable, "-m", "copl_core", "up"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None  # it is a pipe
    try:
        yield next(found[0] for line in process.stdout if (found := re.findall(r"http://\S+token=\S+", line)))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def _browser(chromium: str) -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": 1440, "height": 900})
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
