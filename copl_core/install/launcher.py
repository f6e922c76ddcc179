"""The launcher: the app and the trainer as two processes that start together and end together.

One launcher serves a home folder.  It prepares the folder, starts both (``processes``), and stops both on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

from copl_core.command_line import command as to_type
from copl_core.config import Settings
from copl_core.install.processes import Processes, environment_of, stop_on_signals, to_call
from copl_core.install.program import PROGRAM
from copl_core.records import CoplError

SAY = partial(print, flush=True)  # unbuffered, so that the address is readable at once in a log file, too
LOCK_NAME = "launcher.lock"  # in the home folder; the kernel releases it when the launcher dies


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
        *(["--logger.hideWelcomeMessage", "true"] if settings.log == "json" else []),  # it is no JSON
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
    warn: Callable[[Settings], str] = lambda settings: "",
    say: Callable[[str], object] = SAY,
    patience: float = 120.0,
) -> int:
    """Start the app and the trainer, start each again when it dies, and wait until Ctrl-C or a signal.

    Args:
        settings: of this installation.
        prepare: prepares the database and returns the owner's sign-in path, such as ``/?token=…``.
        app, worker: the commands to run; None: the real ones.
        warn: what the user should know about who may come in, in one line; empty: nothing.
        say: prints a message for the user.
        patience: seconds within which the app must answer.

    Returns:
        Exit code: 0 after Ctrl-C or a signal, 1 after an error, which is reported in one sentence.
    """
    with stop_on_signals() as stop:
        try:
            logs = prepare_home(settings)
            with only_launcher(settings):
                check_port(settings.port, settings.address)
                path = prepare(settings)
                commands = {"app": app or app_command(settings), "worker": worker or worker_command()}
                with Processes(settings, commands, logs, say, stop) as processes:
                    processes.wait_until_it_answers(patience)
                    _greet(settings, path, say)
                    if warning := warn(settings):
                        say(warning + "\n")
                    processes.watch()
        except KeyboardInterrupt:
            say(f"Stopped. Everything is kept in {settings.home}.")
            return 0
        except CoplError as error:
            say(error.in_full)
        except OSError as error:
            say(f"Cannot start in {settings.home}: {error.strerror or error}; choose another folder with COPL_HOME=…")
        return 1


def become_app(settings: Settings, say: Callable[[str], object] = SAY) -> NoReturn:
    """Become the app alone, where a supervisor or a container starts each process; its signals are the app's own.

    Raises:
        CoplError: the home folder or the port cannot be used.
    """
    prepare_home(settings)
    check_port(settings.port, settings.address)
    say(f"The app answers at http://{settings.host}:{settings.port}; the owner's sign-in link: {to_type('link')}")
    command, environment = app_command(settings), environment_of("app", settings)
    os.chdir(PROGRAM)  # where streamlit reads its settings
    os.execve(command[0], command, environment)


def prepare_home(settings: Settings) -> Path:
    """Create the home folder and its logs folder, and test that files can be written.  Returns the logs folder.

    A home that is the user's alone keeps its new files so.

    Raises:
        CoplError: the folder cannot be created, is read-only or is full.
    """
    home = settings.home
    logs, probe = home / "logs", home / f".probe-{os.getpid()}"
    try:
        settings.make_home()
        settings.keep_private()
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


@contextlib.contextmanager
def only_launcher(settings: Settings) -> Iterator[None]:
    """Be the only launcher of this home folder.

    Raises:
        CoplError: another one serves it, at whatever port.
    """
    with (settings.home / LOCK_NAME).open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CoplError(
                f"CoPL Studio already runs on {settings.home} ({_holder(stream)}). Open that address, or stop that "
                "process first; a second studio needs a home of its own: COPL_HOME=…"
            ) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()}, http://{settings.host}:{settings.port}")
        stream.flush()
        yield


def _holder(stream: IO[str]) -> str:
    """What the launcher that holds the lock has written about itself."""
    time.sleep(0.1)  # it writes an instant after it has the lock
    stream.seek(0)
    return stream.read(200).strip() or "the process is not known"


def check_start(settings: Settings) -> None:
    """Check what ``main`` needs of this machine, before anything is downloaded for it.

    Raises:
        CoplError: the studio of this home is running, or the port cannot be used.
    """
    prepare_home(settings)
    with only_launcher(settings):
        check_port(settings.port, settings.address)


def check_port(port: int, address: str = "127.0.0.1", choose: str = "COPL_PORT={} make run") -> None:
    """Check that the app can listen on the port of an address; ``choose`` says how another port is chosen.

    Raises:
        CoplError: another program answers on the port, the port is not allowed, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener, socket.socket(family) as caller:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released is free
        caller.settimeout(1)
        try:
            if caller.connect_ex((to_call(address), port)) == 0:
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
                f"or choose another port: {choose.format(port + 1 if 1024 < port < 65535 else 8501)}"
            ) from None


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
        f"That link opens for {settings.link_time}; another one: {to_type('link')}\n"
        f"{reach}\n"
        f"Ctrl-C stops it. Logs and data are in {settings.home}.\n"
    )
