"""Injected label noise: how many flipped labels are found, and how many of the labels found were flipped.

    python -m benchmarks.suspects [--data FOLDER] [--seed N] [--folds N]

5 % and then 10 % of the decided labels of a study are turned round at random: of the demo, and of ``llmfao.jsonl.gz``
and ``polis_more.jsonl.gz`` in the folder of ``--data``.  The graph is fitted to the flipped labels, and each label gets
a strength with itself left out (``insight.suspects``).  People's own mistakes are not known and count as errors here,
so true precision is higher.

The first table takes as many labels as were flipped, the weakest first: precision and recall are then equal.  It
compares the strength on the pages with margins of the fitted vectors, which have learned the label, and with margins of
fits that never saw it (``--folds``).  The second table is the choice of the threshold: "vote" means that all members
vote against the label too, "known" that the model predicts the other labels of this person better than chance
(``well_known``).  The pages show what passes all three.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from copl_core.config import Settings
from copl_core.demo.world import demo_rows
from copl_core.evaluation.dataset import build_dataset
from copl_core.formats.own import read_rows
from copl_core.insight.suspects import (
    THRESHOLD,
    Strengths,
    label_strengths,
    learned_prior,
    predicted,
    suspects,
    well_known,
)
from copl_core.install.weights import resolver
from copl_core.preference.config import GraphConfig
from copl_core.records import Comparisons, ImportRow, TrainingData
from copl_core.training.graph_fit import fit_graph
from copl_core.training.split import draws
from copl_core.training.text_embedder import TextEmbedder

DESCRIPTION = "precision and recall of suspect labels where 5 and 10 % of the labels are flipped"
FILES = ("llmfao", "polis_more")
SHARES = (0.05, 0.10)
THRESHOLDS = (0.0, -0.5, -1.0, -1.5, -2.0, -2.5)
SALT = 14  # of the draw of folds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suspects", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with files of labels")
    parser.add_argument("--seed", type=int, default=0, help="of the flips and of the fits")
    parser.add_argument("--folds", type=int, default=5, help="fits without a part of the labels; 0: none")
    arguments = parser.parse_args(argv)
    measure("demo", demo_rows(), arguments.seed, arguments.folds)
    for name in FILES:
        path = (arguments.data or Path()) / f"{name}.jsonl.gz"
        if arguments.data is not None and path.is_file():
            measure(name, read_rows(path, []), arguments.seed, arguments.folds)
        else:
            print(f"\n{name}: skipped, since --data names no folder with {path.name}.")
    return 0


def measure(name: str, rows: Iterable[ImportRow], seed: int, folds: int) -> None:
    data, phi = world(rows)
    for share in SHARES:
        flipped, flip = with_flips(data, share, seed)
        state = fit_graph(flipped, phi, GraphConfig(), seed=seed)
        started = time.monotonic()
        strengths = label_strengths(state, learned_prior(state), flipped.labels)
        seconds = time.monotonic() - started
        decided = int(flipped.labels.decided.sum())
        print(
            f"\n{name}: {flip.sum():,} of {decided:,} decided labels of {data.n_users:,} people flipped "
            f"({flip.sum() / decided:.1%}, the base rate); all strengths in {seconds:.1f} s"
        )
        head_of_each(state.margins(flipped.labels), strengths, flipped, flip, phi, seed, folds)
        thresholds(strengths, flipped.labels, flip)


def world(rows: Iterable[ImportRow]) -> tuple[TrainingData, np.ndarray]:
    """All labels of some rows as training data, and φ of its texts."""
    labels = [row for row in rows if row.choice is not None]
    data = build_dataset(labels, labels).train
    settings = Settings.from_environment()
    embedder = TextEmbedder(resolver(settings.weights)("minilm"), cache=settings.cache / "phi")
    return data, embedder.embed(list(data.texts()))


def with_flips(data: TrainingData, share: float, seed: int) -> tuple[TrainingData, np.ndarray]:
    """The labels with a share of the decided ones turned round, and the mask (N,) of these."""
    decided = np.flatnonzero(data.labels.decided)
    flip = np.zeros(len(data.labels), bool)
    flip[np.random.default_rng(seed).choice(decided, round(share * len(decided)), replace=False)] = True
    outcome = np.where(flip, 1 - data.labels.outcome, data.labels.outcome).astype(np.float32)
    return data.with_labels(replace(data.labels, outcome=outcome)), flip


def head_of_each(
    trained: np.ndarray,
    strengths: Strengths,
    data: TrainingData,
    flip: np.ndarray,
    phi: np.ndarray,
    seed: int,
    folds: int,
) -> None:
    labels = data.labels
    sign = np.where(labels.outcome > 0.5, 1.0, -1.0)
    ways = {
        "the label left out (the pages)": strengths.mean,
        "fitted vectors, which know it": trained * sign,
    }
    if folds:
        ways[f"fits without it, {folds} folds"] = refitted(data, phi, seed, folds) * sign
    print(f"{'as many as were flipped':34}{'precision':>11}{'AUC':>8}")
    for name, score in ways.items():
        score = np.where(labels.decided, score, np.inf)
        weakest = np.argsort(score, kind="stable")[: flip.sum()]
        print(f"{name:34}{flip[weakest].mean():11.2f}{auc(score[labels.decided], flip[labels.decided]):8.3f}")


def refitted(data: TrainingData, phi: np.ndarray, seed: int, folds: int) -> np.ndarray:
    """Margins (N,) of labels by graphs that saw no label of the user on that pair."""
    labels = data.labels
    ids = data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]
    fold = (draws("pair", *ids, SALT)[:, 0] * folds).astype(int)
    margins = np.zeros(len(labels))
    for number in range(folds):
        out = fold == number
        state = fit_graph(data.with_labels(labels.take(~out)), phi, GraphConfig(), seed=seed)
        margins[out] = state.margins(labels.take(out))
    return margins


def thresholds(strengths: Strengths, labels: Comparisons, flip: np.ndarray) -> None:
    shares = predicted(strengths, labels.user)
    known = np.array([user in shares and well_known(shares[user]) for user in labels.user.tolist()])
    mean = np.where(labels.decided, strengths.mean, np.inf)
    people = np.mean([well_known(share) for share in shares.values()])
    print(f"known: {people:.0%} of the people, with {known.mean():.0%} of the labels")
    print(f"{'precision, recall (labels)':28}{'mean alone':>22}{'and vote':>22}{'and known':>22}")
    for threshold in THRESHOLDS:
        voted = suspects(strengths, threshold)
        ways = (np.flatnonzero(mean < threshold), voted, voted[known[voted]])
        mark = "  < the pages" if threshold == THRESHOLD else ""
        print(f"{'log-odds below':15}{threshold:6.1f}{'':7}" + "".join(cell(rows, flip) for rows in ways) + mark)


def cell(rows: np.ndarray, flip: np.ndarray) -> str:
    precision = f"{flip[rows].mean():.2f}" if len(rows) else "–"
    return f"{f'{precision}, {flip[rows].sum() / flip.sum():.2f} ({len(rows):,})':>22}"


def auc(score: np.ndarray, flip: np.ndarray) -> float:
    """Probability that a flipped label has a lower score than another one."""
    from scipy.stats import rankdata

    rank = rankdata(score)
    flips, others = int(flip.sum()), int((~flip).sum())
    return 1 - (rank[flip].sum() - flips * (flips + 1) / 2) / (flips * others)


if __name__ == "__main__":
    sys.exit(main())
