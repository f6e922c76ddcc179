"""How much of what predicts preferences a few features carry: those that are counted, and those that are found.

    python -m benchmarks.found_features                     # the demo
    python -m benchmarks.found_features --data FOLDER       # and llmfao

A logistic regression with weights of all users and of each user predicts decided labels from the differences of two
responses' features.  No person's response is in both halves of a split (``split_by_edge``).  The share is that of the
lead over a coin: (accuracy − ½) / (accuracy with all of φ − ½); all of φ is its leading principal directions and the
counted features.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.expert_loads import training_data
from copl_core.config import Settings
from copl_core.demo.world import demo_rows
from copl_core.formats.own import read_rows
from copl_core.insight.found_features import Split, find_in, gain, held_out_log_odds, on_one_scale, principal
from copl_core.install.weights import resolver
from copl_core.records import ImportRow, TrainingData
from copl_core.training.found_fit import nested_splits, parts_of
from copl_core.training.metrics import correct
from copl_core.training.text_embedder import TextEmbedder

DESCRIPTION = "features found in the texts: share of the predictable signal, and what they add to the counted ones"
SIZES = (4, 8, 16, 32)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.found_features", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with label files")
    parser.add_argument("--file", default="llmfao.jsonl.gz", help="label files in that folder, by commas")
    parser.add_argument("--splits", type=int, default=5, help="draws of held-out labels")
    arguments = parser.parse_args(argv)
    report("demo", demo_rows(), arguments.splits)
    for file in arguments.file.split(","):
        path = (arguments.data or Path()) / file
        if arguments.data is not None and path.is_file():
            report(file, [row for row in read_rows(path, []) if row.choice is not None], arguments.splits)
        else:
            print(f"\n{file} is skipped: --data names no folder with it.")
    return 0


def report(name: str, rows: Sequence[ImportRow], n_splits: int) -> None:
    data = training_data(rows)
    data = data.with_labels(data.labels.take(data.labels.decided))
    settings = Settings.from_environment()
    phi = TextEmbedder(resolver(settings.weights)("minilm"), cache=settings.cache / "phi").embed(list(data.texts()))
    splits = nested_splits(data, n_splits)
    test = data.labels.take(np.concatenate([np.flatnonzero(split.test) for split in splits]))
    print(
        f"\n{name}: {data.n_users} people, {len(data.labels):,} decided labels of {data.n_responses:,} responses; "
        f"{len(test):,} held out in {n_splits} splits"
    )
    print(f"{'':36}{'accuracy':>10}{'share':>8}{'seconds':>9}")
    parts = [designs(data, phi, split) for split in splits]
    odds, whole = {}, None
    for title in parts[0]:
        started = time.perf_counter()
        odds[title] = np.concatenate(
            [
                held_out_log_odds(made[title](), data.labels, data.n_users, split)
                for made, split in zip(parts, splits, strict=True)
            ]
        )
        accuracy = float(correct(odds[title], test.outcome).mean())
        whole = whole or accuracy
        share = (accuracy - 0.5) / max(whole - 0.5, 1e-9)
        seconds = (time.perf_counter() - started) / n_splits
        print(f"{title:36}{accuracy:10.3f}{share:8.2f}{seconds:9.1f}", flush=True)
    found = gain(odds["counted"], odds["counted and 16 found"], test)
    print(
        f"16 found features add {100 * (found.after - found.before):+.1f} points to the counted ones "
        f"(95 % interval over people {100 * found.low:+.1f} to {100 * found.high:+.1f})."
    )


def designs(data: TrainingData, phi: np.ndarray, split: Split) -> dict[str, Callable[[], np.ndarray]]:
    """Features (N, ·) of the labels, left − right; dictionaries and directions are those of the learned labels."""
    labels, (encoder, counted) = data.labels, parts_of(phi)
    style, apart = counted[labels.left] - counted[labels.right], encoder[labels.left] - encoder[labels.right]

    def leading() -> np.ndarray:
        return apart @ principal(apart[split.learned])

    def found(size: int) -> np.ndarray:
        return find_in(encoder, labels, split.learned, size).codes(apart)

    return {
        "all of φ": lambda: on_one_scale(leading(), style),
        "the encoder's coordinates": leading,
        "counted": lambda: style,
        **{f"{size} found": partial(found, size) for size in SIZES},
        "counted and 16 found": lambda: on_one_scale(style, found(16)),
    }


if __name__ == "__main__":
    sys.exit(main())
