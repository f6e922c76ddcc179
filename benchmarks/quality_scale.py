"""How long the figures of the quality page take on many pairs, and how much memory.

    python -m benchmarks.quality_scale [--pairs N] [--people N]

Every pair is answered by two of the people, at random, in a SQLite study.  A separate process, which has read nothing
before, then computes what the page shows, once from the database and once more without a change in between.
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
from copl_core.records import Choice, ImportRow
from copl_core.study import contents, label_quality
from copl_core.study.session import Session

DESCRIPTION = "seconds and memory of the quality page's figures at 100,000 pairs"
ROOT = Path(__file__).resolve().parents[1]
ANSWERS = 2  # on each pair


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
    print(f"{'':8}{'seconds':>10}{'of a core':>12}{'peak MB':>10}")
    for what in ("first", "again"):
        started, used = time.perf_counter(), time.process_time()
        view = label_quality.quality(session)
        print(
            f"{what:8}{time.perf_counter() - started:10.2f}{time.process_time() - used:12.2f}{peak():10.0f}"
            f"   {view.n_answers:,} answers of {len(view.people):,} people on {view.agreement.n_pairs:,} pairs",
            flush=True,
        )


def peak() -> float:
    """The largest memory of this process so far, in MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**20 if sys.platform == "darwin" else size / 2**10


if __name__ == "__main__":
    sys.exit(main())
