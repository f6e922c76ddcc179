"""The reward server among clients that are slow, broken or hostile, and in an installation that is in trouble."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from shutil import rmtree
from threading import Event, Thread

import pytest
from starlette.testclient import TestClient

from copl_core.serving import app, bodies
from copl_core.serving.app import make_app, server_of
from copl_core.study import access, service_tokens
from copl_core.study.session import Session
from copl_core.study_settings import ServiceRole
from tests.worlds import by_style, long_text, short_text, two_camps
from tests.worlds import trained as trained_world

BODY = {"prompt": "What about number 3?", "responses": [short_text(3), long_text(3)], "user": "user 00"}


@pytest.fixture(scope="module")
def camps(tmp_path_factory) -> Session:
    return trained_world(two_camps, tmp_path_factory, tmp_path_factory.mktemp("served") / "home")


@pytest.fixture(scope="module")
def secret(camps) -> str:
    return service_tokens.make_token(camps, "trainer", per_minute=100_000)[1]


@pytest.fixture(scope="module")
def client(camps, secret) -> TestClient:
    headers = {"Authorization": f"Bearer {secret}"}
    return TestClient(
        make_app(camps.store, camps.settings, embed=by_style), headers=headers, raise_server_exceptions=False
    )


@pytest.fixture
def server(camps):
    """A running server."""
    server = server_of(make_app(camps.store, camps.settings, embed=by_style), "127.0.0.1", 0)
    running = Thread(target=server.run)
    running.start()
    while not server.started:
        assert running.is_alive()
    yield server
    server.should_exit = True
    running.join()


class Raw:
    """A connection on which a test writes what it likes."""

    def __init__(self, server) -> None:
        self.socket = socket.create_connection(server.servers[0].sockets[0].getsockname(), timeout=20)

    def send(self, *lines: str, body: bytes = b"") -> Raw:
        self.socket.sendall("\r\n".join(["POST /v1/rewards HTTP/1.1", "Host: x", *lines, "", ""]).encode() + body)
        return self

    def status(self) -> int:
        """The status of the answer; 0 where the connection ends without one."""
        return int(self.socket.recv(4096).partition(b" ")[2][:3] or 0)


def refused(answer, status: int, sentence: str) -> None:
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert sentence in answer.json()["error"] and answer.json()["error"].endswith((".", "NAME"))


# ---- what a request says twice, or not at all


def test_a_field_that_stands_twice_is_refused(client):
    twice = b'{"prompt": "a", "prompt": "b", "responses": ["x", "y"]}'
    refused(client.post("/v1/rewards", content=twice), 422, "'prompt' stands twice")
    query = b'{"query": ["ab"], "prompts": ["a"]}'
    refused(client.post("/get_reward?user=user%2000&user=user%2001", content=query), 422, "user 2 times")


@pytest.mark.parametrize("user", ["%00", "%FF%FE", "%ED%A0%80", "x" * 3000, "%E2%80%AEuser", "' or 1=1 --", "9" * 30])
def test_hostile_names_are_unknown_names(client, camps, user):
    query = b'{"query": ["ab"], "prompts": ["a"]}'
    refused(client.post(f"/get_reward?user={user}", content=query), 404, "There is no user")
    refused(client.post(f"/get_reward?group={user}", content=query), 404, "There is no group")
    people = service_tokens.make_token(camps, f"people {user[:20]}", ServiceRole.PEOPLE)[1]
    headers = {"Authorization": f"Bearer {people}"}
    refused(client.get(f"/v1/users/{user}/embedding", headers=headers), 404, "There is no user")


def test_people_of_another_study_are_nobody_here(client, camps):
    there = Session(camps.store, camps.settings, camps.store.create_study("Elsewhere").id)
    zoe = access.join(there, "Zoe")
    for user in (zoe.id, "Zoe"):
        refused(client.post("/v1/rewards", json=BODY | {"user": user}), 404, "There is no user")


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "QUERY"])
def test_other_methods_and_addresses_are_refused_in_a_sentence(client, method):
    refused(client.request(method, "/v1/rewards"), 405, f"does not answer {method}")
    for address in ("/v1/rewards/", "/", "/v1/users//embedding", "/%2e%2e/etc/passwd"):
        refused(client.request(method, address, follow_redirects=False), 404, "nothing at this address")
    head = client.head("/v1/rewards")
    assert (head.status_code, head.content) == (405, b"")


# ---- slow and broken connections


def test_a_body_of_somebody_without_a_token_is_not_kept(client, monkeypatch):
    kept = []
    body_of = app._body

    async def noted(request, *, keep=True):
        kept.append(keep)
        return await body_of(request, keep=keep)

    monkeypatch.setattr(app, "_body", noted)
    large = b" " * (bodies.LARGEST_BODY - 1)
    refused(
        client.post("/v1/rewards", content=large, headers={"Authorization": "Bearer no"}), 401, "unknown or revoked"
    )
    refused(client.post("/v1/rewards", content=large), 400, "not JSON")
    assert kept == [False, True]


def test_a_slow_body_ends_and_keeps_nobody_waiting(server, secret, monkeypatch):
    monkeypatch.setattr(app, "BODY_SECONDS", 1.0)
    token, body = f"Authorization: Bearer {secret}", json.dumps(BODY).encode()
    slow = [
        Raw(server).send(token, "Content-Length: 1000", body=b"{") for _ in range(60)
    ]  # more than there are threads
    idle = [Raw(server) for _ in range(60)]
    assert Raw(server).send(token, f"Content-Length: {len(body)}", body=body).status() == 200
    assert {one.status() for one in slow} == {408}
    for one in idle + slow:
        one.socket.close()


def test_a_client_that_goes_away_is_no_fault_of_the_server(server, secret):
    for lines in ([f"Authorization: Bearer {secret}", "Content-Length: 1000"], ["Content-Length: 1000"]):
        Raw(server).send(*lines, body=b"{").socket.close()
    ends = time.monotonic() + 10
    while (counts := metrics_of(server)).count('status="') == 0 and time.monotonic() < ends:
        time.sleep(0.02)
    assert 'status="400"' in counts and 'status="500"' not in counts


def metrics_of(server) -> str:
    raw = Raw(server)
    raw.socket.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return b"".join(iter(lambda: raw.socket.recv(65536), b"")).decode()


@pytest.fixture
def held(server, monkeypatch):
    """(a list with an entry for each request that is being answered, an event that lets the answers end)."""
    waiting, go_on, read = [], Event(), bodies.reward_request

    def wait(*arguments):
        waiting.append(True)
        go_on.wait(60)
        return read(*arguments)

    monkeypatch.setattr(bodies, "reward_request", wait)
    yield waiting, go_on
    go_on.set()


def wait_for(waiting: list, n: int) -> None:
    ends = time.monotonic() + 30
    while len(waiting) < n:
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_answers_that_take_long_keep_neither_health_nor_refusals_waiting(server, secret, held):
    waiting, go_on = held
    token = f"Authorization: Bearer {secret}"
    slow = [Raw(server).send(token, "Content-Length: 2", body=b"{}") for _ in range(60)]
    wait_for(waiting, 40)  # as many as there are threads for answers
    assert "copl_requests_total" in metrics_of(server)
    assert Raw(server).send("Content-Length: 2", body=b"{}").status() == 401
    health = Raw(server)
    health.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert health.status() == 200
    go_on.set()
    assert {one.status() for one in slow} == {422}


@pytest.mark.parametrize("long", [False, True], ids=["a short answer", "an answer that takes too long"])
def test_a_server_that_is_stopped_answers_what_it_was_sent(server, secret, held, long):
    waiting, go_on = held
    server.config.timeout_graceful_shutdown = 1 if long else 30
    body = json.dumps(BODY).encode()
    stopped = Raw(server).send(f"Authorization: Bearer {secret}", f"Content-Length: {len(body)}", body=body)
    wait_for(waiting, 1)
    server.should_exit = True
    if not long:
        go_on.set()
    assert stopped.status() == (503 if long else 200)


# ---- an installation in trouble


def test_an_unexpected_fault_is_one_sentence_and_stands_in_the_log(client, monkeypatch, caplog):
    monkeypatch.setattr(app.Service, "rewards", lambda *_, **__: 1 / 0)
    refused(client.post("/v1/rewards", json=BODY), 500, "The server failed; its log says why")
    assert "ZeroDivisionError" in caplog.text
    assert 'status="500"' in client.get("/metrics").text


def test_a_champion_without_its_files_and_a_locked_database_are_named(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr("db.engine.BUSY_SECONDS", 0.1)
    session = trained_world(two_camps, tmp_path_factory, tmp_path / "home")
    _, secret = service_tokens.make_token(session, "trainer")
    client = TestClient(make_app(session.store, session.settings), headers={"Authorization": f"Bearer {secret}"})
    rmtree(session.snapshot_root / "v0001")
    refused(client.post("/v1/rewards", json=BODY), 503, "not on this disk")
    assert client.get("/healthz").status_code == 200
    session.store.engine.dispose()
    with sqlite3.connect(session.settings.home / "copl.db", isolation_level=None) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        locked = client.post("/v1/rewards", json=BODY)
        refused(locked, 503, "The database was busy")
        assert locked.headers["retry-after"] == "1" and client.get("/healthz").status_code == 503
        other.execute("ROLLBACK")
