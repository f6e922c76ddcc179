"""How much memory the trainer takes for a full run: of the demo, and of a study of very many texts.

    python -m benchmarks.trainer_memory [--texts N] [--words N] [--weights FOLDER]

The trainer is a process of its own, started as ``make run`` starts it, with one full run in its queue.  Its largest
memory is what the system says of the process when it has ended.  The second study is synthetic: four answers to each
question, and two labels per text of 200 people in two camps.  What texts become is kept on disk within COPL_CACHE_MB.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.import_speed import WORDS
from copl_core.__main__ import open_store, open_study, seed_demo
from copl_core.config import Settings
from copl_core.records import Run
from copl_core.study import runs

DESCRIPTION = "the largest memory of a trainer in a full run of the demo, and of 20,000 texts"
ROOT = Path(__file__).resolve().parents[1]
ANSWERS = 4  # to each question
PEOPLE = 200


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer_memory", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=Settings.from_environment().weights)
    parser.add_argument("--texts", type=int, default=20_000, help="of the synthetic study; 0 for the demo alone")
    parser.add_argument("--words", type=int, default=60, help="of each of its texts")
    arguments = parser.parse_args(argv)
    print(f"{'study':>10}{'texts':>9}{'labels':>9}{'seconds':>9}{'peak MB':>9}{'cache MB':>10}   the run", flush=True)
    for n_texts in (0, arguments.texts)[: 1 + (arguments.texts > 0)]:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "weights").symlink_to(arguments.weights.resolve(), target_is_directory=True)
            print(measured(Path(folder), n_texts, arguments.words), flush=True)
    return 0


def measured(home: Path, n_texts: int, n_words: int) -> str:
    """One line about a full run in the trainer's process."""
    os.environ["COPL_HOME"] = str(home)
    if n_texts:
        path = home / "labels.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in labels(n_texts, n_words)))
        arguments = ["import", str(path), "--study", "Many texts"]
        subprocess.run([sys.executable, "-m", "copl_core", *arguments], cwd=ROOT, check=True, capture_output=True)
    else:
        seed_demo(open_store(Settings(home=home)), Settings(home=home))
    session = open_study(Settings(home=home), "Many texts" if n_texts else None)
    run = runs.request_fit(session, "full")
    started = time.perf_counter()
    trainer = subprocess.Popen([sys.executable, "-m", "copl_core", "worker"], cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (now := session.store.run(run.id)).ended_at:
        time.sleep(1)
    seconds = time.perf_counter() - started
    trainer.send_signal(signal.SIGTERM)
    _, _, used = os.wait4(trainer.pid, 0)
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    kept = sum(path.stat().st_size for path in (home / "cache").rglob("*") if path.is_file()) / 2**20
    texts = n_texts or ANSWERS * len(session.store.prompts(session.id))
    return (
        f"{'synthetic' if n_texts else 'demo':>10}{texts:9,}{session.store.label_count(session.id):9,}{seconds:9.0f}"
        f"{peak:9.0f}{kept:10.0f}   {logged(session.settings.run_logs, now)}"
    )


def logged(folder: Path, run: Run) -> str:
    """What the run log says of memory and of a cut."""
    log = next(folder.glob(f"*{run.id}*")).read_text()
    lines = [line.split("  ")[-1] for line in log.splitlines() if "peak" in line or " cut " in line]
    return f"{run.state}; " + " ".join(lines)


def labels(n_texts: int, n_words: int) -> Iterator[dict]:
    """Two labels per text: a camp prefers the answer with more of its half of the words, four times in five."""
    rng = np.random.default_rng(0)
    words = np.array(WORDS)
    for question in range(n_texts // ANSWERS):
        drawn = rng.integers(0, len(words), (ANSWERS, n_words))
        texts = [" ".join(words[row]) + f" {question}.{number}." for number, row in enumerate(drawn)]
        share = (drawn < len(words) // 2).mean(1)
        for _ in range(2 * ANSWERS):
            a, b = rng.choice(ANSWERS, 2, replace=False)
            person = int(rng.integers(PEOPLE))
            first = (share[a] > share[b]) ^ (person % 2 == 1) ^ (rng.random() < 0.2)
            yield {
                "prompt": f"Question {question}: what do you see?",
                "response_a": texts[a],
                "response_b": texts[b],
                "annotator": f"person {person}",
                "choice": "a" if first else "b",
            }


if __name__ == "__main__":
    sys.exit(main())
