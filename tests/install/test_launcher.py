"""The launcher: two processes that start and end together, with one sentence for each event."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from copl_core.config import STOP_SECONDS, Settings
from copl_core.install import launcher as up
from copl_core.install import processes
from copl_core.records import CoplError

ROOT = Path(__file__).resolve().parents[2]

# Stand-ins for the two processes: each writes its process id, and the app answers every address with "ok".
APP = """
import http.server, os, pathlib, sys
home = pathlib.Path(os.environ["COPL_HOME"])
class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", int(os.environ["COPL_PORT"])), Ok)
(home / "app.pid").write_text(str(os.getpid()))
server.serve_forever()
"""
WORKER = """
import os, pathlib, subprocess, sys, time
home = pathlib.Path(os.environ["COPL_HOME"])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(home / "grandchild.pid").write_text(str(child.pid))
(home / "worker.pid").write_text(str(os.getpid()))
time.sleep(600)
"""
LAUNCH = """
import pathlib, sys
from copl_core.config import Settings
from copl_core.install import launcher as up, processes
home, port, app, worker, pause = sys.argv[1:]
processes.FIRST_PAUSE = float(pause)
command = lambda text: [sys.executable, "-c", text]
sys.exit(up.main(Settings(home=pathlib.Path(home), port=int(port)), lambda _: "/?token=secret",
                 warn=lambda _: "Anybody can join.",
                 app=command(app), worker=command(worker), say=lambda text: print(text, flush=True)))
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Launched:
    """A launcher in a separate process, with its output."""

    def __init__(
        self, home: Path, app: str = APP, worker: str = WORKER, port: int | None = None, pause: float = 1.0
    ) -> None:
        self.home, self.port = home, port or free_port()
        command = [sys.executable, "-c", LAUNCH, str(home), str(self.port), app, worker, str(pause)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def pid(self, name: str, other_than: int = 0) -> int:
        """The process id that a stand-in has written, once it is there and differs from ``other_than``."""
        path = self.home / f"{name}.pid"
        return int(until(lambda: path.exists() and (text := path.read_text()) and int(text) != other_than and text))

    def pids(self) -> list[int]:
        return [self.pid(name) for name in ("app", "worker", "grandchild")]

    def output(self) -> str:
        return self.process.communicate(timeout=30)[0]

    def wait_for(self, words: str) -> str:
        lines = ""
        while words not in lines:
            line = self.process.stdout.readline()
            assert line, f"the launcher ended before it printed {words!r}: {lines}"
            lines += line
        return lines


def until(condition, seconds: float = 20.0):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"the condition did not hold within {seconds} s")


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def launch(tmp_path):
    started = []

    def start(**options) -> Launched:
        started.append(Launched(tmp_path / "home", **options))
        return started[-1]

    yield start
    for launched in started:
        if launched.process.poll() is None:
            launched.process.terminate()
            launched.process.wait(30)
        launched.process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_prints_the_address_and_a_signal_stops_everything_with_exit_code_0(launch, number):
    launched = launch()
    output = launched.wait_for("\nAnybody can join.\n")
    assert f"http://localhost:{launched.port}/?token=secret" in output and "Ctrl-C stops it" in output
    pids = launched.pids()
    launched.process.send_signal(number)
    assert "Stopped" in launched.output()
    assert launched.process.returncode == 0
    assert all(gone(pid) for pid in pids)


def test_nothing_survives_a_killed_launcher(launch):
    launched = launch()
    launched.wait_for("ready")
    pids = launched.pids()
    launched.process.kill()
    until(lambda: all(gone(pid) for pid in pids))


def test_a_killed_trainer_starts_again_and_takes_its_children_along(launch):
    launched = launch()
    launched.wait_for("ready")
    app, worker, grandchild = launched.pids()
    os.kill(worker, signal.SIGKILL)
    assert "signal 9" in launched.wait_for("starts again")
    assert launched.pid("worker", other_than=worker) != worker
    assert gone(grandchild) and not gone(app)


def test_a_trainer_that_keeps_dying_is_started_ever_less_often(launch):
    launched = launch(worker="raise SystemExit(3)")
    output = launched.wait_for("again in 2 s")
    assert "exit code 3" in output and "again in 1 s" in output


def test_a_trainer_that_dies_six_times_in_a_row_stays_away_and_the_app_goes_on(launch):
    count = "import os, pathlib\nwith (pathlib.Path(os.environ['COPL_HOME']) / 'starts').open('a') as f: f.write('x')\n"
    launched = launch(worker=count + "print('the reason'); raise SystemExit(3)", pause=0.01)
    output = launched.wait_for("not started again") + launched.wait_for("the reason")
    starts, app = launched.home / "starts", launched.pid("app")
    assert f"stopped {processes.MOST_RESTARTS + 1} times in a row (exit code 3)" in output and "worker.log" in output
    note = Settings(home=launched.home).trainer_given_up
    assert "is not started again" in note.read_text()
    assert starts.read_text() == "x" * (processes.MOST_RESTARTS + 1) and not gone(app)
    os.kill(app, signal.SIGKILL)
    launched.pid("app", other_than=app)  # the launcher still looks after the app
    launched.process.terminate()
    launched.output()
    launch(port=free_port()).wait_for("ready")
    assert not note.exists() and len(starts.read_text()) == processes.MOST_RESTARTS + 1


def test_the_end_of_the_app_ends_the_launcher_with_the_last_lines_of_its_log(launch):
    launched = launch(app="print('the reason'); raise SystemExit(7)")
    output = launched.output()
    assert launched.process.returncode == 1
    assert "exit code 7" in output and "the reason" in output and "Traceback" not in output


def test_a_killed_app_comes_back_at_its_address_and_the_trainer_goes_on(launch):
    launched = launch()
    launched.wait_for("ready")
    app, worker, _ = launched.pids()
    os.kill(app, signal.SIGKILL)
    assert "The app stopped (signal 9)" in launched.wait_for("starts again")
    assert launched.pid("app", other_than=app) != app
    until(lambda: answers(launched.port))
    assert not gone(worker)


def test_an_app_that_keeps_dying_ends_the_launcher_and_the_trainer_with_a_sentence(launch):
    once = "import os, pathlib\nif (pathlib.Path(os.environ['COPL_HOME']) / 'app.pid').exists(): raise SystemExit(7)\n"
    launched = launch(app=once + APP, pause=0.01)
    launched.wait_for("ready")
    app, worker, _ = launched.pids()
    os.kill(app, signal.SIGKILL)
    output = launched.output()
    assert launched.process.returncode == 1 and gone(worker)
    assert f"stopped {processes.MOST_RESTARTS + 1} times in a row (exit code 7)" in output and "Traceback" not in output


def answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def test_a_second_launcher_of_a_home_says_who_serves_it_and_ends(launch):
    first = launch()
    first.wait_for("ready")
    for port in (first.port, free_port()):
        second = launch(port=port)
        output = second.output()
        assert second.process.returncode == 1 and len(output.splitlines()) == 1
        assert f"process {first.process.pid}, http://localhost:{first.port}" in output
    assert not any(gone(pid) for pid in first.pids())


def test_a_killed_launcher_leaves_its_home_free(launch):
    first = launch()
    first.wait_for("ready")
    pids = first.pids()
    first.process.kill()
    until(lambda: all(gone(pid) for pid in pids))
    launch().wait_for("ready")


def run_main(home: Path, prepare=lambda _: "/", port: int | None = None) -> tuple[int, list[str]]:
    output: list[str] = []
    stay = [sys.executable, "-c", "import time; time.sleep(60)"]
    code = up.main(
        Settings(home=home, port=port or free_port()), prepare, app=stay, worker=stay, say=output.append, patience=0.5
    )
    return code, output


def test_a_port_in_use_is_one_sentence_with_a_way_out(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, output = run_main(tmp_path, port=taken.getsockname()[1])
    assert code == 1 and len(output) == 1 and "COPL_PORT=" in output[0]


def test_a_home_that_is_not_writable_is_one_sentence_with_a_way_out(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code, output = run_main(tmp_path / "file" / "home")
    assert code == 1 and len(output) == 1 and "COPL_HOME=" in output[0]


@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_is_one_sentence(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        code, output = run_main(tmp_path)
        assert code == 1 and len(output) == 1 and "No space left" in output[0]
        assert not list(tmp_path.glob(".probe*"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_port_in_use_is_found_before_anything_is_downloaded(tmp_path, monkeypatch, capsys):
    from copl_core.__main__ import main
    from copl_core.install import weights

    monkeypatch.setattr(weights, "fetch", lambda *_, **__: pytest.fail("it downloads first"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name, value in (("COPL_HOME", str(tmp_path / "home")), ("COPL_PORT", str(port))):
            monkeypatch.setenv(name, value)
        assert main(["weights", "--check-port"]) == 1
    assert f"Port {port} cannot be used" in capsys.readouterr().err


def test_an_error_of_the_preparation_is_reported_and_nothing_starts(tmp_path):
    def broken(_settings):
        raise CoplError("the database is from a later version; update the program")

    assert run_main(tmp_path, broken) == (1, ["the database is from a later version; update the program"])
    assert not (tmp_path / "logs" / "app.log").exists()


def test_an_app_that_never_answers_is_reported_and_stopped(tmp_path):
    before = {child.pid for child in psutil.Process().children()}
    code, output = run_main(tmp_path)
    assert code == 1 and "did not answer" in output[-1]
    assert {child.pid for child in psutil.Process().children()} <= before


SLOW_WORKER = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def stop(*_):
    time.sleep(0.6)  # the current run reaches its next step
    (folder / "stopped").touch()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
(folder / "started").touch()
time.sleep(60)
"""


def test_a_trainer_gets_more_time_to_stop_than_it_takes(tmp_path, monkeypatch):
    assert processes.GRACE["worker"] > STOP_SECONDS
    monkeypatch.setattr(processes, "GRACE", {"app": 0.1, "worker": 10.0})
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'started')!r}).exists(): time.sleep(0.05)"
    settings, worker = Settings(home=tmp_path, port=free_port()), [sys.executable, "-c", SLOW_WORKER, str(tmp_path)]
    up.main(settings, lambda _: "/", app=[sys.executable, "-c", wait], worker=worker, say=lambda _: None)
    assert (tmp_path / "stopped").exists()
