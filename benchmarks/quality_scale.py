"""How long the figures of the quality page take on many pairs, and how much memory.

    python -m benchmarks.quality_scale [--pairs N] [--people N]

Every pair is answered by two of the people, at random, in a SQLite study with a snapshot of a small graph.  A separate
process, which has read nothing before, then computes what the page shows, once from the database and once more without
a change in between.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from copl_core.__main__ import open_store
from copl_core.config import Settings
from copl_core.features import measure_many
from copl_core.insight.layout import Layout
from copl_core.preference.config import GraphConfig
from copl_core.records import Choice, ImportRow
from copl_core.snapshots.fingerprint import data_fingerprint
from copl_core.snapshots.snapshot import record_of, write_snapshot
from copl_core.study import contents, label_quality, suspects
from copl_core.study.session import Session
from copl_core.study.views import QualityView

DESCRIPTION = "seconds and memory of the quality page's figures at 100,000 pairs"
ROOT = Path(__file__).resolve().parents[1]
ANSWERS = 2  # on each pair
PARTS = {
    "quality": label_quality.quality,
    "ceiling": label_quality.ceiling,
    "suspect labels": suspects.suspect_labels,
}  # what the page computes, in its order


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality_scale", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--measure", type=Path, help="measure the study in this home folder, instead of a new one")
    arguments = parser.parse_args(argv)
    if arguments.measure is not None:
        measure(arguments.measure)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), arguments.pairs, arguments.people)
        command = [sys.executable, "-m", "benchmarks.quality_scale", "--measure", folder]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


def prepare(home: Path, n_pairs: int, n_people: int) -> None:
    settings = Settings(home=home)
    store = open_store(settings)
    session = Session(store, settings, store.create_study("Large").id)
    contents.import_rows(session, labels(n_pairs, n_people, np.random.default_rng(0)))
    publish(session)


def publish(session: Session) -> None:
    """A snapshot whose graph reads the counted features alone."""
    from copl_core.training.graph_fit import fit_graph

    data = session.store.training_data(session.id)
    config = GraphConfig.build(members=2, max_steps=5)
    graph = fit_graph(data, measure_many(data.responses), config, seed=0)
    nowhere = Layout(graph.user_ids, np.zeros((data.n_users, 2), np.float32), np.zeros(data.n_users, int), np.nan, {})
    manifest = {"run": None, "kind": "graph", "watermark": data.watermark, "labels": len(data.labels), "reward": None}
    facts = {"study": session.id, "metrics": {}, "seconds": 0.0, "data": data_fingerprint(data)}
    written = write_snapshot(session.snapshot_root, "v0001", graph=graph, layout=nowhere, manifest=manifest | facts)
    session.store.publish(session.id, record_of(written), run_id=None)


def labels(n_pairs: int, n_people: int, rng: np.random.Generator) -> Iterator[ImportRow]:
    for pair in range(n_pairs):
        for person in rng.choice(n_people, ANSWERS, replace=False).tolist():
            choice = Choice.LEFT if rng.random() < 0.6 else Choice.RIGHT
            texts = f"Question {pair // 6}", f"One answer, number {pair}.", f"Another answer, number {pair}."
            yield ImportRow(0, *texts, choice, f"person {person}", key=f"{person}-{pair}")


def measure(home: Path) -> None:
    settings = Settings(home=home)
    store = open_store(settings)
    session = Session(store, settings, store.current_study().id)
    view = None
    print(f"{'':24}{'seconds':>10}{'of a core':>12}{'peak MB':>10}")
    for turn in ("first", "again"):
        whole = clock()
        for what, figures in PARTS.items():
            started = clock()
            shown = figures(session)
            view = shown if isinstance(shown, QualityView) else view
            report(f"{turn}: {what}", started)
        report(f"{turn}: the page", whole)
    print(f"{view.n_answers:,} answers of {len(view.people):,} people on {view.agreement.n_pairs:,} pairs")


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def report(what: str, started: tuple[float, float]) -> None:
    seconds, used = (now - then for now, then in zip(clock(), started, strict=True))
    print(f"{what:24}{seconds:10.2f}{used:12.2f}{peak():10.0f}", flush=True)


def peak() -> float:
    """The largest memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # ``getrusage`` would count the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**20 if sys.platform == "darwin" else size / 2**10


if __name__ == "__main__":
    sys.exit(main())
