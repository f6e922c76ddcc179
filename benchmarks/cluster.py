"""The machines of an installation on this one: apps and trainers in homes of their own, one database, one storage.

Every part can be killed with SIGKILL, as a machine dies, and is started again after a pause, as a supervisor does.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from random import Random
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.databases import Cluster

if TYPE_CHECKING:
    from tests.storages import Connection

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "copl"
PAUSE_SECONDS = 3.0  # the longest time until a killed part is started again
START_SECONDS = 120.0
STORAGE_SECONDS = 6.0  # the longest time that a killed storage is away; a put is tried for five
# Errors in a log, in Python's form and in streamlit's; those of the product are sentences for people.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
ERROR = re.compile(r"(?:[\w]+\.)*(\w+(?:Error|Exception|Unavailable|Lost|Away)): ")
CHAINED = re.compile(r"The above exception was|During handling of")
SENTENCES = {"CoplError", "StoreUnavailable", "SnapshotAway", "LeaseLost", "StorageError"}


class Machine:
    """A process of the product with a home of its own, which a supervisor starts again whenever it ends."""

    def __init__(self, command: list[str], environment: dict[str, str], home: Path, random: Random) -> None:
        self.home, self.log = home, home / "output.log"
        self._command = [sys.executable, "-m", "copl_core", *command]
        self._environment = os.environ | environment | {"COPL_HOME": str(home)}
        self._random, self._lock, self._stop = random, Lock(), Event()
        self.ended = 0  # times that it ended by itself, with an error
        self._killed = False
        self.process = self._start()
        self._supervisor = Thread(target=self._supervise, daemon=True)
        self._supervisor.start()

    def kill(self) -> bool:
        """SIGKILL; False where it is dead already."""
        with self._lock:
            alive = self.process.poll() is None
            self._killed |= alive
            self.process.kill()
            return alive

    def restart(self) -> None:
        """End it as a supervisor does, and start it again once it has ended."""
        with self._lock:
            self._killed, before = True, self.process
            before.terminate()
        before.wait()

    def stop(self) -> None:
        self._stop.set()
        self.kill()
        self._supervisor.join()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            return subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def _supervise(self) -> None:
        while not self._stop.is_set():
            self.process.wait()
            self.ended += not self._killed
            if self._stop.wait(self._random.uniform(0, PAUSE_SECONDS)):
                return
            with self._lock:
                self._killed, self.process = False, self._start()


class Installation:
    """Apps and trainers on one database and one storage; everything ends with the context.

    Args:
        database: empty, or with studies.
        shared: ``COPL_*`` and other variables of every machine; ``COPL_DATABASE_URL`` is added.
        weights: the folder of models that every home shows; None: each trainer downloads its own.
        storage: leads to the storage; None where nothing can come between.
    """

    def __init__(
        self,
        folder: Path,
        database: Cluster,
        shared: dict[str, str],
        random: Random,
        weights: Path | None,
        apps: int = 2,
        trainers: int = 2,
        storage: Connection | None = None,
    ) -> None:
        self.database, self._random, self._weights, self._storage = database, random, weights, storage
        self._shared = shared | {"COPL_DATABASE_URL": database.url, "OMP_NUM_THREADS": "1", "COPL_THREADS": "1"}
        ports = free_ports(apps)
        self.addresses = [f"http://127.0.0.1:{port}" for port in ports]
        self.apps = [
            self._machine(folder / f"app {n}", ["app"], {"COPL_PORT": str(port)}) for n, port in enumerate(ports, 1)
        ]
        self.trainers = [self._machine(folder / f"trainer {n}", ["worker"], {}) for n in range(1, trainers + 1)]

    @property
    def machines(self) -> list[Machine]:
        return [*self.apps, *self.trainers]

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            machine.stop()

    def _machine(self, home: Path, command: list[str], variables: dict[str, str]) -> Machine:
        home.mkdir(parents=True)
        if self._weights is not None:
            (home / "weights").symlink_to(self._weights.resolve(), target_is_directory=True)
        return Machine(command, self._shared | variables, home, Random(self._random.random()))

    def kill_one(self, kind: str) -> bool:
        """Kill a part; False where it is dead already.

        Args:
            kind: app, trainer, database (its first process, started again after a pause), connection (one process of
                the database, upon which it ends all others and recovers by itself) or storage (every connection is cut
                and none is taken for a while, as of a server that was killed; its disk keeps what it has stored).
        """
        if kind == "storage":
            return self._storage is not None and self._cut_storage(self._storage)
        if kind == "database":
            kill_database(self.database)
            time.sleep(self._random.uniform(0, PAUSE_SECONDS))
            start_database(self.database)
            return True
        if kind == "connection":
            return kill_connection(self.database, self._random)
        return self._random.choice(self.apps if kind == "app" else self._busy() or self.trainers).kill()

    def _cut_storage(self, storage: Connection) -> bool:
        storage.down, storage.cut_after = True, 1
        time.sleep(self._random.uniform(0.5, 1.0) * STORAGE_SECONDS)
        storage.down, storage.cut_after = False, 0
        return True

    def _busy(self) -> list[Machine]:
        """In half of the calls: the trainers that execute a run; a random moment meets most of them at their start."""
        if self._random.random() < 0.5:
            return []
        names = set(executing(self.database))
        return [one for one in self.trainers if _first_line(one.home / "worker.lock") in names]

    def answers(self, path: str) -> list[tuple[int, str]]:
        """Status and text of an address at each app."""
        return [ask(address + path) for address in self.addresses]

    def champions(self) -> set[str]:
        """What each app serves, by its own counts; ``not ready`` for one that cannot open it."""
        found = set()
        for (ready, _), (_, counts) in zip(self.answers("/readyz"), self.answers("/metrics"), strict=True):
            served = re.findall(r'^copl_champion_info\{.*snapshot="(\w+)"\} 1', counts, re.MULTILINE)
            found |= set(served) if ready == 200 and served else {"not ready"}
        return found


# ---- the database


def kill_database(database: Cluster) -> None:
    """SIGKILL for the server's first process; the others end by themselves."""
    first = int((database.folder / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(first, signal.SIGKILL)


def start_database(database: Cluster) -> None:
    """Start a killed server; it refuses until the last process of the old one has ended.

    Raises:
        RuntimeError: it does not start.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            database.restart()
            return
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def kill_connection(database: Cluster, random: Random) -> bool:
    """SIGKILL for the process of one connection; False where there is none."""
    found = _query(
        database, "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
    )
    if found:
        with suppress(ProcessLookupError):
            os.kill(random.choice(found), signal.SIGKILL)
            return True
    return False


def executing(database: Cluster) -> list:
    """The names of the trainers that hold a run."""
    return _query(database, "select worker from run where state = 'running'")


def _query(database: Cluster, query: str) -> list:
    """The first column of an answer; empty while the server starts or recovers."""
    import psycopg

    try:
        with psycopg.connect(host=str(database.folder), user="copl", dbname="postgres") as connection:
            return [row[0] for row in connection.execute(query).fetchall()]
    except psycopg.OperationalError:
        return []


# ---- the storage


@contextmanager
def shared_storage(folder: Path) -> Iterator[tuple[str, str, Connection | None]]:
    """(its address, what it is, what leads to it): an empty bucket of a private S3 server, which ends with the context.

    Without moto and s3fs (``requirements-tests.txt``) it is a folder, and the second string says so.
    """
    try:
        import s3fs
        from botocore.session import get_session
        from moto.server import ThreadedMotoServer

        from tests.storages import Connection
    except ModuleNotFoundError as missing:
        yield str(folder), f"a folder, since {missing.name} is not installed (requirements-tests.txt)", None
        return
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    before = dict(os.environ)
    try:
        connection = Connection(server.get_host_and_port()[1])
        address = f"http://127.0.0.1:{connection.port}"
        os.environ.update(AWS_ACCESS_KEY_ID="copl", AWS_SECRET_ACCESS_KEY="copl", AWS_DEFAULT_REGION="us-east-1")
        os.environ.update(AWS_ENDPOINT_URL=address)
        s3fs.S3FileSystem.clear_instance_cache()  # one that was made before knows another server
        get_session().create_client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}/studio", "an S3 server (moto)", connection
        connection.close()
    finally:
        os.environ.clear()
        os.environ.update(before)
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


# ---- helpers


def ask(address: str) -> tuple[int, str]:
    """Status and text of an answer; status 0 where nobody answers."""
    try:
        with urlopen(address, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode(errors="replace")
    except (OSError, HTTPException) as problem:
        return 0, str(problem)


def unexplained(machines: list[Machine]) -> Counter[str]:
    """The errors in the logs that no sentence of the product explains, with the machine that met them."""
    found: Counter[str] = Counter()
    for machine in machines:
        lines = COLOURS.sub("", machine.log.read_text(errors="replace")).splitlines()
        for number, line in enumerate(lines):
            if not (kind := ERROR.match(line)) or kind[1] in SENTENCES:
                continue
            if not _causes_another(lines[number + 1 :]):
                found[f"{machine.home.name}: {line[:200]}"] += 1
    return found


def _causes_another(lines: list[str]) -> bool:
    """Whether the next traceback in a log is of an error that the one before these lines has caused."""
    for line in lines:
        if "Traceback (most recent call last)" in line:
            return False
        if CHAINED.match(line):
            return True
    return False


def _first_line(file: Path) -> str:
    return next(iter(file.read_text().splitlines()), "") if file.is_file() else ""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
