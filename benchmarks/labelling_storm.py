"""Many processes label one study in one SQLite file while they are killed at random: is everything there afterwards?

    python -m benchmarks.labelling_storm

Each process is one person who labels as fast as the study hands pairs out, presses some keys twice and skips some
pairs; any of them may be killed with SIGKILL at any moment and is started anew.  Passers-by take a pair and answer only
when it has long expired.  Afterwards every label that was acknowledged must be there, none twice, no pair with more
people than its overlap, and every place that is free must be offered again once the reservations have expired.
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
from copl_core.records import Choice, ImportRow
from copl_core.study import access, contents, labelling
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from db.engine import reading

DESCRIPTION = "8 processes label one SQLite file while they are killed at random"
ROOT = Path(__file__).resolve().parents[1]
OVERLAP = 3
RESERVED_SECONDS = 3.0


@dataclass(frozen=True)
class Outcome:
    """What a storm left behind; the last six are 0 where all is well."""

    processes: int
    labels: int  # that count
    acknowledged: int
    kills: int
    seconds: float
    p50: float  # milliseconds from a submit to the next pair
    p95: float
    lost: int  # acknowledged and not there
    double: int  # labels of one person on one pair beyond the first
    over: int  # pairs with more people than the overlap
    unsaid: int  # labels that are there though nobody was told, beyond one for each kill
    stuck: int  # free places that are not offered to somebody new
    broken: int  # failures of SQLite's own check, and processes that ended with an error


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labelling_storm", description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--labels", type=int, default=500, help="of each process")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--person", help=argparse.SUPPRESS)  # one process of the storm, as which person
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.person:
        label(arguments.home, arguments.person, arguments.labels)
        return 0
    with tempfile.TemporaryDirectory() as home:
        outcome = storm(Path(home), arguments.processes, arguments.labels, arguments.kills, arguments.seed)
    for spec in fields(Outcome):
        value = getattr(outcome, spec.name)
        print(f"{spec.name:14}{value:>10.1f}" if isinstance(value, float) else f"{spec.name:14}{value:>10,}")
    return int(
        bool(outcome.lost or outcome.double or outcome.over or outcome.unsaid or outcome.stuck or outcome.broken)
    )


def storm(home: Path, processes: int, labels: int, kills: int, seed: int = 0) -> Outcome:
    """Run the storm and look at what it left."""
    session = prepare(home, pairs=processes * labels // OVERLAP + labels // 4 + 1)
    started = time.monotonic()
    people = [Person(home, f"person {n}", labels) for n in range(processes)]
    visitors = passers_by(session, processes)
    done = _kill_at_random(people, Random(seed), kills, total=processes * labels)
    for person in people:
        person.thread.join()
    seconds = time.monotonic() - started
    for task in visitors:  # back from lunch: long expired, and answered all the same
        labelling.submit(session, task.id, task.user_id, Choice.LEFT)
    return look(session, people, done, seconds, labels)


def prepare(home: Path, pairs: int) -> Session:
    settings = Settings(home=home)
    store = open_store(settings)
    session = Session(store, settings, store.create_study("Storm").id)
    contents.import_rows(
        session, (ImportRow(n, f"prompt {n // 4}", f"answer {n}", f"other answer {n}") for n in range(pairs))
    )
    labelling.set_assignment(
        session, AssignmentSettings(overlap=OVERLAP, repeats=0, reserve_minutes=RESERVED_SECONDS / 60)
    )
    return session


def passers_by(session: Session, count: int) -> list:
    """People who take a pair and are gone."""
    return [labelling.next_task(session, access.join(session, f"passer-by {n}").id) for n in range(count)]


# ---- one process of the storm


def label(home: Path, name: str, labels: int) -> None:
    """Label until ``labels`` count, telling each acknowledged one on standard output."""
    settings = Settings(home=home)
    store = open_store(settings)
    session = Session(store, settings, store.current_study().id)
    user, random = access.join(session, name), Random()
    task = labelling.next_task(session, user.id)
    while task is not None and labelling.progress(session, user.id).done < labels:
        if random.random() < 0.02:
            task = labelling.skip(session, task.id, user.id).next_task
            continue
        began = time.perf_counter()
        receipt = labelling.submit(session, task.id, user.id, random.choice(list(Choice)))
        if receipt.label is not None:
            print(receipt.label.id, (time.perf_counter() - began) * 1000, flush=True)
        if random.random() < 0.1 and labelling.submit(session, task.id, user.id, Choice.LEFT).label is not None:
            raise SystemExit("one task took two labels")
        task = receipt.next_task


class Person:
    """A process that labels, and another one in its place whenever it was killed."""

    def __init__(self, home: Path, name: str, labels: int) -> None:
        self.command = [
            sys.executable,
            "-m",
            "benchmarks.labelling_storm",
            "--person",
            name,
            "--home",
            str(home),
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
                if line.endswith("\n"):  # a line cut off by the kill was not told
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
    """Kill somebody whenever the labels told so far pass one of ``kills`` random numbers; returns how many that hit."""
    done = 0
    for moment in sorted(random.randrange(total) for _ in range(kills)):
        while sum(len(person.acknowledged) for person in people) < moment:
            if not any(person.thread.is_alive() for person in people):
                return done
            time.sleep(0.01)
        done += random.choice(people).kill()
    return done


# ---- afterwards


def look(session: Session, people: list[Person], kills: int, seconds: float, labels: int) -> Outcome:
    found = session.store.labels(session.id)
    told = {number for person in people for number in person.acknowledged}
    of_people = [one for one in found if access.user(session, one.user_id).name.startswith("person")]
    each = Counter((one.user_id, one.pair_id) for one in found)
    per_pair = Counter(pair for _, pair in each)
    times = sorted(ms for person in people for ms in person.milliseconds)
    time.sleep(RESERVED_SECONDS + 0.1)  # whatever is still reserved expires
    free = {pair[0] for pair in session.store.pairs(session.id) if per_pair[pair[0]] < OVERLAP}
    offered = {pair[0] for pair in session.store.available_pairs(access.join(session, "somebody new").id).pairs}
    with reading(session.store.engine) as connection:
        sound = connection.execute(text("pragma integrity_check")).scalar() == "ok"
        sound &= not connection.execute(text("pragma foreign_key_check")).all()
    return Outcome(
        len(people),
        len(found),
        len(told),
        kills,
        seconds,
        times[len(times) // 2],
        times[int(len(times) * 0.95)],
        lost=len(told - {one.id for one in found}),
        double=sum(count - 1 for count in each.values()),
        over=sum(count > OVERLAP for count in per_pair.values()),
        unsaid=max(0, len({one.id for one in of_people} - told) - kills),
        stuck=len(free ^ offered),
        broken=(not sound) + sum(person.errors for person in people),
    )


if __name__ == "__main__":
    sys.exit(main())
