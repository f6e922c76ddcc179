"""Databases for the tests: a migrated SQLite file, and a private PostgreSQL server.

The server has its own temporary folder, a Unix socket and no port.  Its programs are Debian's (``apt install
postgresql``) or any others on the path.  It refuses to run as root, so root starts it as the user ``postgres``.  It
ends with the process that started it, even a killed one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from db.engine import make_engine, migrate

DEBIAN = Path("/usr/lib/postgresql")  # one folder per version
START_SECONDS = 60.0  # on a busy machine
# The shell reads from a pipe that nobody writes to: the pipe closes when the starting process ends, even by SIGKILL.
UNTIL_THE_PIPE_CLOSES = '"$@" & server=$!; read _; kill -INT $server; wait $server'


@cache
def _migrated() -> bytes:
    """A SQLite file with every table and no row."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "copl.db"
        engine = make_engine(f"sqlite:///{path}")
        migrate(engine)
        engine.dispose()
        return path.read_bytes()


def empty_database(home: Path) -> None:
    """Put a migrated database into ``home``, as the product makes it at a first start, in a hundredth of the time."""
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "copl.db").exists():
        (home / "copl.db").write_bytes(_migrated())


class NoPostgres(Exception):
    """PostgreSQL cannot be had here; the message says why and what to install."""


@contextmanager
def postgres_or_skip() -> Iterator[None]:
    """For a test that starts a server of its own inside: where there is none, it is skipped with the reason."""
    try:
        yield
    except NoPostgres as missing:
        pytest.skip(str(missing))


def programs() -> Path:
    """The folder of ``initdb`` and ``postgres``, the newest version first.

    Raises:
        NoPostgres: neither Debian's folder nor the path holds them.
    """
    installed = [path.parent for path in DEBIAN.glob("*/bin/initdb") if (path.parent / "postgres").is_file()]
    if installed:
        return max(installed, key=lambda folder: float(folder.parent.name))
    on_path = shutil.which("initdb")
    if on_path and shutil.which("postgres"):
        return Path(on_path).parent
    raise NoPostgres("no PostgreSQL server: install one (on Debian or Ubuntu: apt install postgresql)")


@contextmanager
def private_server() -> Iterator[str]:
    """The SQLAlchemy address of an empty database on a new server; the server and its folder go at the end.

    Raises:
        NoPostgres: as in ``private_cluster``.
    """
    with private_cluster() as cluster:
        yield cluster.url


class Cluster:
    """A private server, which can be restarted."""

    def __init__(self, binaries: Path, folder: Path, identity: dict) -> None:
        self.binaries, self.folder, self.identity = binaries, folder, identity
        self.url = f"postgresql+psycopg://copl@/postgres?host={folder}"
        self.start()

    def start(self) -> None:
        flags = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"]
        server = [self.binaries / "postgres", "-D", self.folder / "data", *flags]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", UNTIL_THE_PIPE_CLOSES, "sh", *server],
                stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder, **self.identity,
            )  # fmt: skip
        _wait_until_it_answers(self.folder, self.process)

    def stop(self) -> None:
        """End every connection, and the server."""
        self.process.communicate()  # closes the pipe

    def restart(self) -> None:
        """Stop it and start it again.

        Raises:
            RuntimeError: it does not come back; unlike a missing server, that skips no test.
        """
        self.stop()
        try:
            self.start()
        except NoPostgres as problem:
            raise RuntimeError(str(problem)) from problem


@contextmanager
def private_cluster() -> Iterator[Cluster]:
    """An empty server of its own; the server and its folder go at the end.

    Raises:
        NoPostgres: the programs, the driver or the user that the server needs are missing.
    """
    binaries = programs()
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        raise NoPostgres("psycopg is not installed: pip install 'psycopg[binary]'") from None
    folder = Path(tempfile.mkdtemp(prefix="copl-postgres-"))  # short: the path of a socket holds 107 bytes at most
    try:
        identity = _owner_of(folder)
        _initialise(binaries, folder / "data", identity)
        cluster = Cluster(binaries, folder, identity)
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _owner_of(folder: Path) -> dict[str, object]:
    """Arguments of ``Popen`` that choose who runs the server; the folder is given to that user."""
    if os.geteuid() != 0:
        return {}
    try:
        shutil.chown(folder, "postgres", "postgres")
    except LookupError:
        raise NoPostgres(
            "PostgreSQL refuses to run as root and there is no user postgres; run as another user"
        ) from None
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def _initialise(binaries: Path, data: Path, identity: dict) -> None:
    options = ["--auth=trust", "--username=copl", "--encoding=UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run(
        [binaries / "initdb", "-D", data, *options], cwd=data.parent, capture_output=True, text=True, **identity
    )
    if made.returncode:
        raise NoPostgres(f"initdb failed: {made.stderr.strip()}")


def _wait_until_it_answers(folder: Path, server: subprocess.Popen) -> None:
    import psycopg

    ends = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(host=str(folder), user="copl", dbname="postgres").close()
            return
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > ends:
                log = (folder / "log").read_text(errors="replace")[-2000:]
                raise NoPostgres(f"the PostgreSQL server does not answer ({error}): {log}") from error
            time.sleep(0.05)
