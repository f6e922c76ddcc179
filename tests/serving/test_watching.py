"""What a balancer and a monitor see of a process, and what a passer-by does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.testclient import TestClient

from copl_core.__main__ import main, open_store, prepare
from copl_core.config import Settings
from copl_core.records import CoplError, RunState, StoreUnavailable
from copl_core.serving import watching
from copl_core.serving.watching import Watched, routes
from copl_core.study import access, contents, service_tokens
from copl_core.study.session import Session
from tests.worlds import camp_labels

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = re.compile(r'copl_\w+(\{\w+="[\w.-]+"(,\w+="[\w.-]+")*\})? [\d.e+-]+')


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("watching") / "home"
    prepare(Settings(home=home))
    return home


@pytest.fixture
def session(demo, tmp_path) -> Session:
    shutil.copytree(demo, tmp_path / "home")
    settings = Settings(home=tmp_path / "home")
    store = open_store(settings)
    return Session(store, settings, store.current_study().id)


@pytest.fixture
def asker(session):
    """A new process that is watched, and who asks it."""

    def make(host: str = "127.0.0.1", **headers: str) -> TestClient:
        watched = Watched(lambda: session.store, partial(Session, session.store, session.settings))
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return TestClient(Starlette(routes=routes(watched)), client=(host, 4000), headers=headers)

    return make


def counts(client: TestClient) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert samples and all(SAMPLE.fullmatch(line) for line in samples)
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in samples)}


def test_counts_are_those_of_the_database_and_name_nobody(session, asker):
    contents.import_rows(session, camp_labels())
    done, queued = (session.store.add_run(session.id, kind, "a test") for kind in ("graph", "full"))
    session.store.claim_run(done.id)
    session.store.finish_run(done.id, RunState.DONE)
    session.store.heartbeat("a", "here", ("graph",), "waiting for labels")
    client, study = asker(), f'study="{session.id}"'
    found = counts(client)
    assert found["copl_ready"] == 1 and found[f"copl_champion_opens{{{study}}}"] == 1
    assert found[f"copl_labels{{{study}}}"] == session.store.label_count(session.id)
    assert found[f"copl_labels_recent{{{study}}}"] >= len(camp_labels())
    assert found['copl_runs_queued{kind="full"}'] == 1 and found['copl_runs_queued{kind="graph"}'] == 0
    assert found[f'copl_run_seconds{{{study},kind="graph"}}'] >= 0
    assert found[f'copl_champion_info{{{study},snapshot="v0001"}}'] == 1
    assert 0 <= found["copl_trainer_heartbeat_age_seconds"] < 60
    written = client.get("/metrics").text
    assert not [user.name for user in access.users(session) if user.name in written]


def test_labels_of_an_hour_ago_are_not_recent(session, asker):
    with session.store.engine.begin() as connection:
        connection.execute(text("update label set created_at = '2020-01-01 00:00:00.000000'"))
    assert counts(asker())[f'copl_labels_recent{{study="{session.id}"}}'] == 0


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("10.1.2.3", {}),
        ("not an address", {}),
        ("127.0.0.1", {"X_Forwarded_For": "10.1.2.3"}),
        ("127.0.0.1", {"Forwarded": "for=10.1.2.3"}),
        ("10.1.2.3", {"Authorization": "Bearer nonsense"}),
    ],
)
def test_a_passer_by_learns_that_the_process_answers_and_nothing_else(session, asker, host, headers):
    client = asker(host, **headers)
    assert client.get("/healthz").json() == {"status": "ok"} and client.get("/readyz").json() == {"status": "ready"}
    refused = client.get("/metrics")
    assert refused.status_code == 403 and "copl_" not in refused.text
    shutil.rmtree(session.settings.snapshots)
    hidden = asker(host, **headers).get("/readyz")
    assert hidden.status_code == 503 and hidden.json() == {"status": "not ready"}


def test_a_token_of_a_study_opens_the_counts_until_it_is_revoked(session, asker):
    _, secret = service_tokens.make_token(session, "monitor")
    client = asker("10.1.2.3", Authorization=f"Bearer {secret}")
    assert counts(client)["copl_ready"] == 1
    service_tokens.revoke_token(session, "monitor")
    assert client.get("/metrics").status_code == 403


def test_a_process_without_the_champion_is_not_ready_and_says_why_to_its_own_machine(session, asker):
    shutil.rmtree(session.settings.snapshots)
    client = asker()
    answer = client.get("/readyz")
    assert answer.status_code == 503 and "v0001" in answer.json()["error"] and client.get("/healthz").is_success
    assert counts(client)["copl_ready"] == 0


def test_a_process_that_has_been_ready_stays_open_while_what_all_processes_share_is_away(session, asker, monkeypatch):
    """A balancer that closed all of them would cut every open page off, with answers that are not stored yet."""
    monkeypatch.setattr(watching, "_READY_SECONDS", -1.0)
    monkeypatch.setattr(watching, "_COUNTED_SECONDS", -1.0)

    def away(*_: object) -> list:
        raise StoreUnavailable("The database server does not answer, so nothing was saved; try again.")

    def refused(*_: object) -> list:
        raise CoplError("The database refuses to say which studies there are.")

    client, late = asker(), asker()
    assert client.get("/readyz").is_success
    monkeypatch.setattr(type(session.store), "studies", refused)
    assert client.get("/readyz").is_success and asker().get("/readyz").status_code == 503
    for name in ("studies", "schema_problem"):
        monkeypatch.setattr(type(session.store), name, away)
    assert client.get("/readyz").is_success and counts(client)["copl_ready"] == 0
    assert late.get("/readyz").status_code == 503  # has never been
    monkeypatch.setattr(
        type(session.store), "schema_problem", lambda store: "The database has tables of a newer version."
    )
    assert client.get("/readyz").status_code == 503


def test_one_damaged_study_does_not_close_the_others(session, asker):
    there = session.store.create_study("Elsewhere")
    shutil.copytree(session.snapshot_root, session.settings.snapshots / str(there.id))
    record = session.store.snapshots(session.id)[0]
    session.store.publish(there.id, record, run_id=None)
    shutil.rmtree(session.settings.snapshots / str(there.id))
    found = counts(asker())
    assert found["copl_ready"] == 1 and found[f'copl_champion_opens{{study="{there.id}"}}'] == 0


def test_other_tables_and_a_lost_database_are_not_ready(session, asker):
    with session.store.engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    answer = asker().get("/readyz")
    assert answer.status_code == 503 and "9999" in answer.json()["error"]
    session.store.close()
    (session.settings.home / "copl.db").write_text("these are no tables" * 500)
    client = asker()
    answer = client.get("/readyz")
    assert answer.status_code == 503 and counts(client) == {"copl_ready": 0}
    assert "The file of the database is none" in answer.text and str(session.settings.home) not in answer.text


# ---- a real trainer, which logs JSON


def test_a_trainer_answers_on_its_port_and_ends_as_before(session):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    run = session.store.add_run(session.id, "graph", "a test")  # it fails: the weights are not in this home
    environment = os.environ | {"COPL_HOME": str(session.settings.home), "COPL_LOG": "json"}
    command = [sys.executable, "-m", "copl_core", "worker", "--health-port", str(port)]
    trainer = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        ends, metrics = time.monotonic() + 60, ""
        while session.store.run(run.id).state != RunState.FAILED or "heartbeat_age_seconds " not in metrics:
            assert trainer.poll() is None and time.monotonic() < ends
            time.sleep(0.1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    metrics = answer.read().decode()
            except OSError:
                continue
        assert "copl_ready 1" in metrics and "copl_trainer_heartbeat_age_seconds " in metrics
        trainer.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in trainer.communicate(timeout=30)[1].splitlines()]
        assert trainer.returncode == 0
        failed = next(line for line in lines if "weights" in line["message"])
        assert (failed["run"], failed["study"], failed["level"]) == (run.id, session.id, "WARNING")
        assert datetime.now(UTC) - datetime.fromisoformat(failed["time"]) < timedelta(minutes=5)
    finally:
        trainer.kill()
        trainer.communicate()


def test_a_health_port_in_use_is_a_sentence(session, monkeypatch, capsys):
    monkeypatch.setenv("COPL_HOME", str(session.settings.home))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["worker", "--health-port", str(taken.getsockname()[1])]) == 1
    sentence = capsys.readouterr().err
    assert "cannot be used" in sentence and "--health-port" in sentence
