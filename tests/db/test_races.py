from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from copl_core.records import Choice, ImportRow, RunState
from db.engine import reading
from db.store import open_store

ROOT = Path(__file__).resolve().parents[2]
SOON = timedelta(minutes=5)


@pytest.fixture
def thirty_pairs(store, study):
    store.import_rows(study.id, [ImportRow(n, "prompt", f"answer {n}", f"other {n}") for n in range(30)])
    return store.pairs(study.id)


def labeller(url: str, user_id: int, how: str) -> subprocess.Popen:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests/db/labeller.py"), url, str(user_id), how],
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


def in_threads(n: int, work) -> list:
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(work, range(n)))


def url_of(store) -> str:
    return store.engine.url.render_as_string(hide_password=False)


def test_one_user_in_many_windows_is_handed_one_task(store, study, thirty_pairs):
    ann = store.create_user(study.id, "Ann")
    tasks = in_threads(
        8,
        lambda n: store.hand_out(
            ann.id, thirty_pairs[n][0], swap=False, reason="uniform", expires_at=datetime.now(UTC) + SOON
        ),
    )
    assert len({task.id for task in tasks}) == 1


def test_of_many_clicks_on_one_task_one_is_acknowledged(store, study, thirty_pairs):
    ann = store.create_user(study.id, "Ann")
    for pair_id, _, _ in thirty_pairs[:5]:
        task = store.hand_out(ann.id, pair_id, swap=False, reason="uniform", expires_at=datetime.now(UTC) + SOON)
        labels = in_threads(6, lambda n, task=task: store.submit(task.id, ann.id, list(Choice)[n % 4]))
        assert sum(label is not None for label in labels) == 1
    assert store.label_count(study.id) == store.revision(study.id) == 5


def test_threads_that_label_take_back_and_import_at_once_lose_nothing(store, study, thirty_pairs):
    def work(n: int) -> int:
        if n == 4:
            rows = [
                ImportRow(m, "prompt", f"answer {m}", f"other {m}", Choice.LEFT, f"reader {m % 3}", key=str(m))
                for m in range(30)
            ]
            return store.import_rows(study.id, rows).labels_new
        user = store.create_user(study.id, f"user {n}")
        for pair_id, _, _ in thirty_pairs[:6]:
            task = store.hand_out(user.id, pair_id, swap=False, reason="uniform", expires_at=datetime.now(UTC) + SOON)
            assert store.submit(task.id, user.id, Choice.TIE) is not None
        again = store.undo(user.id)
        assert store.submit(again.id, user.id, Choice.LEFT) is not None
        return 6

    acknowledged = in_threads(5, work)
    assert store.label_count(study.id) == sum(acknowledged) == 54
    assert store.revision(study.id) == 54 + 4 * 2  # and four labels undone and given again
    assert len({user.name for user in store.users(study.id)}) == 4 + 3


def test_processes_that_label_for_one_user_store_each_acknowledged_label_once(store, study, thirty_pairs):
    ann = store.create_user(study.id, "Ann")
    processes = [labeller(url_of(store), ann.id, "once") for _ in range(3)]
    acknowledged = [line for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in processes] == [0, 0, 0]
    labels = store.labels(study.id)
    assert sorted(map(int, acknowledged)) == [label.id for label in labels]
    assert Counter(label.pair_id for label in labels) == Counter(pair_id for pair_id, _, _ in thirty_pairs)


def test_labels_acknowledged_before_a_process_was_killed_are_there_afterwards(url):
    store = open_store(url)
    study = store.create_study("Birds")
    store.import_rows(study.id, [ImportRow(1, "Name a bird", "Robin", "Wren")])
    users = [store.create_user(study.id, name) for name in ("Ann", "Ben")]
    store.engine.dispose()
    processes = [labeller(url, user.id, "repeats") for user in users]
    seen = [process.stdout.readline() for process in processes for _ in range(15)]
    for process in processes:
        process.kill()
    seen += [line for process in processes for line in process.communicate()[0].splitlines(keepends=True)]
    acknowledged = {int(line) for line in seen if line.endswith("\n")}
    store = open_store(url)
    kept = {label.id for label in store.labels(study.id)}
    assert len(acknowledged) >= 30 and acknowledged <= kept
    assert len(kept) <= len(acknowledged) + len(processes)  # at most one each was stored and not yet acknowledged
    assert store.revision(study.id) == len(kept)
    with reading(store.engine) as connection:
        assert connection.execute(text("pragma integrity_check")).scalar() == "ok"
    assert store.undo(users[0].id) is not None  # and the study goes on


def test_of_many_workers_that_claim_at_once_each_run_goes_to_one(store):
    queued = [store.add_run(store.create_study(f"Study {n}").id, "graph", "").id for n in range(8)]

    def claim_until_none_is_left(_: int) -> list[int]:
        claimed = []
        while (run := store.claim_run()) is not None:
            claimed.append(run.id)
        return claimed

    of_each = in_threads(3, claim_until_none_is_left)
    assert sorted(run_id for claimed in of_each for run_id in claimed) == queued
    assert all(claimed == sorted(claimed) for claimed in of_each)  # the oldest first
    assert all(run.state == RunState.RUNNING and run.started_at for run in store.active_runs())


def test_of_many_workers_that_claim_at_once_each_study_has_one_run_of_a_kind(store, study):
    for kind in ("graph", "full") * 4:
        store.add_run(study.id, kind, "")
    claimed = [run for run in in_threads(6, lambda _: store.claim_run()) if run is not None]
    assert sorted(run.kind for run in claimed) in (["full", "graph"], ["graph"], ["full"])
    claimed += [run for run in (store.claim_run(), store.claim_run()) if run is not None]
    assert sorted(run.kind for run in claimed) == ["full", "graph"]
    assert len({run.token for run in claimed}) == 2


def test_of_many_trainers_that_want_a_due_run_one_adds_it(store, study):
    added = in_threads(6, lambda _: store.add_due_run(study.id, "graph", "due"))
    assert len([run for run in added if run is not None]) == 1 == len(store.active_runs())


def test_of_many_trainers_that_find_a_run_left_behind_one_queues_it_again(store, study):
    run = store.claim_run(store.add_run(study.id, "graph", "").id, worker="gone", seconds=-1)
    given_up = in_threads(6, lambda _: store.give_up_run(run.id, run.token, RunState.INTERRUPTED, "left behind"))
    assert len([again for again in given_up if again]) == 1 == len(store.active_runs())


def test_versions_that_are_drawn_at_once_differ(store, study):
    drawn = in_threads(6, lambda _: store.next_version(study.id))
    assert sorted(drawn) == [f"v{n:04d}" for n in range(1, 7)]


def test_of_many_workers_that_claim_one_run_one_gets_it(store, study):
    run = store.add_run(study.id, "graph", "")
    claimed = in_threads(4, lambda _: store.claim_run(run.id))
    assert [one.id for one in claimed if one is not None] == [run.id]
