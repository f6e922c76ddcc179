"""A database on a server is migrated by ``copl migrate`` alone, once, and whole or not at all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError

import pytest
from alembic import command
from sqlalchemy import Engine, inspect, text

from copl_core.__main__ import main
from copl_core.records import NotMigrated
from db.engine import HEAD, alembic_config, make_engine, version, writing
from db.schema import migrate_now, pending
from db.store import open_store

ROOT = Path(__file__).resolve().parents[2]
OLD, NEXT = "0012", "0013"  # the one after it changes the table ``user``
CLI = [sys.executable, "-m", "copl_core"]


@pytest.fixture
def older(postgres_copy, monkeypatch, tmp_path) -> Iterator[Engine]:
    """A database of an earlier version on a server, named by the environment."""
    monkeypatch.setenv("COPL_DATABASE_URL", postgres_copy)
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "home"))
    engine = make_engine(postgres_copy)
    with writing(engine) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, OLD)
    yield engine
    engine.dispose()


def wait_until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def tables(engine: Engine) -> dict[str, list[str]]:
    found = inspect(engine)
    return {name: [column["name"] for column in found.get_columns(name)] for name in found.get_table_names()}


def test_programs_leave_older_tables_of_a_server_alone_and_say_what_to_do(older, capsys):
    url = os.environ["COPL_DATABASE_URL"]
    for _ in range(2):
        with pytest.raises(NotMigrated, match=f"has version {OLD}.*needs version {HEAD}.*copl migrate"):
            open_store(url)
    assert main(["import", "no-such-file.jsonl"]) == main(["link"]) == 1
    assert version(older) == OLD
    capsys.readouterr()
    lines = [str(one) for one in pending(older)]
    assert lines[0].startswith(f"{NEXT} ") and lines[-1].startswith(f"{HEAD} ")
    assert main(["migrate", "--check"]) == 1 and capsys.readouterr().out.splitlines()[1:] == lines
    assert version(older) == OLD
    assert main(["migrate"]) == 0 and capsys.readouterr().out.splitlines()[:-1] == lines
    assert main(["migrate", "--check"]) == main(["migrate"]) == 0
    assert open_store(url).studies() == []


def test_the_first_process_makes_the_tables_of_an_empty_database(postgres_copy):
    assert open_store(postgres_copy).schema_problem() == ""


def test_a_kill_in_the_middle_leaves_the_old_tables_and_of_two_migrations_one_waits(older):
    before = tables(older)
    in_use, engines = text('lock table "user" in access share mode'), [make_engine(older.url) for _ in range(2)]
    with older.connect() as user:  # somebody reads the table that a later migration changes
        user.execute(in_use)
        with subprocess.Popen([*CLI, "migrate"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed:
            assert any(line.startswith(NEXT) for line in killed.stdout)
            killed.kill()
    with older.connect() as user:
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        wait_until(lambda: user.execute(text(others)).scalar() == 0 or user.rollback())  # a transaction sees one moment
        assert version(older) == OLD and tables(older) == before

        user.execute(in_use)
        lines: list[list[str]] = [[], []]
        with ThreadPoolExecutor(2) as pool:
            try:
                first = pool.submit(migrate_now, engines[0], lines[0].append)
                wait_until(lambda: any(line.startswith(NEXT) for line in lines[0]))
                second = pool.submit(migrate_now, engines[1], lines[1].append)
                wait_until(lambda: bool(lines[1]))
                assert version(older) == OLD and not second.done()
            finally:
                user.rollback()
            first.result(), second.result()
    assert len(lines[0]) == int(HEAD) - int(OLD) and "waits" in lines[1][0] and len(lines[1]) == 1
    assert version(older) == HEAD and pending(older) == []
    for engine in engines:
        engine.dispose()


def test_a_trainer_waits_for_the_migration_and_ends_once_a_newer_program_has_migrated(older):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    def ready() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return answer.read().decode()
        except HTTPError as refused:
            return refused.read().decode()
        except OSError:
            return ""

    trainer = subprocess.Popen(
        [*CLI, "worker", "--health-port", str(port)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: "copl migrate" in ready())
        assert version(older) == OLD and trainer.poll() is None
        assert main(["migrate"]) == 0
        wait_until(lambda: "ready" in ready() and "not ready" not in ready())
        wait_until(lambda: len(open_store(os.environ["COPL_DATABASE_URL"]).trainers()) == 1)
        with writing(older) as connection:
            connection.execute(text("update alembic_version set version_num = '9999'"))
        assert "start the newer program" in trainer.communicate(timeout=60)[1] and trainer.returncode == 1
    finally:
        trainer.kill()
        trainer.communicate()
