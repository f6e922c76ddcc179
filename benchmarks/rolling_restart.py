"""Two apps behind a balancer are restarted, one after the other, while people label: what does anybody notice?

    python -m benchmarks.rolling_restart [--labellers N] [--browsers N] [--rounds N] [--think S] [--seed N]

Two apps with homes of their own share a PostgreSQL server and an S3 server, all started here and private to the run,
behind haproxy with the file of ``deploy/``.  Most people are sessions of the apps over their websockets; for some pairs
they type a reason before they answer.  The browsers are chromium's, with keys.  One app is restarted as a supervisor
does it (SIGTERM), and the next one once the balancer says that the first is ready.

Afterwards what screens have acknowledged must be what the database holds, nobody may have signed in twice, every draft
must have been on the page that came back, and no page may have shown an error that it does not explain.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.balancer import Balancer, NoBalancer, balanced
from benchmarks.cluster import Installation, ask, shared_storage, unexplained
from benchmarks.cluster_checks import Outcome, check_labels
from benchmarks.cluster_storm import Plan as Storm
from benchmarks.cluster_storm import prepare, wait_until
from benchmarks.sessions import FLAGS, IDLE, WATCH
from benchmarks.web_visitors import Visitor
from copl_core.config import Settings
from copl_core.study import access, labelling
from copl_core.study.session import Session
from tests.databases import NoPostgres, private_cluster

DESCRIPTION = "two apps behind haproxy are restarted one after the other while 25 people label"
PATIENCE = 300.0  # seconds in which an app starts
PAUSE = 5.0  # seconds of labelling before each restart, and at the end


@dataclass(frozen=True)
class Plan:
    labellers: int = 22
    browsers: int = 3
    rounds: int = 2  # restarts of each app
    think: float = 3.0  # mean seconds for a pair
    seed: int = 0
    drafts: float = 0.3  # share of the pairs for which a reason is typed first
    pause: float = PAUSE
    look: str = "2s"  # from one look of the balancer at an app to the next


@dataclass
class Browser:
    """A person with a real browser."""

    name: str
    token: str
    random: Random
    acknowledged: int = 0
    again: int = 0  # keys that had to be pressed once more, since the page was connecting
    errors: list[str] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rolling_restart", description=__doc__.splitlines()[0])
    parser.add_argument("--labellers", type=int, default=22, help="by websocket")
    parser.add_argument("--browsers", type=int, default=3, help="of chromium; left out where it is not installed")
    parser.add_argument("--rounds", type=int, default=2, help="restarts of each app")
    parser.add_argument("--think", type=float, default=3.0, help="mean seconds that a labeller looks at a pair")
    parser.add_argument("--seed", type=int, default=0)
    try:
        outcome = restart_all(Plan(**vars(parser.parse_args(argv))))
    except (NoPostgres, NoBalancer) as missing:
        print(f"Skipped: {missing}.")
        return 0
    return outcome.printed(40)


def restart_all(plan: Plan) -> Outcome:
    """Restart every app while people label, and check what they have noticed.

    Raises:
        NoPostgres, NoBalancer: there is none here.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    weights = Settings.from_environment().weights
    with tempfile.TemporaryDirectory() as name, private_cluster() as database:
        folder, random = Path(name), Random(plan.seed)
        with shared_storage(folder / "storage") as (address, *_):
            own = Settings(home=folder / "own", database_url=database.url, storage=address)
            session = prepare(own, Storm(labellers=plan.labellers + plan.browsers, think=plan.think).pairs)
            shown = weights if weights.is_dir() else None
            variables = {"COPL_STORAGE": address}
            with (
                Installation(folder, database, variables, random, shown, trainers=0) as parts,
                balanced(folder, parts.addresses, plan.look) as balancer,
            ):
                wait_until(lambda: len(balancer.up()) == len(parts.apps), PATIENCE, "the balancer finds the apps")
                outcome = Outcome()
                visitors = invite(session, balancer.address, plan, random)
                browsers = [
                    Browser(f"browser {n}", access.enter(session, f"browser {n}")[1], Random(random.random()))
                    for n in range(plan.browsers)
                ]
                asyncio.run(everybody(parts, balancer, visitors, browsers, plan, outcome))
                report(session, parts, visitors, browsers, outcome)
    return outcome


def invite(session: Session, address: str, plan: Plan, random: Random) -> list[Visitor]:
    """People with a sign-in link each."""
    return [
        Visitor(
            f"labeller {n}",
            access.enter(session, f"labeller {n}")[1],
            [address],
            Random(random.random()),
            drafts=plan.drafts,
        )
        for n in range(plan.labellers)
    ]


async def everybody(
    parts: Installation,
    balancer: Balancer,
    visitors: list[Visitor],
    browsers: list[Browser],
    plan: Plan,
    outcome: Outcome,
) -> None:
    over = asyncio.Event()
    async with AsyncExitStack() as stack:
        pages = await open_browsers(stack, balancer.address, browsers)
        outcome.rows |= {"people, by websocket": len(visitors), "people, by chromium": len(pages)}
        async with asyncio.TaskGroup() as group:
            for one in visitors:
                group.create_task(one.label(over.is_set, plan.think))
            for person, page in zip(browsers, pages, strict=False):
                group.create_task(press_keys(person, page, over.is_set, plan.think))
            seconds = await asyncio.to_thread(roll, parts, balancer, plan)
            over.set()
        outcome.rows |= {
            "restarts": len(seconds),
            "SIGTERM until the balancer is back": f"{max(seconds):.1f} s at most",
        }
        await asyncio.gather(*(one.look(PATIENCE) for one in visitors))
        for person, page in zip(browsers, pages, strict=False):
            await look_once_more(person, page)


def roll(parts: Installation, balancer: Balancer, plan: Plan) -> list[float]:
    """Restart one app after the other; returns the seconds of each restart."""
    seconds = []
    for _ in range(plan.rounds):
        for address, app in zip(parts.addresses, parts.apps, strict=True):
            time.sleep(plan.pause)
            started = time.monotonic()
            app.restart()
            # Not until the balancer misses it: an app that is back within two seconds is never missed.
            wait_until(lambda at=address: ask(f"{at}/readyz")[0] == 200, PATIENCE, "the app is ready again")
            wait_until(lambda: len(balancer.up()) == len(parts.apps), PATIENCE, "the balancer finds it again")
            seconds.append(time.monotonic() - started)
    time.sleep(plan.pause)
    return seconds


# ---- real browsers


async def open_browsers(stack: AsyncExitStack, address: str, browsers: list[Browser]) -> list:
    """A page for each person; none where chromium or playwright is missing."""
    browser = await chromium(stack)
    return [] if browser is None else [await sign_in(browser, address, person) for person in browsers]


async def chromium(stack: AsyncExitStack):
    """A running chromium, which ends with the stack; None where it or playwright is missing."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.async_api import async_playwright
    except ModuleNotFoundError:
        program = None
    if program is None:
        return None
    playwright = await stack.enter_async_context(async_playwright())
    browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
    stack.push_async_callback(browser.close)
    return browser


async def sign_in(browser, address: str, person: Browser):
    page = await (await browser.new_context(viewport={"width": 1280, "height": 900})).new_page()
    page.on("pageerror", lambda error: person.errors.append(f"{person.name}: {error}"))
    page.set_default_timeout(120_000)
    await page.goto(f"{address}/?token={person.token}")
    await page.get_by_text("0 answered").wait_for()
    await page.wait_for_selector(IDLE)
    await page.evaluate(WATCH)
    return page


async def press_keys(person: Browser, page, is_over: Callable[[], bool], think: float) -> None:
    """Press keys at random moments, as somebody does who does not look at the corner of the page."""
    while not is_over():
        await asyncio.sleep(person.random.uniform(0.5, 1.5) * think)
        await page.evaluate("window.arm()")
        await page.keyboard.press(person.random.choice("12"))
        if await page.evaluate("window.following") is None:
            person.again += 1
            await page.wait_for_selector(IDLE)


async def look_once_more(person: Browser, page) -> None:
    await page.wait_for_selector(IDLE)
    for alert in await page.locator("[data-testid=stAlert], [data-testid=stException]").all_inner_texts():
        person.errors.append(f"{person.name}: {alert}")
    body = await page.locator("[data-testid=stMain]").inner_text()
    person.acknowledged = int(body.rpartition(" answered")[0].split()[-1].replace(",", ""))


# ---- afterwards


def report(
    session: Session, parts: Installation, visitors: list[Visitor], browsers: list[Browser], outcome: Outcome
) -> None:
    everyone = [*visitors, *(by_count(session, one, outcome) for one in browsers)]
    check_labels(session, everyone, outcome)
    del outcome.rows["acknowledged by each app"], outcome.rows["moves to the other app"]
    gaps = sorted(gap for one in visitors for gap in one.gaps)
    outcome.rows |= {
        "connections lost": sum(len(one.gaps) for one in visitors),
        "lost to next page, p50": f"{gaps[len(gaps) // 2]:.1f} s" if gaps else "none",
        "lost to next page, slowest": f"{gaps[-1]:.1f} s" if gaps else "none",
        "keys that chromium lost": sum(one.again for one in browsers),
    }
    outcome.check(bool(gaps), "nobody lost a connection: nothing was tried")
    outcome.check(bool(outcome.rows["drafts on pages that came back"]), "no draft was tried")
    outcome.broken += [error for one in browsers for error in one.errors]
    for fault, times in unexplained(parts.machines).most_common(10):
        outcome.broken.append(f"in a log, {times} times, without a sentence: {fault}")


def by_count(session: Session, person: Browser, outcome: Outcome) -> Visitor:
    """A browser knows how many answers it has given, and not to which tasks: the counts must agree."""
    user = access.find_user(session, person.name)
    tasks = {label.task_id for label in labelling.history(session, user.id) if label.successor_id is None}
    known = Visitor(person.name, "", [], person.random, acknowledged=tasks)
    outcome.check(
        len(tasks) == person.acknowledged,
        f"{person.name}: the page counts {person.acknowledged}, stored are {len(tasks)}",
    )
    return known


if __name__ == "__main__":
    sys.exit(main())
