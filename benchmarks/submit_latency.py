"""The time from an answer to the next pair, with 100,000 labels in the study.

    python -m benchmarks.submit_latency

It times ``labelling.submit`` as a page calls it: the label is committed, the user's vector is updated from their
labels, and the most informative available pair is selected and reserved.  After each answer it times a plain SQLite
commit of one row with the same safety (``synchronous=FULL``, write-ahead log) on the same disk, so that a slow or busy
machine shows in both numbers.  Processor time is that of this process only.  Small matrices are multiplied by one
thread, as in the app.  The snapshot has random numbers, in the sizes of a real fit.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from copl_core.study import access, contents, labelling

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np  # noqa: E402

from copl_core.__main__ import open_store
from copl_core.config import Settings
from copl_core.insight.layout import Layout
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Choice, Comparisons, ImportRow, SnapshotRecord
from copl_core.snapshots.snapshot import write_snapshot
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings

DESCRIPTION = "the time from an answer to the next pair, with 100,000 labels in the study"
DIM = 128


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.submit_latency", description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=3_000)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--answers", type=int, default=200, help="timed for each setting")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        session = prepare(Path(folder), arguments.labels, arguments.pairs, arguments.people)
        print(
            f"{session.store.label_count(session.id):,} labels of {arguments.people} users on {arguments.pairs:,} pairs"
        )
        print(f"{'':34}{'p50':>8}{'p95':>8}{'most':>8}   ms, {arguments.answers} answers each")
        overlap = 2 * arguments.labels // arguments.pairs
        for name, assignment, user in (
            ("newcomer, no overlap", AssignmentSettings(), "Ann"),
            ("newcomer, an overlap", AssignmentSettings(overlap=overlap), "Ben"),
            (f"{arguments.labels // arguments.people} labels before", AssignmentSettings(overlap=overlap), "person 0"),
        ):
            labelling.set_assignment(session, assignment)
            report(name, *measure(session, access.join(session, user).id, Path(folder), arguments.answers))
    return 0


def prepare(home: Path, n_labels: int, n_pairs: int, n_people: int) -> Session:
    """A study with that many labels and a champion of random numbers."""
    settings = Settings(home=home)
    store = open_store(settings)
    session = Session(store, settings, store.create_study("Latency").id)
    rng = np.random.default_rng(0)
    per_pair = rng.permuted(np.tile(np.arange(n_people), (n_pairs, 1)), axis=1)[:, : max(1, n_labels // n_pairs)]
    choices = list(Choice)
    contents.import_rows(
        session,
        (
            ImportRow(
                0,
                f"prompt {pair // 3}",
                f"first answer {pair}. " * 20,
                f"second answer {pair}. " * 20,
                choices[int(rng.integers(3))],
                f"person {person}",
                key=f"{pair}-{person}",
                position_known=True,
            )
            for pair, people in enumerate(per_pair.tolist())
            for person in people
        ),
    )
    data = store.training_data(session.id)
    publish(session, data.user_ids, data.response_ids, data.labels, rng)
    return session


def publish(
    session: Session, user_ids: np.ndarray, response_ids: np.ndarray, labels: Comparisons, rng: np.random.Generator
) -> None:
    state = GraphState(
        user_ids=user_ids,
        user_vectors=rng.normal(size=(len(user_ids), DIM)).astype(np.float32),
        user_position_bias=np.zeros(len(user_ids), np.float32),
        position_bias=0.0,
        response_ids=response_ids,
        response_vectors=rng.normal(size=(len(response_ids), DIM)).astype(np.float32) / 4,
        response_bias=np.zeros(len(response_ids), np.float32),
        temperature=1.0,
        labels=labels,
        n_labels=np.bincount(labels.user, minlength=len(user_ids)),
        config=GraphConfig().stored(),
    )
    layout = Layout(
        user_ids, np.zeros((len(user_ids), 2), np.float32), np.zeros(len(user_ids), np.int64), float("nan"), {}
    )
    write_snapshot(
        session.snapshot_root, "v0001", graph=state, layout=layout, manifest={"watermark": 0, "reward": None}
    )
    record = SnapshotRecord("v0001", None, 0, len(labels), {}, datetime.now(UTC))
    session.store.publish(session.id, record, run_id=None)


def measure(session: Session, user_id: int, folder: Path, answers: int) -> tuple[np.ndarray, ...]:
    """Milliseconds (answers,): submit to next task, its processor time, and plain commits in between."""
    plain = sqlite3.connect(folder / "plain.db", isolation_level=None)
    plain.executescript("pragma journal_mode=WAL; pragma synchronous=FULL; create table if not exists t (x text)")
    ours, busy, commits = [], [], []
    task = labelling.next_task(session, user_id)
    for _ in range(answers):
        started, worked = time.perf_counter(), time.process_time()
        task = labelling.submit(session, task.id, user_id, Choice.LEFT, milliseconds=2000).next_task
        ours.append(time.perf_counter() - started)
        busy.append(time.process_time() - worked)
        started = time.perf_counter()
        plain.execute("begin immediate")
        plain.execute("insert into t values (?)", ("x" * 200,))
        plain.execute("commit")
        commits.append(time.perf_counter() - started)
    plain.close()
    return np.array(ours) * 1000, np.array(busy) * 1000, np.array(commits) * 1000


def report(name: str, ours: np.ndarray, busy: np.ndarray, plain: np.ndarray) -> None:
    for what, times in ((name, ours), ("  of it processor time", busy), ("  a plain commit", plain)):
        p50, p95 = np.quantile(times, (0.5, 0.95))
        print(f"{what:34}{p50:8.1f}{p95:8.1f}{times.max():8.1f}")
    ratios = [np.quantile(ours, q) / np.quantile(plain, q) for q in (0.5, 0.95)]
    print(f"{'  times as long':34}{ratios[0]:8.1f}{ratios[1]:8.1f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
