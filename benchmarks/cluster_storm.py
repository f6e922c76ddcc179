"""Two apps, two trainers, PostgreSQL and an S3 server, all killed at random while people label: does everything hold?

    python -m benchmarks.cluster_storm [--labellers N] [--seconds S] [--think S] [--seed N] [--storage]

Each app and each trainer has a home of its own; they share a database and a storage, all started here and private to
the run.  The labellers are sessions of the real apps over their websockets (no browser draws the pages): they read the
page, type a reason now and then, click the buttons of its pair, and go to the other app where one does not answer.
Meanwhile apps, trainers, the database and single connections of it are killed with SIGKILL and started again; with
``--storage`` the S3 server, too.

Afterwards nobody is killed, every labeller opens the page once more, and the trainers finish.  Then what screens have
acknowledged must be what the database holds, task by task; no pair may have a second label of one person, or more
people than its overlap; every run must have ended, every interrupted one must have been queued again; every recorded
snapshot that is kept must lie whole in the storage; and both apps must serve the champion of the database.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event, Thread

from benchmarks.cluster import Installation, shared_storage
from benchmarks.cluster_checks import OVERLAP, Outcome, check
from benchmarks.web_visitors import Visitor
from copl_core.__main__ import open_store
from copl_core.config import Settings
from copl_core.records import CoplError, ImportRow
from copl_core.study import access, contents, labelling
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from tests.databases import NoPostgres, private_cluster

DESCRIPTION = "two apps, two trainers and PostgreSQL are killed at random while people label"
RESERVED_SECONDS = 20.0
KINDS = ("app", "trainer", "database", "connection")  # of kills; ``--storage`` adds the storage
PATIENCE = 300.0  # seconds in which apps start, and pages open
STUCK_SECONDS = 120.0  # without a step of any run
TOGETHER_SECONDS = 120.0  # in which both apps serve the champion after that
ALIVE_SECONDS = 4.0  # since a trainer's last heartbeat
# A trainer fits as often as people can label here, and a lost one is noticed soon.
SETTINGS = {
    "COPL_LEASE_SECONDS": "8",
    "COPL_REFIT_LABELS": "4",
    "COPL_REFIT_SECONDS": "2",
    "COPL_REWARD_LABELS": "40",
    "COPL_REWARD_SECONDS": "20",
    "COPL_REWARD_STEPS": "10",
}


@dataclass(frozen=True)
class Plan:
    labellers: int = 25
    seconds: float = 120.0
    think: float = 3.0  # mean seconds for a pair
    every: float = 5.0  # mean seconds between two kills
    seed: int = 0
    kinds: str = "graph,full"  # of runs
    trainers: int = 2
    storage: bool = False  # whether the storage is killed, too
    labels: int = 0  # the storm ends with so many acknowledged ones, and ``kills`` fall among them; 0: by the clock
    kills: int = 4

    @property
    def pairs(self) -> int:
        """More than people can label."""
        return self.labels or int(self.labellers * (self.seconds / self.think + 20) / OVERLAP)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_storm", description=__doc__.splitlines()[0])
    parser.add_argument("--labellers", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--think", type=float, default=3.0, help="mean seconds that a labeller looks at a pair")
    parser.add_argument("--every", type=float, default=5.0, help="mean seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trainers", type=int, default=2)
    parser.add_argument("--kinds", default="graph,full", help="of runs that the trainers execute")
    parser.add_argument("--storage", action="store_true", help="kill the S3 server, too")
    parser.add_argument("--logs", type=Path, help="keep the logs of all parts in this folder")
    given = vars(parser.parse_args(argv))
    logs = given.pop("logs")
    try:
        outcome = storm(Plan(**given), logs)
    except NoPostgres as missing:
        print(f"Skipped: {missing}.")
        return 0
    return outcome.printed(34)


def storm(plan: Plan, logs: Path | None = None) -> Outcome:
    """Run the storm and check its result.

    Raises:
        NoPostgres: there is no PostgreSQL here.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the S3 server prints every request
    weights = Settings.from_environment().weights
    with tempfile.TemporaryDirectory() as name, private_cluster() as database:
        folder, random = Path(name), Random(plan.seed)
        with shared_storage(folder / "storage") as (address, kind, connection):
            own = Settings(home=folder / "own", database_url=database.url, storage=address)
            session = prepare(own, plan.pairs)
            shared = SETTINGS | {"COPL_STORAGE": address, "COPL_KINDS": plan.kinds}
            shown = weights if weights.is_dir() else None
            with Installation(
                folder, database, shared, random, shown, trainers=plan.trainers, storage=connection
            ) as parts:
                visitors = invite(session, parts.addresses, plan.labellers, random)
                outcome = Outcome({"storage": kind, "labellers, by websocket": plan.labellers})
                try:
                    run_storm(parts, visitors, plan, random, outcome)
                    settle(session, parts, visitors, outcome)
                    check(session, parts, visitors, outcome)
                finally:
                    if logs is not None:
                        keep_logs(parts, logs)
    return outcome


def prepare(settings: Settings, pairs: int) -> Session:
    store = open_store(settings)
    session = Session(store, settings, store.create_study("Storm").id)
    rows = (ImportRow(n, f"Question {n // 4}?", f"Yes, {n}.", f"No, and here is why: {n}.") for n in range(pairs))
    contents.import_rows(session, rows)
    labelling.set_assignment(
        session, AssignmentSettings(overlap=OVERLAP, repeats=0, reserve_minutes=RESERVED_SECONDS / 60)
    )
    return session


def invite(session: Session, addresses: list[str], count: int, random: Random) -> list[Visitor]:
    """People with a sign-in link each; a balancer sends half of them to each app."""
    visitors = []
    for number in range(count):
        name, first = f"labeller {number}", number % len(addresses)
        token = access.enter(session, name)[1]
        there = addresses[first:] + addresses[:first]
        visitors.append(Visitor(name, token, there, Random(random.random()), drafts=0.2))
    return visitors


# ---- the storm


def run_storm(parts: Installation, visitors: list[Visitor], plan: Plan, random: Random, outcome: Outcome) -> None:
    """Let people label while parts are killed."""
    wait_until(lambda: all(status == 200 for status, _ in parts.answers("/readyz")), PATIENCE, "the apps start")
    kills: Counter[str] = Counter()
    started, stop = time.monotonic(), Event()

    def acknowledged() -> int:
        return sum(len(one.acknowledged) for one in visitors)

    def is_over() -> bool:
        seconds = time.monotonic() - started
        return (acknowledged() >= plan.labels or seconds > PATIENCE) if plan.labels else seconds > plan.seconds

    moments = by_labels(plan, random, acknowledged, stop) if plan.labels else by_the_clock(plan, random, stop)
    kinds = (*KINDS, "storage") if plan.storage else KINDS
    killer = Thread(target=_kill_at_random, args=(parts, random, kinds, moments, kills))
    killer.start()
    asyncio.run(_everybody(one.label(is_over, plan.think) for one in visitors))
    stop.set()
    killer.join()
    outcome.rows["seconds"] = f"{time.monotonic() - started:.0f}"
    outcome.rows |= {f"killed: {kind}": kills[kind] for kind in kinds}


def by_the_clock(plan: Plan, random: Random, stop: Event) -> Iterator[None]:
    """The moments of kills: every few seconds."""
    while not stop.wait(random.uniform(0.5, 1.5) * plan.every):
        yield


def by_labels(plan: Plan, random: Random, acknowledged: Callable[[], int], stop: Event) -> Iterator[None]:
    """The moments of kills: whenever the acknowledged labels pass a random number, however busy the machine is."""
    for number in sorted(random.sample(range(plan.labels), plan.kills)):
        while acknowledged() < number:
            if stop.wait(0.05):
                return
        yield


async def _everybody(steps) -> None:
    await asyncio.gather(*steps)


def _kill_at_random(
    parts: Installation, random: Random, kinds: tuple[str, ...], moments: Iterator[None], kills: Counter[str]
) -> None:
    """Kill a part at each moment; each kind as often as any other."""
    left: list[str] = []
    for _ in moments:
        left = left or random.sample(kinds, len(kinds))
        kind = left.pop()
        kills[kind] += parts.kill_one(kind)


def settle(session: Session, parts: Installation, visitors: list[Visitor], outcome: Outcome) -> None:
    """Nobody is killed any more: every labeller looks once more, and the trainers finish."""
    asyncio.run(_everybody(one.look(PATIENCE) for one in visitors))
    started = time.monotonic()
    wait_for_trainers(session, len(parts.trainers))
    outcome.rows["seconds until the trainers rest"] = f"{time.monotonic() - started:.0f}"
    started = time.monotonic()
    try:
        wait_until(lambda: parts.champions() == {session.record.champion}, TOGETHER_SECONDS, "the apps agree")
    except TimeoutError as late:
        outcome.broken.append(f"{late}: they serve {parts.champions()}, and it is {session.record.champion}")
    # Counts are kept for five seconds; when pages show it, ``champion_shown`` measures.
    outcome.rows["seconds until /metrics agree"] = f"{time.monotonic() - started:.1f}"


def wait_for_trainers(session: Session, trainers: int) -> None:
    """Wait until they rest, or until no run gets any further for a long time; ``check`` names such runs."""
    seen: object = None
    changed = time.monotonic()
    while not _rests(session, trainers) and time.monotonic() < changed + STUCK_SECONDS:
        now = [(run.id, run.state, run.phase, run.step) for run in session.store.runs(session.id)]
        if now != seen:
            seen, changed = now, time.monotonic()
        time.sleep(0.5)


def _rests(session: Session, trainers: int) -> bool:
    """Whether every trainer lives, no run is queued or running, and none is due, in several looks."""
    for _ in range(3):
        alive = [one for one in session.store.trainers() if one.silent_seconds < ALIVE_SECONDS]
        newest, _ = session.store.newest_watermarks(session.id)
        due = session.store.revisions_since(session.id, newest or 0) >= int(SETTINGS["COPL_REFIT_LABELS"])
        if len(alive) < trainers or session.store.active_runs() or due:
            return False
        time.sleep(1.0)
    return True


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises ``TimeoutError`` where the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except CoplError:
            pass  # the database starts
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.5)


def keep_logs(parts: Installation, folder: Path) -> None:
    """Copy what every part has printed, the database included."""
    folder.mkdir(parents=True, exist_ok=True)
    for machine in parts.machines:
        (folder / f"{machine.home.name}.log").write_bytes(machine.log.read_bytes())
        for run in (machine.home / "logs" / "runs").glob("*"):
            (folder / f"{machine.home.name}, {run.name}").write_bytes(run.read_bytes())
    (folder / "database.log").write_bytes((parts.database.folder / "log").read_bytes())


if __name__ == "__main__":
    sys.exit(main())
