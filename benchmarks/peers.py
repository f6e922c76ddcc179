"""The published peers beside CoPL's graph and the text-free baselines, on files of real preferences.

    python -m benchmarks.peers --data FOLDER [--methods a,b] [--columns FILE:QUESTION,…] [--seed N]

Questions, each a split that every method shares: ``labels`` asks 15 % of the labels, drawn at random, or the file's own
test rows where it has a ``split``; ``prompts`` asks about a fifth of the prompts, kept from training; ``users`` asks a
fifth of the users, of whom the first eight labels are given.  Every method chooses its options on a part of its
training labels that is like what is asked, where texts or people are new.  ``python -m copl_core evaluate`` measures
one split of any files with more figures.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from copl_core.config import Settings
from copl_core.evaluation.dataset import TEST, only_new_prompts
from copl_core.evaluation.evaluate import evaluate
from copl_core.evaluation.methods import METHODS
from copl_core.formats.own import read_rows
from copl_core.install.weights import resolver
from copl_core.records import CoplError, ImportRow
from copl_core.training.text_embedder import TextEmbedder

DESCRIPTION = "The published peers beside CoPL's graph and the text-free baselines, on files of real preferences."
FILES = {"llmfao": "llmfao.jsonl.gz", "ukpconvarg": "ukpconvarg.jsonl.gz", "polis": "polis_bowling_green.jsonl.gz"}
COLUMNS = (
    ("llmfao", "labels"),
    ("llmfao", "prompts"),
    ("llmfao", "users"),
    ("ukpconvarg", "labels"),
    ("polis", "labels"),
)
LIGHT = ("global", "side-length", "mf", "uniform-head", "i2e", "vpl", "pal", "lore", "copl-graph")
ASKED_SHARE, USERS_SHARE, GIVEN = 0.15, 0.2, 8


def cut(rows: list[ImportRow], question: str, seed: int) -> tuple[list[ImportRow], list[ImportRow]]:
    """Training rows and asked rows; of labels those whose split is test, where the file names one."""
    rng = np.random.default_rng(seed)
    if question == "prompts":
        return only_new_prompts(rows, rows, seed, same=True)
    if question == "users":
        counts = Counter(row.annotator for row in rows)
        many = sorted(name for name in counts if counts[name] > GIVEN)
        new = set(rng.choice(many, max(1, round(USERS_SHARE * len(many))), replace=False).tolist())
        asked = [row.annotator in new for row in rows]
    elif any(row.split == TEST for row in rows):
        asked = [row.split == TEST for row in rows]
    else:
        asked = (rng.random(len(rows)) < ASKED_SHARE).tolist()
    learn, ask = ([row for row, out in zip(rows, asked, strict=True) if out == side] for side in (False, True))
    return learn, ask


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=DESCRIPTION)
    parser.add_argument("--data", type=Path, help="folder with " + ", ".join(FILES.values()))
    parser.add_argument("--methods", default=",".join(LIGHT), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--columns", default=",".join(":".join(column) for column in COLUMNS), help="file:question, …")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.data is not None and not arguments.data.exists():
        parser.error(f"--data is {arguments.data}, which is not there; name a folder with files of labels")
    if arguments.data is None:
        print("Left out: the peers are compared on files of labels, and no folder was named with --data.")
        return 0
    methods, settings = arguments.methods.split(","), Settings.from_environment()
    embedder = TextEmbedder(resolver(settings.weights)("minilm"), cache=settings.cache / "phi")
    for column in arguments.columns.split(","):
        name, _, question = column.partition(":")
        path = arguments.data / FILES.get(name, name)
        if not path.is_file():
            print(f"Left out: {column}, for want of {path.name}.")
            continue
        rows = [row for row in read_rows(path, []) if row.choice is not None and row.annotator is not None]
        learn, ask = cut(rows, question, arguments.seed)
        try:
            tell(
                column,
                evaluate(
                    learn,
                    ask,
                    methods,
                    embedder=embedder,
                    context=GIVEN if question == "users" else 0,
                    seed=arguments.seed,
                    settings=settings,
                ),
            )
        except CoplError as problem:
            print(f"Left out: {column}. {problem}")
    return 0


def tell(column: str, report: dict) -> None:
    """One table: accuracy with its interval, log-loss, seconds, and how far behind the best."""
    print(
        f"\n{column}: {report['train_labels']} labels of {report['train_users']} users learned, "
        f"{report['test_decided']} asked of {report['test_users']}, {report['new_users']} of them new\n"
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
