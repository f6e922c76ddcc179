"""`copl doctor`: one line for each check, whatever the installation looks like, and nothing of it changes."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from copl_core.__main__ import main, open_store, prepare
from copl_core.backups import path_of
from copl_core.config import Settings
from copl_core.install.weights import BUNDLES
from copl_core.records import RUN_KINDS, CoplError, Right
from copl_core.snapshots.snapshot import digest_of
from copl_core.study.doctor import CHECKS, Finding, State
from copl_core.trainer.service import clean
from copl_core.trainer.worker import Trainer
from db.engine import explained, make_engine, migrate
from db.store import SqlStore
from tests.databases import empty_database, postgres_or_skip, private_server

ALL = list(CHECKS)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("doctor") / "home"
    prepare(Settings(home=home))
    execute(home, "pragma wal_checkpoint(truncate)")  # everything is in the one file that tests break
    return home


@pytest.fixture
def home(demo, tmp_path, monkeypatch) -> Path:
    """A whole installation, of which a test may break a part."""
    for name in list(os.environ):
        if name.startswith("COPL_"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    shutil.copytree(demo, home)
    home.chmod(0o700)
    monkeypatch.setenv("COPL_HOME", str(home))
    return home


@pytest.fixture
def examine(capsys):
    """The findings by check, and the exit status; both forms of the output are whole and agree."""

    def run() -> tuple[dict[str, dict], int]:
        status = main(["doctor"])
        lines = capsys.readouterr()
        assert main(["doctor", "--json"]) == status
        report = json.loads(capsys.readouterr().out)
        assert [one["check"] for one in report["checks"]] == ALL
        assert [line[8:19].strip() for line in lines.out.splitlines()] == ALL and not lines.err
        states = [one["state"] for one in report["checks"]]
        assert report["state"] == next(state for state in ("wrong", "warning", "ok") if state in states)
        assert status == int("wrong" in states)
        return {one["check"]: one for one in report["checks"]}, status

    return run


def execute(home: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(home / "copl.db")
    with connection:
        connection.execute(statement, values)
    connection.close()


def tree(home: Path) -> dict[str, bytes]:
    """Everything in a home but the files that SQLite keeps beside an open database."""
    aside = {"copl.db-shm", "copl.db-wal"}
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name not in aside}


def test_a_whole_installation_is_all_right_and_is_not_changed(home, examine):
    store = open_store(Settings(home=home))
    store.heartbeat("a-1", "a", ("graph", "full"), "waiting for labels")
    store.close()
    before = tree(home)
    found, status = examine()
    assert status == 0
    assert {name for name, one in found.items() if one["state"] != "ok"} <= {"weights", "disk", "backups"}
    assert tree(home) == before


def test_rows_of_an_import_that_broke_off_are_named_until_the_trainer_has_removed_them(home, examine):
    store = open_store(Settings(home=home))
    first = "(select 1 + max(id) from pair)"
    execute(home, f"insert into unfinished (study_id, part, first_id, last_id) values (1, 'pair', {first}, {first})")
    with store.hold(Right.IMPORT, alone=True):
        assert "broke off" not in examine()[0]["database"]["found"]
    found = examine()[0]["database"]
    assert found["state"] == "warning" and "An import that broke off has left rows" in found["found"]
    trainer = Trainer(store, Settings(home=home))
    cleaning = Thread(target=clean, args=(trainer,))
    cleaning.start()
    while examine()[0]["database"]["state"] != "ok":
        pass
    trainer.stop.set()
    cleaning.join()
    store.close()


def test_an_installation_that_does_not_exist_is_not_made(home, examine, monkeypatch, tmp_path):
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "new"))
    found, status = examine()
    assert status == 0 and "no database yet" in found["database"]["found"]
    assert not (tmp_path / "new").exists()


def test_older_tables_are_a_warning_and_stay_as_they_are_and_newer_ones_are_wrong(home, examine):
    execute(home, "update alembic_version set version_num = '0004'")
    found, status = examine()
    assert status == 0 and found["migrations"]["state"] == "warning" and "0004" in found["migrations"]["found"]
    assert examine()[0] == found, "the first look migrated it"
    execute(home, "update alembic_version set version_num = '9999'")
    found, status = examine()
    assert status == 1 and "Start the newer program" in found["migrations"]["do"]


def test_a_trainer_that_is_not_started_again_is_wrong_and_says_what_to_do(home, examine):
    (home / "logs").mkdir(exist_ok=True)
    (home / "logs" / "trainer-given-up.txt").write_text("The trainer stopped 6 times. Read worker.log, then start it.")
    execute(home, "insert into trainer (worker, host, kinds, state, seen_at) "
                  "values ('a', 'b', 'graph', 'stopped', '2026-01-01 00:00:00.000000')")  # fmt: skip
    found, status = examine()
    assert status == 1 and found["trainers"]["state"] == "wrong"
    assert found["trainers"]["found"] == "The trainer stopped 6 times."
    assert found["trainers"]["do"] == "Read worker.log, then start it."


def test_a_flipped_bit_of_a_champion_is_found(home, examine):
    path = next(home.glob("snapshots/1/v0001/graph/*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.unlink()
    path.write_bytes(content)
    found, status = examine()
    assert status == 1 and found["snapshots"]["state"] == "wrong"
    assert f"graph/{path.name}" in found["snapshots"]["found"] and found["snapshots"]["do"]


def test_a_champion_of_numbers_that_are_not_finite_is_found_although_its_digests_are_right(home, examine):
    folder = home / "snapshots" / "1" / "v0001"
    path = folder / "graph" / "graph.safetensors"
    tables = load_file(path)
    tables["user_vectors"][0] = np.nan
    path.unlink()
    save_file(tables, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["graph/graph.safetensors"]["sha256"] = digest_of(path)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    execute(home, "update snapshot set manifest = ?", digest_of(folder / "manifest.json"))
    found, status = examine()
    assert status == 1 and found["snapshots"]["state"] == "wrong"
    assert "its graph has numbers that are not finite (in user_vectors)" in found["snapshots"]["found"]


def test_a_champion_without_its_folder_is_found(home, examine):
    shutil.rmtree(home / "snapshots")
    found, status = examine()
    assert status == 1 and "v0001" in found["snapshots"]["found"]


@pytest.mark.parametrize("part", ["head", "pages", "all", "cut"])
def test_a_damaged_database_is_wrong_and_never_a_traceback(home, examine, part):
    path = home / "copl.db"
    content = bytearray(path.read_bytes())
    if part == "cut":
        content = content[: len(content) // 2]
    else:
        first, last = {"head": (0, 100), "pages": (8192, 200_000), "all": (0, len(content))}[part]
        content[first:last] = os.urandom(last - first)
    path.write_bytes(content)
    found, status = examine()
    assert status == 1 and found["database"]["state"] == "wrong" and found["database"]["found"]


def test_a_file_that_is_no_database_and_a_folder_in_its_place(home, examine):
    (home / "copl.db").write_text("these are no tables" * 500)
    assert examine()[1] == 1
    (home / "copl.db").unlink()
    (home / "copl.db").mkdir()
    found, status = examine()
    assert status == 1 and found["database"]["state"] == "wrong"


def test_a_locked_database_is_waited_for_a_little(home, examine, monkeypatch):
    monkeypatch.setattr("db.health.PATIENCE", 0.1)
    holder = sqlite3.connect(home / "copl.db", isolation_level=None)
    holder.execute("pragma locking_mode=exclusive")
    holder.execute("begin exclusive")
    holder.execute("update study set name = 'held'")
    found, status = examine()
    holder.close()
    assert status == 1 and "locked" in found["database"]["found"]


def test_a_label_of_the_future_and_a_damaged_time_are_found(home, examine):
    newest = "update label set created_at = ? where id = (select max(id) from label)"
    future = datetime.now(UTC) + timedelta(days=400)
    execute(home, newest, f"{future:%Y-%m-%d %H:%M:%S.%f}")
    found, status = examine()
    assert status == 0 and found["clock"]["state"] == "warning" and f"{future:%Y-%m-%d}" in found["clock"]["found"]
    execute(home, newest, "yesterday")
    assert examine()[1] == 1


def test_a_trainer_that_is_silent_or_stopped_is_a_warning(home, examine):
    store = open_store(Settings(home=home))
    assert examine()[0]["trainers"]["state"] == "warning"
    store.heartbeat("a-1", "a", ("graph",), "stopped")
    assert "stopped" in examine()[0]["trainers"]["found"]
    store.heartbeat("b-2", "b", ("graph",), "run 4", "cuda:1")
    found = examine()[0]["trainers"]
    assert found["found"] == "b-2 (graph; cuda:1): run 4. None of them executes full runs."
    assert (found["state"], found["do"]) == ("warning", "Start one with `copl worker --kinds full`.")
    store.heartbeat("c-3", "c", ("full",), "run 5")
    assert examine()[0]["trainers"]["state"] == "ok"
    execute(home, "delete from trainer where worker in ('a-1', 'c-3')")
    execute(home, "update trainer set seen_at = '2020-01-01 00:00:00.000000'")
    assert "last heartbeat" in examine()[0]["trainers"]["found"]


def test_the_newest_backup_is_named_with_its_age_and_none_for_two_days_is_a_warning(home, examine, monkeypatch):
    assert "no backup" in examine()[0]["backups"]["found"]
    copy = path_of(home / "copl.db", datetime.now(UTC) - timedelta(hours=30))
    copy.parent.mkdir()
    copy.touch()
    one = examine()[0]["backups"]
    assert one["state"] == "ok" and f"1 backup; the newest is {copy}, made 30.0 hours ago." in one["found"]
    copy.rename(path_of(home / "copl.db", datetime.now(UTC) - timedelta(days=5)))
    assert examine()[0]["backups"]["state"] == "warning"
    future = path_of(home / "copl.db", datetime.now(UTC) + timedelta(days=365))
    future.touch()
    one = examine()[0]["backups"]
    assert one["state"] == "warning" and f"made 5 days ago. {future} is dated in the future" in one["found"]
    future.unlink()
    monkeypatch.setenv("COPL_BACKUP_HOURS", "0")
    one = examine()[0]["backups"]
    assert one["state"] == "ok" and "made 5 days ago. The trainer makes none" in one["found"]


def test_rights_for_other_users_are_a_warning(home, examine):
    home.chmod(0o755)
    found, status = examine()
    assert status == 0 and f"chmod 700 {home}" in found["rights"]["do"]


def test_weights_that_cannot_be_read_are_wrong(home, examine):
    folder = home / "weights" / BUNDLES["minilm"].folder
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    found, status = examine()
    assert status == 1 and found["weights"]["state"] == "wrong"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_full_and_a_read_only_home_are_found(demo, home, examine, fault):
    size = sum(path.stat().st_size for path in demo.rglob("*")) * 2
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", home], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        shutil.copytree(demo, home, dirs_exist_ok=True)
        if fault == "full":
            with pytest.raises(OSError), (home / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(1 << 16))
                    filler.flush()
        else:
            subprocess.run(["mount", "-o", "remount,ro", home], check=True)
        found, status = examine()
        assert status == 1 and found["disk"]["state"] == "wrong" and "COPL_HOME" in found["disk"]["do"]
    finally:
        subprocess.run(["umount", home], check=True)


def test_a_home_that_is_a_file_and_an_address_that_is_none(home, examine, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "file"))
    found, status = examine()
    assert status == 1 and "not a folder" in found["disk"]["found"]
    monkeypatch.setenv("COPL_HOME", str(home))
    monkeypatch.setenv("COPL_DATABASE_URL", "no address")
    assert "not understood" in examine()[0]["database"]["found"]


def test_postgresql_that_is_up_and_one_that_is_down(home, examine, monkeypatch):
    with postgres_or_skip():
        with private_server() as url:
            engine = make_engine(url)
            migrate(engine)
            SqlStore(engine).heartbeat("a-1", "a", RUN_KINDS, "waiting for labels")
            engine.dispose()
            monkeypatch.setenv("COPL_DATABASE_URL", url)
            found, status = examine()
            assert status == 0 and "PostgreSQL" in found["database"]["found"]
            looked_at = ("database", "migrations", "snapshots", "trainers", "clock")
            assert {found[name]["state"] for name in looked_at} == {"ok"}
            with make_engine(url).begin() as connection:
                connection.execute(text("update alembic_version set version_num = '0004'"))
            found, status = examine()
            assert status == 1 and "copl migrate" in found["migrations"]["do"]
        found, status = examine()
        assert status == 1 and "does not answer" in found["database"]["found"]


def test_an_empty_database_has_no_champion_and_that_is_all_right(home, examine):
    shutil.rmtree(home)
    empty_database(home)
    home.chmod(0o700)
    found, status = examine()
    assert status == 0 and found["snapshots"]["found"].startswith("0 champions")


def test_a_pipe_in_the_place_of_a_file_is_found_and_nobody_waits_for_it(home, examine):
    folder = home / "weights" / BUNDLES["smollm2"].folder
    folder.mkdir(parents=True)
    os.mkfifo(folder / "model.gguf")
    (home / "logs").mkdir(exist_ok=True)
    os.mkfifo(Settings(home=home).trainer_given_up)
    manifest = next(home.glob("snapshots/1/v0001/manifest.json"))
    manifest.unlink()
    os.mkfifo(manifest)
    found, _ = examine()
    assert found["weights"]["state"] == found["snapshots"]["state"] == "wrong"
    assert ".." not in found["snapshots"]["found"]
    (home / "copl.db").unlink()
    os.mkfifo(home / "copl.db")
    assert "is no file" in examine()[0]["database"]["found"]


def test_a_storage_is_tried_with_a_file_that_goes_again(home, examine, monkeypatch, tmp_path):
    storage = tmp_path / "storage"
    monkeypatch.setenv("COPL_STORAGE", str(storage))
    found, _ = examine()
    assert "There is no folder" in found["storage"]["found"] and not storage.exists()
    storage.mkdir()
    found, _ = examine()
    assert found["storage"]["state"] == "wrong" and "Mount it" in found["storage"]["do"]
    assert list(storage.iterdir()) == []
    monkeypatch.setattr("copl_core.storage.Storage.read", lambda *_: {})
    assert "does not give back what was written" in examine()[0]["storage"]["found"] and list(storage.iterdir()) == []


def test_a_line_of_a_finding_is_one_line():
    assert Finding("database", State.WRONG, "row 1\nrow 2", "Do.").line() == "wrong   database   row 1 row 2 Do."


def test_an_input_output_error_on_a_full_disk_says_full(home, monkeypatch):
    engine = make_engine(f"sqlite:///{home / 'copl.db'}")
    for free, words in ((10**9, "reports an error"), (0, "is full")):
        monkeypatch.setattr("db.engine.shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with pytest.raises(CoplError, match=words), explained(engine):
            raise OperationalError("select 1", None, sqlite3.OperationalError("disk I/O error"))
    engine.dispose()
