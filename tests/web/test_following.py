"""An open page shows the next champion without a request of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cluster import ask, free_ports
from benchmarks.onlookers import Onlooker
from copl_core.study import access
from copl_core.study.session import Session
from pages import following as pages
from pages.following import OpenPage
from tests.ranks import wait_until
from tests.worlds import fit_graph_now, three_people, trained
from web import following

ROOT = Path(__file__).resolve().parents[2]
WAIT = 300.0  # seconds, on a busy machine


@pytest.fixture
def session(tmp_path, tmp_path_factory) -> Session:
    return trained(three_people, tmp_path_factory, tmp_path / "home")


@pytest.fixture
def address(session, tmp_path) -> Iterator[str]:
    """Of an app on this study."""
    (port,) = free_ports(1)
    own = os.environ | {"COPL_HOME": str(session.settings.home), "COPL_PORT": str(port)}
    with (tmp_path / "app.log").open("wb") as log:
        app = subprocess.Popen([sys.executable, "-m", "copl_core", "app"], cwd=ROOT, env=own, stdout=log, stderr=log)
    try:
        wait_until(lambda: ask(f"http://127.0.0.1:{port}/readyz")[0] == 200)
        yield f"http://127.0.0.1:{port}"
    finally:
        app.kill()
        app.wait()


def test_while_no_page_is_open_nobody_looks(session, monkeypatch):
    open_page = OpenPage("a tab that is closed", "", session, "v0000")
    monkeypatch.setattr(pages, "_PAGES", {open_page.tab: open_page})
    monkeypatch.setattr(following, "installation", lambda: pytest.fail("looked"))
    following.look(None)
    assert pages.open_pages() == []


def test_a_page_that_asks_for_nothing_shows_the_next_champion(session, address):
    silent = Onlooker(address, access.terminal_token(session), timers=False)

    async def look() -> None:
        over = asyncio.Event()
        looking = asyncio.create_task(silent.look(over.is_set))
        async with asyncio.timeout(WAIT):
            await shows(silent, "v0001", looking)
            assert await asyncio.to_thread(fit_graph_now, session) == "v0002"
            await shows(silent, "v0002", looking)
        over.set()
        await looking

    asyncio.run(look())


async def shows(page: Onlooker, version: str, looking: asyncio.Task) -> None:
    while version not in page.seen:
        assert not looking.done(), looking.exception()
        await asyncio.sleep(0.05)
