"""Many processes label one study in one database while they are killed at random: is every label still there?

    python -m benchmarks.labelling_storm [--stores sqlite,postgresql]

The database is a SQLite file, and then a private PostgreSQL server where one is installed.
Each process is one user who labels as fast as the study hands out pairs, presses some keys twice and skips some pairs.
Any process can be killed with SIGKILL at any moment and is started again.  Visitors take a pair and answer it long
after their reservation has expired.  Afterwards every acknowledged label must be there once, no pair may have more
users than its overlap, and every pair with fewer users must be available again once the reservations have expired.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from threading import Lock, Thread

from sqlalchemy import text

from copl_core.__main__ import open_store
from copl_core.config import Settings
from copl_core.records import Choice, ImportRow, Task
from copl_core.study import access, contents, labelling
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from db.engine import reading
from tests.databases import NoPostgres, private_server

DESCRIPTION = "8 processes label one study while they are killed at random, in SQLite and in PostgreSQL"
DATABASES = ("sqlite", "postgresql")
ROOT = Path(__file__).resolve().parents[1]
OVERLAP = 3
RESERVED_SECONDS = 3.0


@dataclass(frozen=True)
class Outcome:
    """The state after a storm; the last six numbers are 0 if all is well."""

    processes: int
    labels: int  # that count
    acknowledged: int
    kills: int
    seconds: float
    per_second: float  # labels
    p50: float  # milliseconds from a submit to the next pair
    p95: float
    lost: int  # acknowledged, but not stored
    double: int  # labels of one user on one pair beyond the first
    over: int  # pairs with more users than the overlap
    unacknowledged: int  # stored, but not acknowledged, beyond one per kill
    stuck: int  # pairs with fewer users than the overlap that a new user cannot get
    broken: (
        int  # failures of the database's own check (SQLite's integrity check), and processes that ended with an error
    )

    @property
    def is_sound(self) -> bool:
        return not (self.lost or self.double or self.over or self.unacknowledged or self.stuck or self.broken)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labelling_storm", description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--labels", type=int, default=500, help="per process")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stores", default=",".join(DATABASES), help="with a comma between two")
    parser.add_argument("--person", help=argparse.SUPPRESS)  # run one process of the storm, as this user
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.person:
        label(Settings(home=arguments.home, database_url=arguments.url), arguments.person, arguments.labels)
        return 0
    names = arguments.stores.split(",")
    if unknown := sorted(set(names) - set(DATABASES)):
        parser.error(f"there is no database {', '.join(unknown)}; choose from {', '.join(DATABASES)}")
    outcomes = {name: found for name in names if (found := _one_database(name, arguments)) is not None}
    _print(outcomes)
    return int(any(not outcome.is_sound for outcome in outcomes.values()))


def _one_database(name: str, arguments: argparse.Namespace) -> Outcome | None:
    """The storm in one database; None where it is not installed."""
    size = (arguments.processes, arguments.labels, arguments.kills, arguments.seed)
    with tempfile.TemporaryDirectory() as home:
        if name == "sqlite":
            return storm(Settings(home=Path(home)), *size)
        try:
            with private_server() as url:
                return storm(Settings(home=Path(home), database_url=url), *size)
        except NoPostgres as missing:
            print(f"{name} skipped: {missing}.")
            return None


def _print(outcomes: dict[str, Outcome]) -> None:
    print(" " * 14 + "".join(f"{name:>12}" for name in outcomes))
    for spec in fields(Outcome):
        values = [getattr(outcome, spec.name) for outcome in outcomes.values()]
        print(
            f"{spec.name:14}" + "".join(f"{one:>12,.1f}" if isinstance(one, float) else f"{one:>12,}" for one in values)
        )


def storm(settings: Settings, processes: int, labels: int, kills: int, seed: int = 0) -> Outcome:
    """Run the storm and check its result."""
    session = prepare(settings, pairs=processes * labels // OVERLAP + labels // 4 + 1)
    started = time.monotonic()
    people = [Person(settings, f"person {n}", labels) for n in range(processes)]
    tasks = reserved_tasks(session, processes)
    done = _kill_at_random(people, Random(seed), kills, total=processes * labels)
    for person in people:
        person.thread.join()
    seconds = time.monotonic() - started
    for task in tasks:  # answered long after the reservation has expired
        labelling.submit(session, task.id, task.user_id, Choice.LEFT)
    return check(session, people, done, seconds, labels)


def prepare(settings: Settings, pairs: int) -> Session:
    store = open_store(settings)
    session = Session(store, settings, store.create_study("Storm").id)
    contents.import_rows(
        session, (ImportRow(n, f"prompt {n // 4}", f"answer {n}", f"other answer {n}") for n in range(pairs))
    )
    labelling.set_assignment(
        session, AssignmentSettings(overlap=OVERLAP, repeats=0, reserve_minutes=RESERVED_SECONDS / 60)
    )
    return session


def reserved_tasks(session: Session, count: int) -> list[Task]:
    """Tasks of visitors, each of whom takes a pair and leaves."""
    visitors = [access.join(session, f"visitor {n}").id for n in range(count)]
    return [task for user_id in visitors if (task := labelling.next_task(session, user_id)) is not None]


# ---- one process of the storm


def label(settings: Settings, name: str, labels: int) -> None:
    """Give ``labels`` labels, and print the number of each acknowledged one."""
    store = open_store(settings)
    session = Session(store, settings, store.current_study().id)
    user, random = access.join(session, name), Random()
    task = labelling.next_task(session, user.id)
    while task is not None and labelling.progress(session, user.id).done < labels:
        if random.random() < 0.02:
            task = labelling.skip(session, task.id, user.id).next_task
            continue
        started = time.perf_counter()
        receipt = labelling.submit(session, task.id, user.id, random.choice(list(Choice)))
        if receipt.label is not None:
            print(receipt.label.id, (time.perf_counter() - started) * 1000, flush=True)
        if random.random() < 0.1 and labelling.submit(session, task.id, user.id, Choice.LEFT).label is not None:
            raise SystemExit("one task took two labels")
        task = receipt.next_task


class Person:
    """A process that labels; it is started again whenever it was killed."""

    def __init__(self, settings: Settings, name: str, labels: int) -> None:
        self.command = [
            sys.executable,
            "-m",
            "benchmarks.labelling_storm",
            "--person",
            name,
            "--home",
            str(settings.home),
            "--url",
            settings.database_url,
            "--labels",
            str(labels),
        ]
        self.acknowledged: list[int] = []
        self.milliseconds: list[float] = []
        self.errors = 0
        self.lock = Lock()
        self.process = self._start()
        self.thread = Thread(target=self._listen)
        self.thread.start()

    def kill(self) -> bool:
        with self.lock:
            alive = self.process.poll() is None
            self.process.kill()
            return alive

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(self.command, cwd=ROOT, text=True, stdout=subprocess.PIPE)

    def _listen(self) -> None:
        while True:
            for line in self.process.stdout:
                if line.endswith("\n"):  # a line that the kill truncated is no acknowledgement
                    number, milliseconds = line.split()
                    self.acknowledged.append(int(number))
                    self.milliseconds.append(float(milliseconds))
            code = self.process.wait()
            if code >= 0:
                self.errors += code != 0
                return
            with self.lock:
                self.process = self._start()


def _kill_at_random(people: list[Person], random: Random, kills: int, total: int) -> int:
    """Kill a process whenever the acknowledged labels pass a random number; returns how many were alive."""
    done = 0
    for moment in sorted(random.randrange(total) for _ in range(kills)):
        while sum(len(person.acknowledged) for person in people) < moment:
            if not any(person.thread.is_alive() for person in people):
                return done
            time.sleep(0.01)
        done += random.choice(people).kill()
    return done


# ---- afterwards


def check(session: Session, people: list[Person], kills: int, seconds: float, labels: int) -> Outcome:
    found = session.store.labels(session.id)
    acknowledged = {number for person in people for number in person.acknowledged}
    of_people = [one for one in found if access.user(session, one.user_id).name.startswith("person")]
    each = Counter((one.user_id, one.pair_id) for one in found)
    per_pair = Counter(pair for _, pair in each)
    times = sorted(ms for person in people for ms in person.milliseconds)
    time.sleep(RESERVED_SECONDS + 0.1)  # all reservations expire
    free = {pair[0] for pair in session.store.pairs(session.id) if per_pair[pair[0]] < OVERLAP}
    offered = {pair[0] for pair in session.store.available_pairs(access.join(session, "new user").id).pairs}
    sound = bool(session.settings.database_url) or _is_sound_file(session)
    return Outcome(
        len(people),
        len(found),
        len(acknowledged),
        kills,
        seconds,
        len(found) / seconds,
        times[len(times) // 2],
        times[int(len(times) * 0.95)],
        lost=len(acknowledged - {one.id for one in found}),
        double=sum(count - 1 for count in each.values()),
        over=sum(count > OVERLAP for count in per_pair.values()),
        unacknowledged=max(0, len({one.id for one in of_people} - acknowledged) - kills),
        stuck=len(free ^ offered),
        broken=(not sound) + sum(person.errors for person in people),
    )


def _is_sound_file(session: Session) -> bool:
    with reading(session.store.engine) as connection:
        whole = connection.execute(text("pragma integrity_check")).scalar() == "ok"
        return whole and not connection.execute(text("pragma foreign_key_check")).all()


if __name__ == "__main__":
    sys.exit(main())
