"""The launcher: the app and the trainer as two processes that start together and end together.

The launcher prepares the home folder, starts both, restarts the trainer when it dies, and stops both on Ctrl-C.  If the
launcher itself is killed, a small guard process sees its pipe close and stops the processes that are left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

from copl_core.config import STOP_SECONDS, Settings
from copl_core.install.program import PROGRAM
from copl_core.records import CoplError

# Seconds between asking a process to stop and killing it.  The trainer takes up to ``STOP_SECONDS`` to reach the next
# step of its current run and then writes to the database; a trainer killed before that leaves its run behind.
GRACE = {"app": 4.0, "worker": STOP_SECONDS + 4.0}
STEADY = 60.0  # seconds; a trainer that ran this long restarts after the shortest pause
LONGEST_PAUSE = 30.0  # seconds between two starts of a trainer that keeps dying
SAY = partial(print, flush=True)  # unbuffered, so that the address is readable at once in a log file, too
LOG_LIMIT = 5_000_000  # bytes; a longer log is renamed at the next start

# Reads "+group" and "-group" lines; when the pipe closes, stops the groups that are left.
GUARD = f"""
import os, signal, sys, time
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for sign, pause in ((signal.SIGTERM, {GRACE["worker"]}), (signal.SIGKILL, 0)):
    for group in groups:
        try:
            os.killpg(group, sign)
        except OSError:
            pass
    time.sleep(pause if groups else 0)
"""


def app_command(settings: Settings) -> list[str]:
    """The app alone, as the launcher starts it."""
    return [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(PROGRAM / "streamlit_app.py"),
        "--server.port",
        str(settings.port),
        "--server.address",
        settings.address,
        "--server.headless",
        "true",
        "--browser.gatherUsageStats",
        "false",
    ]


def worker_command() -> list[str]:
    """The trainer alone."""
    return [sys.executable, "-m", "copl_core", "worker"]


def main(
    settings: Settings,
    prepare: Callable[[Settings], str],
    *,
    app: Sequence[str] | None = None,
    worker: Sequence[str] | None = None,
    say: Callable[[str], object] = SAY,
    patience: float = 120.0,
) -> int:
    """Start the app and the trainer, and wait until Ctrl-C, a signal or the end of the app.

    Args:
        settings: of this installation.
        prepare: prepares the database and returns the owner's sign-in path, such as ``/?token=…``.
        app, worker: the commands to run; None: the real ones.
        say: prints a message for the user.
        patience: seconds within which the app must answer.

    Returns:
        Exit code: 0 after Ctrl-C or a signal, 1 after an error, which is reported in one sentence.
    """
    with _stop_on_signals() as stop:
        try:
            logs = prepare_home(settings.home)
            check_port(settings.port, settings.address)
            path = prepare(settings)
            with _Processes(
                settings, app or app_command(settings), worker or worker_command(), logs, say, stop
            ) as processes:
                processes.wait_until_it_answers(patience)
                _greet(settings, path, say)
                processes.watch()
        except KeyboardInterrupt:
            say(f"Stopped. Everything is kept in {settings.home}.")
            return 0
        except CoplError as error:
            say(str(error))
        except OSError as error:
            say(f"Cannot start in {settings.home}: {error.strerror or error}; choose another folder with COPL_HOME=…")
        return 1


def prepare_home(home: Path) -> Path:
    """Create the home folder and its logs folder, and test that files can be written.  Returns the logs folder.

    Raises:
        CoplError: the folder cannot be created, is read-only or is full.
    """
    logs, probe = home / "logs", home / f".probe-{os.getpid()}"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CoplError(
            f"Cannot write to the folder {home} ({error.strerror or error}); free some space, make it "
            "writable, or choose another with COPL_HOME=…"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return logs


def check_port(port: int, address: str = "127.0.0.1") -> None:
    """Check that the app can listen on the port of an address.

    Raises:
        CoplError: another program answers on the port, the port is not allowed, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener, socket.socket(family) as caller:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released is free
        caller.settimeout(1)
        try:
            if caller.connect_ex((_to_call(address), port)) == 0:
                raise OSError("another program answers on it")
            listener.bind((address, port))
            listener.listen()
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise CoplError(
                    f"COPL_ADDRESS is {address}, which is no address of this machine; take 127.0.0.1, or 0.0.0.0."
                ) from None
            raise CoplError(
                f"Port {port} cannot be used ({error.strerror or error}); stop the program that uses it, "
                f"or choose another port: COPL_PORT={port + 1 if 1024 < port < 65535 else 8501} make run"
            ) from None


def _to_call(address: str) -> str:
    """Where a program of this machine reaches the app."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def _greet(settings: Settings, path: str, say: Callable[[str], object]) -> None:
    address = f"http://{settings.host}:{settings.port}"
    reach = (
        "Only this machine can open it; COPL_ADDRESS=0.0.0.0 opens it to others."
        if settings.is_local
        else f"Everybody who reaches port {settings.port} of {settings.address} can open it, without encryption: let a "
        "proxy with HTTPS stand before it."
    )
    say(
        f"\nCoPL Studio is ready at  {address}\n"
        f"Sign in as the owner:    {address}/{path.lstrip('/')}\n"
        f"{reach}\n"
        f"Ctrl-C stops it. Logs and data are in {settings.home}.\n"
    )


class _Processes:
    """The two processes of a running studio; leaving the context stops both."""

    def __init__(
        self,
        settings: Settings,
        app: Sequence[str],
        worker: Sequence[str],
        logs: Path,
        say: Callable[[str], object],
        stop: _Stop,
    ) -> None:
        self.settings, self.logs, self.say, self.stop = settings, logs, say, stop
        self.commands = {"app": list(app), "worker": list(worker)}
        self.processes: dict[str, subprocess.Popen] = {}
        self.environment = os.environ | {
            "COPL_HOME": str(settings.home.resolve()),
            "COPL_PORT": str(settings.port),
            "PYTHONUNBUFFERED": "1",
        }
        # The app multiplies small matrices for many visitors at once: more threads per product make it slower.
        self.extra_environment = {
            "app": {"OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1")},
            # The trainer returns large tensors to the system (``trainer.memory``); in large pages that costs less time.
            "worker": {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")},
        }

    def __enter__(self) -> _Processes:
        self.guard = subprocess.Popen(
            [sys.executable, "-c", GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            for name in self.commands:
                _rotate(self.logs / f"{name}.log")
                self._start(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, kind: type | None = None, *_: object) -> None:
        """Ask both to stop, wait, then kill; a second Ctrl-C kills them at once."""
        if kind is KeyboardInterrupt:
            self.say("Stopping…")
        groups = list(self.processes.values())
        try:
            for process in groups:
                _signal_group(process, signal.SIGTERM)
            started = time.monotonic()
            for name, process in self.processes.items():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, started + GRACE[name] - time.monotonic()))
        except KeyboardInterrupt:
            pass
        finally:
            for process in groups:
                _signal_group(process, signal.SIGKILL)
                process.wait()
            self._write_to_guard("".join(f"-{process.pid}\n" for process in groups))
            with contextlib.suppress(OSError):
                self._guard_input.close()
            self.guard.wait()

    def wait_until_it_answers(self, patience: float) -> None:
        host = _to_call(self.settings.address)
        health = f"http://{f'[{host}]' if ':' in host else host}:{self.settings.port}/_stcore/health"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy for a local address
        ends = time.monotonic() + patience
        while time.monotonic() < ends:
            self._check_app()
            with (
                contextlib.suppress(OSError),
                opener.open(health, timeout=2) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(0.1)
        raise CoplError(
            f"The app did not answer within {patience:.0f} s; see {self.logs / 'app.log'}, then start it again."
        )

    def watch(self) -> None:
        """Wait until the app ends (a CoplError) or a signal arrives; restart the trainer when it dies."""
        pause, since, due = 1.0, time.monotonic(), 0.0
        while True:
            self._check_app()
            now = time.monotonic()
            code = self.processes["worker"].poll()
            if due and now >= due:
                self._start("worker")
                since, due = now, 0.0
            elif code is not None and not due:
                pause = 1.0 if now - since > STEADY else pause
                self.say(
                    f"The trainer stopped ({_reason(code)}); it starts again in {pause:.0f} s. "
                    f"No label is lost. Log: {self.logs / 'worker.log'}"
                )
                due, pause = now + pause, min(pause * 2, LONGEST_PAUSE)
            time.sleep(0.2)

    def _start(self, name: str) -> None:
        if old := self.processes.get(name):  # stop the children of the dead trainer first
            _signal_group(old, signal.SIGKILL)
            self._write_to_guard(f"-{old.pid}\n")
        with (
            _open_log(self.logs / f"{name}.log") as log,
            self.stop.hold(),
        ):  # a process that is started is always recorded
            process = subprocess.Popen(
                self.commands[name],
                cwd=PROGRAM,
                env=self.environment | self.extra_environment[name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.processes[name] = process
            self._write_to_guard(f"+{process.pid}\n")

    @property
    def _guard_input(self) -> IO[str]:
        assert self.guard.stdin is not None  # it is a pipe
        return self.guard.stdin

    def _write_to_guard(self, line: str) -> None:
        with contextlib.suppress(OSError):  # without its guard, the studio still runs
            self._guard_input.write(line)
            self._guard_input.flush()

    def _check_app(self) -> None:
        code = self.processes["app"].poll()
        if code is not None:
            log = self.logs / "app.log"
            raise CoplError(
                f"The app stopped ({_reason(code)}); start it again, or read {log}, which ends with:\n{_tail(log)}"
            )


def _signal_group(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        os.killpg(process.pid, number)


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        os.replace(log, log.with_suffix(".old.log"))


def _open_log(log: Path) -> IO[bytes]:
    file = log.open("ab")
    file.write(f"---- {time.strftime('%Y-%m-%d %H:%M:%S')} start\n".encode())
    file.flush()
    return file


def _tail(log: Path, lines: int = 8) -> str:
    text = log.read_bytes()[-8000:].decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in text[-lines:])


class _Stop:
    """A signal handler that raises KeyboardInterrupt at once, or after a step that must not be interrupted."""

    signal_name = ""
    held = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        if not self.held:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        self.held = True
        try:
            yield
        finally:
            self.held = False
        if self.signal_name:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[_Stop]:
    """SIGTERM and a closed terminal end the launcher as Ctrl-C does."""
    stop = _Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler != signal.SIG_IGN:  # nohup: the terminal may close
            signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
