"""The app alone, as a container starts it: what it answers to a balancer, to a monitor and to a passer-by."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError

import httpx2
import pytest

from copl_core.__main__ import main, open_store
from copl_core.config import Settings
from web import installation

ROOT = Path(__file__).resolve().parents[2]
FAR = {"X-Forwarded-For": "10.1.2.3"}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def process(home) -> Iterator[tuple[subprocess.Popen, str]]:
    """``copl app`` on an empty home, and its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = os.environ | {"COPL_HOME": str(home), "COPL_PORT": str(port)}
    environment["COPL_LOG"] = "json"
    command = [sys.executable, "-m", "copl_core", "app"]
    app = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    yield app, f"http://127.0.0.1:{port}"
    app.kill()
    app.communicate()


@pytest.fixture(scope="module")
def address(process) -> str:
    app, address = process
    ends = time.monotonic() + 60
    while ask(address, "/healthz")[0] != 200:
        assert app.poll() is None and time.monotonic() < ends
        time.sleep(0.1)
    return address


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/people", 200),
        ("GET", "/?token=nonsense", 303),
        ("POST", "/", 405),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 403),
        ("GET", "/_stcore/health", 200),
        ("GET", "/_stcore/metrics", 403),
        ("GET", "/_stcore/host-config", 200),
        ("GET", "/static/none.js", 200),
        ("GET", "/media/none.png", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 400),
        ("PUT", "/_stcore/upload_file/a/b", 403),
        ("DELETE", "/_stcore/upload_file/a/b", 403),
        ("GET", "/auth/login", 404),
        ("GET", "/oauth2callback", 404),
        ("POST", "/_stcore/agent/interact", 403),
    ],
)
def test_every_answer_says_what_a_browser_may_do_with_it(address, method, path, status):
    answer = httpx2.request(method, address + path, headers=FAR, timeout=60)
    assert answer.status_code == status
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "img-src 'self' data: blob:;" in policy
    assert answer.headers["x-frame-options"] == "DENY" and answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer")


def ask(address: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and text of an answer; status 0 where nobody answers."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(address + path, headers=headers or {}), timeout=30
        ) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()
    except OSError:
        return 0, ""


def test_the_app_alone_prepares_its_database_and_is_ready(address):
    assert json.loads(ask(address, "/readyz")[1]) == {"status": "ready"}
    status, text = ask(address, "/metrics")
    assert status == 200 and 'copl_champion_info{study="1",snapshot="v0001"} 1' in text


def test_counts_of_the_studio_and_of_streamlit_are_closed_to_passers_by(address):
    for path in ("/metrics", "/_stcore/metrics"):
        assert ask(address, path)[0] == 200
        assert ask(address, path, FAR)[0] == 403
    assert ask(address, "/readyz", FAR)[0] == 200 and ask(address, "/healthz", FAR)[0] == 200


@pytest.mark.parametrize("reached", ["127.0.0.1", "0.0.0.0"])
def test_an_app_that_others_reach_names_the_studies_that_anybody_may_join(reached, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("COPL_HOME", str(tmp_path))
    monkeypatch.setenv("COPL_ADDRESS", reached)
    open_store(Settings(home=tmp_path)).create_study("100 % birds")
    installation._opened.__wrapped__()
    lines = [line for line in caplog.messages if "Anybody who reaches it can join '100 % birds':" in line]
    assert len(lines) == (reached == "0.0.0.0")


def test_its_pages_are_served_beside_these_addresses(address):
    assert ask(address, "/_stcore/health")[0] == 200 and "<html" in ask(address, "/label")[1]


def test_a_second_app_on_the_port_is_a_sentence(address, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COPL_HOME", str(tmp_path))
    monkeypatch.setenv("COPL_PORT", address.rpartition(":")[2])
    assert main(["app"]) == 1
    assert "another program answers on it" in capsys.readouterr().err


def test_an_app_whose_tables_have_been_migrated_says_what_to_do_until_they_are_its_own_again(home, address):
    def with_tables_of(version: str, status: int) -> tuple[str, list[str]]:
        """(the version before, what readiness and a sign-in link answer once they have this status)"""
        with closing(sqlite3.connect(home / "copl.db")) as connection, connection:
            (before,) = connection.execute("select version_num from alembic_version").fetchone()
            connection.execute("update alembic_version set version_num = ?", (version,))
        ends = time.monotonic() + 60
        while True:
            answers = [ask(address, path) for path in ("/readyz", "/?token=nonsense")]
            if {code for code, _ in answers} == {status}:
                return before, [sentence for _, sentence in answers]
            assert time.monotonic() < ends
            time.sleep(0.1)

    before, sentences = with_tables_of("9999", 503)
    assert all("start the newer program" in sentence for sentence in sentences)
    assert with_tables_of(before, 200)[0] == "9999"


def test_a_signal_ends_the_app_and_every_line_of_its_log_is_json(process, address):
    app, _ = process
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as raw:
        raw.sendall(b"no request\r\n\r\n")  # the web server warns of it
        raw.recv(100)
    app.send_signal(signal.SIGTERM)
    lines = [json.loads(line) for line in app.communicate(timeout=30)[0].decode().splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    assert "copl" in {line["logger"] for line in lines}
    warned = [line for line in lines if line["level"] == "WARNING"]
    assert [line["message"] for line in warned if line["logger"] == "uvicorn.error"] == [
        "Invalid HTTP request received."
    ]
