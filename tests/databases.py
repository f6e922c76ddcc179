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
        NoPostgres: the programs, the driver or the user that the server needs are missing.
    """
    binaries = programs()
    try:
        import psycopg
    except ModuleNotFoundError:
        raise NoPostgres("psycopg is not installed: pip install 'psycopg[binary]'") from None
    folder = Path(tempfile.mkdtemp(prefix="copl-postgres-"))  # short: the path of a socket holds 107 bytes at most
    try:
        identity = _owner_of(folder)
        data = folder / "data"
        _initialise(binaries, data, identity)
        flags = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                ["sh", "-c", UNTIL_THE_PIPE_CLOSES, "sh", binaries / "postgres", "-D", data, *flags],
                stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=folder, **identity,
            )  # fmt: skip
        try:
            _wait_until_it_answers(psycopg, folder, server)
            yield f"postgresql+psycopg://copl@/postgres?host={folder}"
        finally:
            server.communicate()  # closes the pipe
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


def _wait_until_it_answers(psycopg, folder: Path, server: subprocess.Popen) -> None:
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
