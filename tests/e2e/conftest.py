"""A real studio, started with the command that people use, and a real browser to look at it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from copl_core.records import Role
from copl_core.study import access, contents
from copl_core.study.session import Session
from tests.worlds import camp_labels, fit_graph_now, trained, two_camps

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "copl_core", "up"]
PATIENCE = 120  # seconds for a first start on a busy machine
# The trainer of the shared studio rests until a test presses a button: a refit during a test slows the machine.
QUICK = {"COPL_REWARD_BUDGET_SECONDS": "15", "COPL_REFIT_LABELS": "100000", "COPL_REWARD_LABELS": "100000"}
STORED = "local_storage,indexeddb,cache_storage,service_workers"  # what a page may keep, besides cookies
QUIET_MS = 500  # without a change, after which a page is at rest
# Whether no script has run and no text has changed for a while; called until true.
QUIET = """(milliseconds) => {
  const app = document.querySelector("[data-testid=stApp]");
  const state = app.dataset.testScriptState, seen = state + app.textContent;
  if (window.copl?.seen !== seen || state !== "notRunning") window.copl = {seen, since: performance.now()};
  return state === "notRunning" && performance.now() - window.copl.since > milliseconds;
}"""
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
    setattr(item, f"failed_in_{report.when}", report.failed)  # for fixtures that print the screen of a failed test
    return report


@pytest.fixture(scope="package")
def browser():
    """Chromium driven by playwright; tests are skipped with the reason where either is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser: install chromium (on Debian or Ubuntu: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield Patient(browser)
        browser.close()


class Patient:
    """A browser whose pages wait as long as a busy machine needs: a wait ends when its condition holds.

    A context that a test closes is emptied and opened again for a later test with the same options: it has the scripts
    of the app in its cache, which a new one would load and compile for a second.
    """

    def __init__(self, browser) -> None:
        self._browser, self._idle = browser, defaultdict(list)

    def new_context(self, **options: object):
        idle = self._idle[repr(sorted(options.items()))]
        if idle:
            return idle.pop()
        context = self._browser.new_context(**options)
        context.set_default_timeout(PATIENCE * 1000)
        context.close = partial(_empty, context, idle)
        return context

    def new_page(self):
        return self.new_context().new_page()


def _empty(context, idle: list) -> None:
    """Close the pages of a context and remove everything but its cached files."""
    if context in idle:
        return
    storage = context.new_cdp_session(context.new_page())
    for page in context.pages:
        if page.url != "about:blank":
            page.close()
    storage.send("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": STORED})
    context.clear_cookies()
    context.pages[0].close()
    idle.append(context)


class Studio:
    """``python -m copl_core up`` on its own home folder and port."""

    def __init__(self, home: Path, weights: Path, **environment: str) -> None:
        self.home, self.port = home, free_port()
        home.mkdir(parents=True, exist_ok=True)
        if weights.is_dir() and not (home / "weights").exists():
            (home / "weights").symlink_to(weights.resolve(), target_is_directory=True)
        self.log = home / f"launcher-{self.port}.log"
        self.environment = os.environ | {"COPL_HOME": str(home), "COPL_PORT": str(self.port)} | environment
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                COMMAND, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def owner_url(self) -> str:
        return re.findall(r"http://\S+token=\S+", self.log.read_text())[-1]

    @property
    def label_url(self) -> str:
        """The owner's sign-in link to the labelling page."""
        return self.owner_url.replace(f"{self.url}/?", f"{self.url}/label?")

    def wait(self) -> Studio:
        """Return once the launcher has printed the address."""
        ends = time.monotonic() + PATIENCE
        while "token=" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > ends:
                raise AssertionError(f"the studio did not start:\n{self.logs()}")
            time.sleep(0.1)
        return self

    def stop(self, number: int = signal.SIGINT) -> int:
        """Exit code of the launcher after a signal, by default that of Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def logs(self) -> str:
        return "\n".join(
            f"==== {path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in (self.log, *sorted((self.home / "logs").glob("*.log")))
        )


class Visit:
    """The running studio for one test; the pages that the test opens are closed after it."""

    def __init__(self, studio: Studio, browser) -> None:
        self.studio, self.browser, self.pages = studio, browser, []
        self.url, self.owner_url, self.home = studio.url, studio.owner_url, studio.home

    def open(self, path: str = "", *, owner: bool = True, **context: object):
        """A page in a new browser session, connected and idle.

        Args:
            path: path of a page, such as ``people``; empty for the labelling page, "/" for the visitor's first page.
            owner: whether to sign in as the owner; otherwise nobody is signed in.
            context: options of playwright's ``new_context``.
        """
        page = self.browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context)).new_page()
        self.pages.append(page)
        token = self.owner_url.partition("?")[2] if owner else ""
        path = path or ("label" if owner else "")
        page.goto(f"{self.url}/{path.lstrip('/')}" + (f"?{token}" if token else ""))
        return settled(page)

    def close(self) -> None:
        for page in self.pages:
            page.context.close()


def settled(page):
    """The page once it is connected and no script runs."""
    page.wait_for_selector("[data-testid=stApp][data-test-connection-state=CONNECTED]", timeout=PATIENCE * 1000)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=PATIENCE * 1000)
    return page


def ready(page):
    """The labelling page once its shortcuts work: the browser binds them a moment after it has drawn the buttons."""
    settled(page).get_by_role("button", name="A is better").first.wait_for()
    return quiet(page, 300)


def quiet(page, milliseconds: int = QUIET_MS):
    """The page once it is connected and no script has run and no text has changed for some milliseconds."""
    settled(page).evaluate("delete window.copl")
    page.wait_for_function(QUIET, arg=milliseconds, polling=50, timeout=PATIENCE * 1000)
    return page


def choose(page, label: str | re.Pattern, name: str) -> None:
    """Choose an option by typing; tries again if the page was redrawn while the list was open."""
    for _ in range(4):
        page.get_by_role("combobox", name=label).click()
        page.keyboard.type(name, delay=40)
        try:
            page.get_by_role("option", name=name).first.click(timeout=5000)
            return
        except Exception as problem:  # playwright's class, which cannot be imported where playwright is missing
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


@pytest.fixture(scope="package")
def studio(tmp_path_factory, weights_home) -> Iterator[Studio]:
    """The studio that the browser tests share: the demo study, an owner, a trainer."""
    shared = Studio(tmp_path_factory.mktemp("studio"), weights_home, **QUICK)
    try:
        yield shared.wait()
    finally:
        shared.stop()


@pytest.fixture(scope="module")
def start_studio(tmp_path_factory, weights_home) -> Iterator:
    """Starts further studios on a home folder, and stops them after the module."""
    started: list[Studio] = []

    def start(home: Path, **environment: str) -> Studio:
        started.append(Studio(home, weights_home, **(QUICK | environment)))
        return started[-1].wait()

    yield start
    for studio in started:
        studio.stop()


def two_camps_with_new_labels(home: Path) -> Session:
    """The two camps with a snapshot, and labels that it does not know."""
    session = two_camps(home)
    fit_graph_now(session)
    contents.import_rows(session, camp_labels(seed=1, per_user=2))
    return session


class App:
    """The web app without a trainer, on its own home folder and port."""

    def __init__(self, home: Path, port: int = 0, **environment: str) -> None:
        self.home, self.port = home, port or free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "streamlit_app.py", "--server.port", str(self.port)],
            cwd=ROOT,
            env=os.environ | {"COPL_HOME": str(home)} | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def wait(self) -> Self:
        """Return once the app answers."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2):
                return self
            time.sleep(0.2)
        raise AssertionError("the app did not answer")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


class TwoCampsApp(App):
    """The web app on the study of two camps with two snapshots, and the sign-in token of a researcher there."""

    def __init__(self, factory: pytest.TempPathFactory, home: Path, port: int = 0, **environment: str) -> None:
        session = trained(two_camps_with_new_labels, factory, home)
        rita = access.join(session, "Rita", Role.RESEARCHER)
        self.token = access.sign_in_token(session, rita.id)
        super().__init__(home, port, **environment)


@pytest.fixture(scope="package")
def app_alone(tmp_path_factory) -> Iterator[TwoCampsApp]:
    app = TwoCampsApp(tmp_path_factory, tmp_path_factory.mktemp("app") / "two-camps")
    try:
        yield app.wait()
    finally:
        app.stop()


@pytest.fixture
def app(studio, browser, request) -> Iterator[Visit]:
    """The shared studio for one test; when it fails, the logs and the text of its pages are printed."""
    visit = Visit(studio, browser)
    yield visit
    if getattr(request.node, "failed_in_call", False):
        for page in visit.pages:
            print(f"==== {page.url}\n{page.inner_text('body')[:4000]}")
        print(studio.logs())
    visit.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
