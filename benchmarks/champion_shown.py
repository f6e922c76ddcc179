"""How soon do open pages of two apps show another champion, and what do pages cost that rest?

    python -m benchmarks.champion_shown [--pages N] [--browsers N] [--changes N] [--people N] [--rest S]

Two apps with homes of their own share a PostgreSQL server and an S3 server, all started here and private to the run.
A third home fits a graph of a few seconds again and again and publishes it, as a trainer of another machine does.  A
page is in time once it draws the line with the name of the new snapshot, whose files its app has fetched meanwhile;
seconds count from the transaction that makes it the champion.  Most pages are sessions of the apps over their
websockets, with the timers of a browser; some are chromium's.

Then nothing changes for a while: what do the browser and the apps take of a core?
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import psutil

from benchmarks.cluster import Installation, shared_storage
from benchmarks.cluster_checks import Outcome
from benchmarks.cluster_storm import wait_until
from benchmarks.onlookers import SHOWN, Onlooker
from benchmarks.rolling_restart import chromium
from benchmarks.sessions import IDLE
from copl_core.config import Settings
from copl_core.study import access, contents
from copl_core.study.session import Session
from tests.databases import NoPostgres, private_cluster
from tests.worlds import camp_labels, fit_graph_now, open_study

DESCRIPTION = "when open pages of two apps show another champion, and what pages cost that rest"
PATIENCE = 300.0  # seconds in which the apps start
LATE_SECONDS = 60.0  # after which a page counts as one that does not follow
# Notes when which snapshot is named on the page.
WATCH = """(pattern) => {
  window.seen = {};
  const look = () => {
    for (const [, version] of document.body.textContent.matchAll(new RegExp(pattern, "g")))
      window.seen[version] ??= Date.now() / 1000;
  };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
  look();
}"""


@dataclass(frozen=True)
class Plan:
    pages: int = 5  # of each app, by websocket
    browsers: int = 1  # of each app, by chromium
    changes: int = 10
    people: int = 200
    rest: float = 30.0  # seconds in which nothing changes


@dataclass
class Tab:
    """A page of an app in chromium."""

    address: str
    page: object
    seen: dict[str, float] = field(default_factory=dict)

    async def read(self) -> None:
        self.seen = await self.page.evaluate("window.seen")  # type: ignore[attr-defined]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.champion_shown", description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=5, help="of each app, by websocket")
    parser.add_argument("--browsers", type=int, default=1, help="pages of each app in chromium, where it is installed")
    parser.add_argument("--changes", type=int, default=10, help="of the champion")
    parser.add_argument("--people", type=int, default=200, help="in the study")
    parser.add_argument("--rest", type=float, default=30.0, help="seconds in which nothing changes")
    try:
        outcome = measure(Plan(**vars(parser.parse_args(argv))))
    except NoPostgres as missing:
        print(f"Skipped: {missing}.")
        return 0
    return outcome.printed(40)


def measure(plan: Plan) -> Outcome:
    """Publish snapshots while pages are open.

    Raises:
        NoPostgres: there is no PostgreSQL here.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the S3 server prints every request
    with tempfile.TemporaryDirectory() as name, private_cluster() as database:
        folder = Path(name)
        with shared_storage(folder / "storage") as (address, kind, _):
            session = study(Settings(home=folder / "trainer", database_url=database.url, storage=address), plan)
            variables = {"COPL_STORAGE": address}
            with Installation(folder, database, variables, Random(0), None, trainers=0) as parts:
                wait_until(
                    lambda: all(status == 200 for status, _ in parts.answers("/readyz")), PATIENCE, "the apps start"
                )
                outcome = Outcome({"storage": kind, "people of the study": plan.people})
                asyncio.run(everybody(session, parts, plan, outcome))
    return outcome


def study(settings: Settings, plan: Plan) -> Session:
    """A study with its first snapshot."""
    session = open_study(settings.home, database_url=settings.database_url, storage=settings.storage)
    contents.import_rows(session, camp_labels(n_users=plan.people, n_prompts=24, per_user=20))
    fit_graph_now(session)
    return session


async def everybody(session: Session, parts: Installation, plan: Plan, outcome: Outcome) -> None:
    """Open the pages, change the champion, and rest."""
    over = asyncio.Event()
    owner = access.terminal_token(session)
    onlookers = [Onlooker(address, owner) for address in parts.addresses for _ in range(plan.pages)]
    async with AsyncExitStack() as stack:
        tabs = await open_tabs(stack, [(address, owner) for address in parts.addresses] * plan.browsers)
        outcome.rows |= {"pages, by websocket": len(onlookers), "pages, by chromium": len(tabs)}
        async with asyncio.TaskGroup() as group:
            for one in onlookers:
                group.create_task(one.look(over.is_set))
            await all_show([*onlookers, *tabs], str(session.record.champion))
            changed = [await change(session, [*onlookers, *tabs]) for _ in range(plan.changes)]
            report_changes(changed, onlookers, tabs, outcome)
            runs = sum(one.runs for one in onlookers)
            outcome.rows |= await rest(parts, plan.rest)
            again = (sum(one.runs for one in onlookers) - runs) / max(1, len(onlookers)) / plan.rest * 60
            outcome.rows["runs of a page at rest, in a minute"] = f"{again:.0f}"
            over.set()


async def change(session: Session, pages: list[Onlooker | Tab]) -> tuple[str, float]:
    """(the new champion, seconds since the epoch) once all pages show it, or are late."""
    version = await asyncio.to_thread(fit_graph_now, session)
    (run,) = [run for run in session.store.runs(session.id, limit=5) if run.snapshot == version]
    assert run.ended_at is not None
    await all_show(pages, version)
    await asyncio.sleep(1.0)
    return version, run.ended_at.timestamp()


async def all_show(pages: list[Onlooker | Tab], version: str) -> None:
    """Wait until all pages have shown a version, or some of them are late."""
    ends = time.monotonic() + LATE_SECONDS
    while time.monotonic() < ends and not all(version in page.seen for page in pages):
        await asyncio.sleep(0.1)
        for page in pages:
            if isinstance(page, Tab):
                await page.read()


def report_changes(changed: list[tuple[str, float]], onlookers: list[Onlooker], tabs: list[Tab], outcome: Outcome):
    for kind, pages in (("websocket", onlookers), ("chromium", tabs)):
        late = [(page.address, version) for version, _ in changed for page in pages if version not in page.seen]
        seconds = sorted(page.seen[version] - at for version, at in changed for page in pages if version in page.seen)
        if seconds:
            outcome.rows |= {
                f"to a page by {kind}, half within": f"{np.median(seconds):.2f} s",
                f"to a page by {kind}, slowest": f"{seconds[-1]:.2f} s",
            }
        for address, version in late:
            outcome.broken.append(f"a page of {address} by {kind} does not show {version} within {LATE_SECONDS:.0f} s")
    pages = [*onlookers, *tabs]
    apart = [
        max(seen) - min(seen)
        for version, _ in changed
        if len(seen := [min(some) for some in by_app(pages, version) if some]) > 1
    ]
    outcome.rows["changes of the champion"] = len(changed)
    outcome.rows["first pages of both apps, at most apart"] = f"{max(apart, default=np.nan):.2f} s"


def by_app(pages: list[Onlooker | Tab], version: str) -> list[list[float]]:
    """When each app's pages have shown a version."""
    addresses = sorted({page.address for page in pages})
    return [
        [page.seen[version] for page in pages if page.address == address and version in page.seen]
        for address in addresses
    ]


# ---- chromium, and what rest costs


async def open_tabs(stack: AsyncExitStack, links: list[tuple[str, str]]) -> list[Tab]:
    """A page at each address; none where chromium or playwright is missing."""
    browser = await chromium(stack) if links else None
    return [] if browser is None else [await open_tab(browser, *link) for link in links]


async def open_tab(browser, address: str, token: str) -> Tab:
    page = await (await browser.new_context(viewport={"width": 1280, "height": 900})).new_page()
    page.set_default_timeout(120_000)
    await page.goto(f"{address}/?token={token}")
    await page.wait_for_selector(IDLE)
    await page.evaluate(WATCH, SHOWN.pattern)
    return Tab(address, page)


async def rest(parts: Installation, seconds: float) -> dict[str, str]:
    """Of a core, while nothing changes."""
    before, started = processor_seconds(parts), time.monotonic()
    await asyncio.sleep(seconds)
    spent, took = processor_seconds(parts) - before, time.monotonic() - started
    return {f"at rest, {part}": f"{100 * spent[part] / took:.1f} % of a core" for part in ("apps", "chromium")}


def processor_seconds(parts: Installation) -> Counter[str]:
    """Processor seconds of both apps, and of chromium with its processes, so far."""
    apps, spent = {app.process.pid for app in parts.apps}, Counter({"apps": 0.0, "chromium": 0.0})
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = process.cpu_times()
            part = "apps" if process.pid in apps else "chromium" if "chrom" in process.name() else ""
            spent[part] += times.user + times.system
    return spent


if __name__ == "__main__":
    sys.exit(main())
