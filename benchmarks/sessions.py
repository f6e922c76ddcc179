"""Many people label in their browsers at the same time: does each key count once, and how long does the next pair take?

    python -m benchmarks.sessions [--sessions N] [--seconds S] [--think S] [--home FOLDER]

A studio is started as ``make run`` starts it, with its trainer, and each session of a browser joins it under a
different name.  All sessions label by keys for a minute: each looks at a pair for a random time around ``--think``
seconds, presses a key, and waits for the next pair.  The browser runs on the same machine, so the times include its
work.

Afterwards the benchmark counts errors on a page or in the logs, labels that a screen acknowledged but the database does
not have, labels in the database that no screen acknowledged, and labels of one task or pair beyond the first.  Without
a reward model the trainer fits the first one, and the sessions begin when it is done.  If the home folder of this
installation has a reward model, a copy of that folder is used.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import psutil

from copl_core.config import Settings

DESCRIPTION = "25 browser sessions label at once for a minute, browser, app and trainer on the same cores"
ROOT = Path(__file__).resolve().parents[1]
TOGETHER = 5  # sessions that open the page at the same time
PATIENCE = 900  # seconds for the first reward model
FULL_RUNS = "SELECT count(*) FROM run WHERE kind = 'full' AND state = 'done'"
IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--mute-audio"]
# Reports, after a key, when the next pair is on the screen and how many answers the page has acknowledged.
WATCH = """() => {
  const texts = () => ["left", "right"].map((side) => document.querySelector(`.st-key-response-${side}`)?.textContent)
      .join("|");
  const count = () => Number((document.querySelector("[data-testid=stMain]").textContent.match(/([\\d,]+) answered/)
      || [0, "-1"])[1].replace(",", ""));
  let pressed = 0;
  addEventListener("keydown", () => { pressed = performance.now(); }, true);
  window.arm = () => { window.following = new Promise((resolve) => {
    const before = texts(), had = count(); let changed = 0;
    const look = () => {
      if (texts() !== before) changed = performance.now();
      if (changed && count() > had) { watch.disconnect(); clearTimeout(late);
                                      resolve([changed - pressed, count()]); }
    };
    const watch = new MutationObserver(look);
    watch.observe(document.body, {subtree: true, childList: true, characterData: true});
    const late = setTimeout(() => { watch.disconnect(); resolve(null); }, 20000);
  }); };
}"""


@dataclass
class Session:
    """One person with a browser."""

    name: str
    milliseconds: list[float] = field(default_factory=list)
    acknowledged: int = 0
    errors: list[str] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sessions", description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think", type=float, default=6.0, help="mean seconds that a person looks at a pair")
    parser.add_argument("--home", type=Path, help="folder of a studio with a reward model; it is copied, not changed")
    arguments = parser.parse_args(argv)
    own = Settings.from_environment().home
    if arguments.home is None and (own / "copl.db").is_file() and _count(own, FULL_RUNS):
        arguments.home = own
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("Skipped: chromium is not installed.")
        return 0
    with tempfile.TemporaryDirectory() as folder, studio(Path(folder) / "home", arguments.home) as (address, home):
        people, processor = asyncio.run(everybody(chromium, address, arguments))
        faults = [error for one in people for error in one.errors] + in_the_logs(home)
        return report(people, stored(home, [one.name for one in people]), faults, processor, arguments)


# ---- the studio


@contextmanager
def studio(home: Path, like: Path | None) -> Iterator[tuple[str, Path]]:
    """(address, home folder) of a studio with a reward model, which stops on leaving."""
    if like is None:
        home.mkdir()
    else:
        shutil.copytree(like, home, symlinks=True, ignore=shutil.ignore_patterns("*.lock", "logs", "weights"))
    weights = (like or Settings.from_environment().home) / "weights"
    if weights.is_dir():
        (home / "weights").symlink_to(weights.resolve(), target_is_directory=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home / "launcher.log"
    with log.open("w") as out:
        environment = os.environ | {"COPL_HOME": str(home), "COPL_PORT": str(port)}
        up = subprocess.Popen(
            [sys.executable, "-u", "-m", "copl_core", "up"],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    try:
        _wait(lambda: "token=" in log.read_text(), up)
        _wait(lambda: _count(home, FULL_RUNS), up)
        yield f"http://localhost:{port}", home
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)


def _wait(ready, up: subprocess.Popen) -> None:
    ends = time.monotonic() + PATIENCE
    while not ready():
        if up.poll() is not None or time.monotonic() > ends:
            raise SystemExit("The studio did not start, or its trainer fitted no reward model.")
        time.sleep(0.5)


def _count(home: Path, query: str, *values: object) -> int:
    with sqlite3.connect(f"file:{home / 'copl.db'}?mode=ro", uri=True) as database:
        return database.execute(query, values).fetchone()[0]


# ---- the people


async def everybody(
    chromium: str, address: str, arguments: argparse.Namespace
) -> tuple[list[Session], dict[str, float]]:
    """The sessions, and the processor seconds of each part of the system while they labelled."""
    from playwright.async_api import async_playwright

    people = [Session(f"session {number}") for number in range(arguments.sessions)]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        pages = []
        for first in range(0, len(people), TOGETHER):
            pages += await asyncio.gather(*(join(browser, address, one) for one in people[first : first + TOGETHER]))
        before, ends = processor_seconds(), time.monotonic() + arguments.seconds
        await asyncio.gather(
            *(
                label(page, person, ends, arguments.think, Random(number))
                for number, (page, person) in enumerate(zip(pages, people, strict=True))
            )
        )
        after = processor_seconds()
        await browser.close()
    return people, {part: after[part] - before[part] for part in after}


async def join(browser, address: str, person: Session):
    page = await (await browser.new_context(viewport={"width": 1280, "height": 900})).new_page()
    page.on("pageerror", lambda error: person.errors.append(f"{person.name}: {error}"))
    page.set_default_timeout(120_000)
    await page.goto(address)
    await page.get_by_label("Your name or a nickname").fill(person.name)
    await page.get_by_role("button", name="Begin").click()
    await page.get_by_text("0 answered").wait_for()
    await page.wait_for_selector(IDLE)
    await page.evaluate(WATCH)
    return page


async def label(page, person: Session, ends: float, think: float, random: Random) -> None:
    """Look, press a key, wait for the next pair, until the time is over."""
    await asyncio.sleep(random.uniform(0, think))  # the sessions do not begin at the same time
    while time.monotonic() < ends:
        await page.evaluate("window.arm()")
        await page.keyboard.press(random.choice("12"))
        found = await page.evaluate("window.following")
        if found is None:
            person.errors.append(f"{person.name}: no next pair within 20 s")
            await page.wait_for_selector(IDLE)
            continue
        person.milliseconds.append(found[0])
        person.acknowledged = found[1]
        await asyncio.sleep(random.uniform(0.5, 1.5) * think)
    for alert in await page.locator("[data-testid=stAlert], [data-testid=stException]").all_inner_texts():
        person.errors.append(f"{person.name}: {alert}")
    await page.wait_for_selector(IDLE)
    answered = re.search(r"([\d,]+) answered", await page.locator("[data-testid=stMain]").inner_text())
    person.acknowledged = int(answered[1].replace(",", ""))


def processor_seconds() -> dict[str, float]:
    """Processor seconds of the app, the trainer and the browser so far."""
    spent = {"app": 0.0, "trainer": 0.0, "browser": 0.0}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            words, times = " ".join(process.cmdline()), process.cpu_times()
            part = "app" if "streamlit run" in words else "browser" if re.search("chrom|/node", words) else "trainer"
            spent[part] += times.user + times.system
    return spent


# ---- afterwards


def stored(home: Path, names: list[str]) -> dict[str, tuple[int, int, int]]:
    """(counting labels, their tasks, their pairs) of each person; a pair can be repeated, a task cannot."""
    with sqlite3.connect(f"file:{home / 'copl.db'}?mode=ro", uri=True) as database:
        rows = database.execute(
            "SELECT user.name, count(*), count(DISTINCT label.task_id), count(DISTINCT label.left_id || '-' || "
            "label.right_id) FROM label JOIN user ON user.id = label.user_id WHERE label.counts GROUP BY user.id"
        )
        found = {name: tuple(counts) for name, *counts in rows}
    return {name: found.get(name, (0, 0, 0)) for name in names}


def in_the_logs(home: Path) -> list[str]:
    """Lines of the app's log that report an exception."""
    return [
        line
        for line in (home / "logs" / "app.log").read_text(errors="replace").splitlines()
        if re.match(r"(\w+\.)*\w*(Error|Exception)\b", line) or "Traceback" in line
    ]


def report(
    people: list[Session],
    found: dict[str, tuple[int, int, int]],
    faults: list[str],
    spent: dict[str, float],
    arguments: argparse.Namespace,
) -> int:
    spans = np.array([span for one in people for span in one.milliseconds])
    lost = sum(max(0, one.acknowledged - found[one.name][0]) for one in people)
    unacknowledged = sum(max(0, found[one.name][0] - one.acknowledged) for one in people)
    double = sum(labels - min(tasks, sides) for labels, tasks, sides in found.values())
    p50, p95 = np.quantile(spans, (0.5, 0.95)) if len(spans) else (np.nan, np.nan)
    rows = {
        "sessions": len(people),
        "seconds": f"{arguments.seconds:g}",
        "seconds for a pair": f"{arguments.think:g}",
        "labels": sum(labels for labels, *_ in found.values()),
        "acknowledged on a screen": sum(one.acknowledged for one in people),
        "errors": len(faults),
        "acknowledged, not stored": lost,
        "stored, not acknowledged": unacknowledged,
        "stored twice": double,
        "key to next pair, p50": f"{p50:.0f} ms",
        "key to next pair, p95": f"{p95:.0f} ms",
        "slowest": f"{spans.max(initial=0):.0f} ms",
    }
    rows |= {f"processor, {part}": f"{seconds:.0f} s" for part, seconds in spent.items()}
    for name, value in rows.items():
        print(f"{name:28}{value:>12}")
    for fault in faults[:10]:
        print(f"  {fault[:200]}")
    return int(bool(faults or lost or unacknowledged or double or not len(spans)))


if __name__ == "__main__":
    sys.exit(main())
