"""The two processes of a running studio: each is started again when it dies, and both end together.

If the launcher itself is killed, a small guard process sees its pipe close and stops the processes that are left.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO

from copl_core.config import STOP_SECONDS, Settings
from copl_core.install.program import PROGRAM
from copl_core.records import CoplError

# Seconds between asking a process to stop and killing it.  The trainer takes up to ``STOP_SECONDS`` to reach the next
# step of its current run and then writes to the database; a trainer killed before that leaves its run behind.
GRACE = {"app": 4.0, "worker": STOP_SECONDS + 4.0}
STEADY = 60.0  # seconds; a process that ran this long restarts after the shortest pause
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two starts of a process that keeps dying
MOST_RESTARTS = 5  # of a process that keeps dying; without a trainer people still label, without an app nobody does
LOG_LIMIT = 5_000_000  # bytes; a longer log is renamed at the next start
_WORDS = {"app": "app", "worker": "trainer"}

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


def to_call(address: str) -> str:
    """Where a program of this machine reaches the app."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def environment_of(name: str, settings: Settings) -> dict[str, str]:
    """The environment of the process "app" or "worker"."""
    own = {
        # The app multiplies small matrices for many visitors at once: more threads per product make it slower.
        "app": {"OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1")},
        # The trainer returns large tensors to the system (``trainer.memory``); in large pages that costs less time.
        "worker": {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")},
    }
    shared = {
        "COPL_HOME": str(settings.home.resolve()),
        "COPL_PORT": str(settings.port),
        "PYTHONUNBUFFERED": "1",
    }
    return os.environ | shared | own[name]


class _Restarts:
    """How often a process has died in a row, and when it starts again."""

    def __init__(self) -> None:
        self.in_a_row, self.since, self.due = 0, time.monotonic(), 0.0  # due is 0 while the process runs

    def died(self) -> float:
        """Note a death; returns the seconds until the next start."""
        now = time.monotonic()
        self.in_a_row = 1 if now - self.since > STEADY else self.in_a_row + 1
        pause = min(FIRST_PAUSE * 2 ** (self.in_a_row - 1), LONGEST_PAUSE)
        self.due = now + pause
        return pause

    def started(self) -> None:
        self.since, self.due = time.monotonic(), 0.0


class Processes:
    """The two processes of a running studio; leaving the context stops both."""

    def __init__(
        self,
        settings: Settings,
        commands: Mapping[str, Sequence[str]],
        logs: Path,
        say: Callable[[str], object],
        stop: Stop,
    ) -> None:
        self.settings, self.logs, self.say, self.stop = settings, logs, say, stop
        self.commands = {name: list(command) for name, command in commands.items()}
        self.processes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Processes:
        self.guard = subprocess.Popen(
            [sys.executable, "-c", GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            self.settings.trainer_given_up.unlink(missing_ok=True)
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
        host = to_call(self.settings.address)
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
        """Until a signal arrives: start each process again when it dies; a trainer that keeps dying stays away.

        Raises:
            CoplError: the app keeps dying.
        """
        restarts = {name: _Restarts() for name in self.commands}
        while True:
            for name, one in restarts.items():
                self._look_after(name, one)
            time.sleep(0.2)

    def _look_after(self, name: str, restarts: _Restarts) -> None:
        code = self.processes[name].poll()
        if restarts.due:
            if time.monotonic() >= restarts.due:
                self._start(name)
                restarts.started()
        elif code is not None:
            pause = restarts.died()
            if restarts.in_a_row > MOST_RESTARTS:
                self._give_up(name, restarts, code)
                return
            self.say(
                f"The {_WORDS[name]} stopped ({_reason(code)}); it starts again in {pause:.0f} s. "
                f"No label is lost. Log: {self.logs / f'{name}.log'}"
            )

    def _give_up(self, name: str, restarts: _Restarts, code: int) -> None:
        what = f"stopped {restarts.in_a_row} times in a row"
        if name == "app":
            raise CoplError(self._last_words(what, code))
        restarts.due = math.inf
        why = (
            f"The trainer {what} ({_reason(code)}) and is not started again. People go on labelling, and nothing is "
            f"learned from their labels. Read {self.logs / 'worker.log'}, mend what it names, then stop the studio and "
            "start it again."
        )
        with contextlib.suppress(OSError):
            self.settings.trainer_given_up.write_text(why)
        self.say(f"{why} The log ends with:\n{_tail(self.logs / 'worker.log')}")

    def _start(self, name: str) -> None:
        if old := self.processes.get(name):  # stop the children of the dead process first
            _signal_group(old, signal.SIGKILL)
            self._write_to_guard(f"-{old.pid}\n")
        with (
            _open_log(self.logs / f"{name}.log", self.settings.log) as log,
            self.stop.hold(),
        ):  # a process that is started is always recorded
            process = subprocess.Popen(
                self.commands[name],
                cwd=PROGRAM,
                env=environment_of(name, self.settings),
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
            raise CoplError(self._last_words("stopped", code))

    def _last_words(self, what: str, code: int) -> str:
        log = self.logs / "app.log"
        return f"The app {what} ({_reason(code)}); start it again, or read {log}, which ends with:\n{_tail(log)}"


def _signal_group(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        os.killpg(process.pid, number)


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        os.replace(log, log.with_suffix(".old.log"))


def _open_log(log: Path, style: str) -> IO[bytes]:
    file, now = log.open("ab"), datetime.now(UTC)
    line = f"---- {now.astimezone():%Y-%m-%d %H:%M:%S} start"
    if style == "json":
        facts = {"level": "INFO", "logger": "copl.launcher", "message": "start"}
        line = json.dumps({"time": now.isoformat(timespec="milliseconds")} | facts)
    file.write(f"{line}\n".encode())
    file.flush()
    return file


def _tail(log: Path, lines: int = 8) -> str:
    text = log.read_bytes()[-8000:].decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in text[-lines:])


class Stop:
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
def stop_on_signals() -> Iterator[Stop]:
    """SIGTERM and a closed terminal end the launcher as Ctrl-C does."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler != signal.SIG_IGN:  # nohup: the terminal may close
            signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
