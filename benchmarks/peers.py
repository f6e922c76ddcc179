"""The published peers compared with CoPL's graph and the text-free baselines, on files of real preferences.

    python -m benchmarks.peers --data FOLDER [--methods a,b] [--columns FILE:SPLIT,…] [--seed N]

All methods share each split: ``labels`` tests 15 % of the labels, drawn by (person, response), or the file's own test
rows where it has a field ``split``; ``prompts`` tests a fifth of the prompts, held out from training; ``users`` tests a
fifth of the users, whose first eight labels are given.  Every method chooses its options on validation labels that are
like the test labels where texts or users are new.  ``python -m copl_core evaluate`` reports more metrics of one split
of any files.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks import quality
from copl_core.config import Settings
from copl_core.evaluation.dataset import only_new_prompts
from copl_core.evaluation.evaluate import evaluate
from copl_core.evaluation.methods import METHODS
from copl_core.formats.leaks import TEST
from copl_core.formats.own import read_rows
from copl_core.install.weights import resolver
from copl_core.records import CoplError, ImportRow
from copl_core.training.text_embedder import TextEmbedder

DESCRIPTION = "The published peers compared with CoPL's graph and the text-free baselines, on real preferences."
FILES = {"llmfao": "llmfao.jsonl.gz", "ukpconvarg": "ukpconvarg.jsonl.gz", "polis": "polis_bowling_green.jsonl.gz"}
COLUMNS = (
    ("llmfao", "labels"),
    ("llmfao", "prompts"),
    ("llmfao", "users"),
    ("ukpconvarg", "labels"),
    ("polis", "labels"),
)
LIGHT = ("global", "side-length", "mf", "uniform-head", "i2e", "vpl", "pal", "lore", "copl-graph")
TEST_SHARE, USERS_SHARE, CONTEXT = 0.15, 0.2, 8


def cut(rows: list[ImportRow], split: str, seed: int) -> tuple[list[ImportRow], list[ImportRow]]:
    """Training rows and test rows; for ``labels``, the rows whose split is test where the file has any."""
    rng = np.random.default_rng(seed)
    if split == "prompts":
        return only_new_prompts(rows, rows, seed, same=True)
    if split == "users":
        counts = Counter(row.annotator for row in rows)
        many = sorted(name for name in counts if counts[name] > CONTEXT)
        new = set(rng.choice(many, max(1, round(USERS_SHARE * len(many))), replace=False).tolist())
        part = [quality.TEST if row.annotator in new else quality.TRAIN for row in rows]
    elif any(row.split == TEST for row in rows):
        part = [quality.TEST if row.split == TEST else quality.TRAIN for row in rows]
    else:
        part = quality.parts_of(rows, TEST_SHARE, seed).tolist()
    train, test = (
        [row for row, own in zip(rows, part, strict=True) if own == wanted] for wanted in (quality.TRAIN, quality.TEST)
    )
    return train, test


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=DESCRIPTION)
    parser.add_argument("--data", type=Path, help="folder with " + ", ".join(FILES.values()))
    parser.add_argument("--methods", default=",".join(LIGHT), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--columns", default=",".join(":".join(column) for column in COLUMNS), help="file:split, …")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.data is not None and not arguments.data.exists():
        parser.error(f"--data is {arguments.data}, which does not exist; name a folder with files of labels")
    if arguments.data is None:
        print("Nothing is measured: give the folder of the files of labels with --data.")
        return 0
    methods, settings = arguments.methods.split(","), Settings.from_environment()
    embedder = TextEmbedder(resolver(settings.weights)("minilm"), cache=settings.cache / "phi")
    for column in arguments.columns.split(","):
        name, _, split = column.partition(":")
        path = arguments.data / FILES.get(name, name)
        if not path.is_file():
            print(f"{column}: skipped, since {arguments.data} has no {path.name}.")
            continue
        rows = [row for row in read_rows(path, []) if row.choice is not None and row.annotator is not None]
        train, test = cut(rows, split, arguments.seed)
        try:
            report = evaluate(
                train,
                test,
                methods,
                embedder=embedder,
                context=CONTEXT if split == "users" else 0,
                seed=arguments.seed,
                settings=settings,
            )
        except CoplError as problem:
            print(f"{column}: skipped. {problem}")
        else:
            print_table(column, report)
    return 0


def print_table(column: str, report: dict) -> None:
    """One table: accuracy with its interval, log-loss, seconds, and how far behind the best."""
    print(
        f"\n{column}: {report['train_labels']} training labels of {report['train_users']} users, "
        f"{report['test_decided']} test labels of {report['test_users']} users, {report['new_users']} of them new\n"
    )
    print("| method | accuracy (95 % over users) | log-loss | behind the best, points | seconds |")
    print("|---|---|---|---|---|")
    for name, row in sorted(report["methods"].items(), key=lambda item: -item[1]["accuracy"]):
        low, high = row["accuracy_interval"]
        behind = (
            "best"
            if name == report["best"]
            else "{:+.1f} to {:+.1f}".format(*(100 * value for value in row["behind_best"]))
            + (", within noise" if row["within_noise_of_best"] else "")
        )
        print(
            f"| {name} | {row['accuracy']:.3f} ({low:.3f} to {high:.3f}) | {row['log_loss']:.3f} | {behind} | "
            f"{row['seconds']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
