"""A real studio, started as a person starts it, and a real browser to look at it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "copl_core", "up"]  # its words are read from a file: it has to flush them
TRAINING = 600  # seconds for the first graph and the first reward model on a busy machine
PATIENCE = 120  # seconds for a first start on a busy machine
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if {"browser", "app"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.browser)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    setattr(item, f"failed_in_{report.when}", report.failed)  # for the fixtures that show what was on the screen
    return report


@pytest.fixture(scope="package")
def browser():
    """Chromium driven by playwright; tests are skipped, and say why, where either is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser: install chromium (on Debian or Ubuntu: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Studio:
    """``python -m copl_core up`` on a home folder and a port of its own."""

    def __init__(self, home: Path, weights: Path, **environment: str) -> None:
        self.home, self.port = home, _free_port()
        home.mkdir(parents=True, exist_ok=True)
        if weights.is_dir() and not (home / "weights").exists():
            (home / "weights").symlink_to(weights.resolve(), target_is_directory=True)
        self.said = home / f"launcher-{self.port}.log"
        self.environment = os.environ | {"COPL_HOME": str(home), "COPL_PORT": str(self.port)} | environment
        with self.said.open("ab") as out:
            self.process = subprocess.Popen(
                COMMAND, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def owner_url(self) -> str:
        return re.findall(r"http://\S+token=\S+", self.said.read_text())[-1]

    def wait(self) -> Studio:
        """Until the launcher has told the address."""
        ends = time.monotonic() + PATIENCE
        while "token=" not in self.said.read_text():
            if self.process.poll() is not None or time.monotonic() > ends:
                raise AssertionError(f"the studio did not start:\n{self.logs()}")
            time.sleep(0.1)
        return self

    def stop(self, number: int = signal.SIGINT) -> int:
        """Exit code of the launcher after a signal, Ctrl-C if not said otherwise."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def logs(self) -> str:
        return "\n".join(
            f"==== {path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in (self.said, *sorted((self.home / "logs").glob("*.log")))
        )


class Visit:
    """The running studio as one test sees it: pages it opens are closed after it."""

    def __init__(self, studio: Studio, browser) -> None:
        self.studio, self.browser, self.pages = studio, browser, []
        self.url, self.owner_url, self.home = studio.url, studio.owner_url, studio.home

    def open(self, path: str = "", *, owner: bool = True, **context: object):
        """A page in a browser session of its own, connected and idle.

        Args:
            path: of a page, such as ``people``; empty for the labelling room.
            owner: signed in as the owner; else a stranger.
            context: options of playwright's ``new_context``.
        """
        page = self.browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context)).new_page()
        page.context.set_default_timeout(PATIENCE * 1000)
        self.pages.append(page)
        token = self.owner_url.partition("?")[2] if owner else ""
        page.goto(f"{self.url}/{path.lstrip('/')}" + (f"?{token}" if token else ""))
        return settled(page)

    def close(self) -> None:
        for page in self.pages:
            page.context.close()


def settled(page):
    """The page once it is connected and no script of it runs."""
    page.wait_for_selector("[data-testid=stApp][data-test-connection-state=CONNECTED]", timeout=PATIENCE * 1000)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=PATIENCE * 1000)
    return page


def ready(page):
    """The labelling room once its buttons listen: the browser binds their keys a moment after it has drawn them."""
    settled(page).get_by_role("button", name="Left").first.wait_for()
    page.wait_for_timeout(300)
    return page


def choose(page, label: str | re.Pattern, name: str) -> None:
    """Choose an option by typing; tried again where the page was drawn anew under the open list."""
    for _ in range(4):
        page.get_by_role("combobox", name=label).click()
        page.keyboard.type(name, delay=40)
        try:
            page.get_by_role("option", name=name).first.click(timeout=5000)
            return
        except Exception as problem:  # playwright's own, which cannot be imported where it is not installed
            if "Timeout" not in type(problem).__name__:
                raise
            page.keyboard.press("Escape")
    raise AssertionError(f"{name} could not be chosen")


@pytest.fixture(scope="package", name="ready")
def _ready():
    return ready


@pytest.fixture(scope="package", name="settled")
def _settled():
    return settled


def with_reward_model(studio: Studio) -> Studio:
    """The studio once its trainer has published its first reward model."""
    end = time.monotonic() + TRAINING
    while time.monotonic() < end:
        with sqlite3.connect(studio.home / "copl.db") as database:
            done = database.execute("SELECT count(*) FROM run WHERE kind = 'full' AND state = 'done'").fetchone()[0]
        if done:
            return studio
        time.sleep(1)
    raise AssertionError(f"no reward model within {TRAINING} s\n{studio.logs()}")


@pytest.fixture(scope="package")
def trained(studio) -> Studio:
    """The shared studio once it has a reward model."""
    return with_reward_model(studio)


@pytest.fixture(scope="package")
def studio(tmp_path_factory, weights_home) -> Iterator[Studio]:
    """The studio that the browser tests share: the demo study, an owner, a trainer."""
    shared = Studio(tmp_path_factory.mktemp("studio"), weights_home)
    try:
        yield shared.wait()
    finally:
        shared.stop()


@pytest.fixture
def start_studio(tmp_path, weights_home) -> Iterator:
    """Starts studios of one test's own, in ``tmp_path`` if not said otherwise, and stops them after it."""
    started: list[Studio] = []

    def start(home: Path | None = None, **environment: str) -> Studio:
        started.append(Studio(home or tmp_path, weights_home, **environment))
        return started[-1].wait()

    yield start
    for own in started:
        own.stop()


@pytest.fixture
def app(studio, browser, request) -> Iterator[Visit]:
    """The shared studio for one test; when the test fails, the logs and what the pages said are printed."""
    visit = Visit(studio, browser)
    yield visit
    if getattr(request.node, "failed_in_call", False):
        for page in visit.pages:
            print(f"==== {page.url}\n{page.inner_text('body')[:4000]}")
        print(studio.logs())
    visit.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
