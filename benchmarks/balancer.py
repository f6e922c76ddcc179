"""The balancer of ``deploy/haproxy.cfg`` before apps of this machine: haproxy itself, with the names replaced."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cluster import ROOT, free_ports

CONFIGURATION = ROOT / "deploy" / "haproxy.cfg"


class NoBalancer(Exception):
    """haproxy is not installed; the message says what to install."""


class Balancer:
    """A running haproxy; its own counts tell which apps it sends people to."""

    def __init__(self, address: str, commands: Path) -> None:
        self.address, self._commands = address, commands

    def up(self) -> set[str]:
        """The apps (``app1``, …) that it holds to be ready; empty while it starts."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self._commands))
                connection.sendall(b"show stat\n")
                answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except OSError:
            return set()
        names, *rows = (line.split(",") for line in answer.lstrip("# ").splitlines() if line)
        found = (dict(zip(names, row, strict=False)) for row in rows)
        return {one["svname"] for one in found if one["svname"].startswith("app") and one["status"].startswith("UP")}


@contextmanager
def balanced(folder: Path, apps: Sequence[str], every: str = "2s") -> Iterator[Balancer]:
    """A balancer before these apps (``http://127.0.0.1:port``), which ends with the context.

    Args:
        every: the pause between two of its looks at an app.

    Raises:
        NoBalancer: haproxy is not installed.
    """
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise NoBalancer("haproxy is not installed (on Debian or Ubuntu: apt install haproxy)")
    (port,), commands, file = free_ports(1), folder / "haproxy.sock", folder / "haproxy.cfg"
    file.write_text(adapted(CONFIGURATION.read_text(), port, apps, commands).replace("inter 2s", f"inter {every}"))
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-db", "-f", str(file)], stdout=log, stderr=log)
    try:
        yield Balancer(f"http://127.0.0.1:{port}", commands)
    finally:
        process.kill()
        process.wait()


def adapted(text: str, port: int, apps: Sequence[str], commands: Path) -> str:
    """The balancer's file with ports of this machine in place of the names of containers."""
    text = text.replace("bind :8080", f"bind 127.0.0.1:{port}").split("\nresolvers ")[0]
    text = re.sub(r" init-addr \S+ resolvers \S+", "", text)
    for number, app in enumerate(apps, 1):
        text = re.sub(rf"(server app{number}) \S+", rf"\1 {app.removeprefix('http://')}", text)
    return text.replace("global\n", f"global\n    stats socket {commands} level user\n", 1)
