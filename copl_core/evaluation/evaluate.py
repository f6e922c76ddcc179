"""Evaluation from files: train on one file of labels, report on another, without touching a study.

    python -m copl_core evaluate TRAIN TEST [--context K] [--split-field] [--new-prompts | --new-texts] [--controls]
                                 [--methods a,b | all] [--reward-seconds S] [--json OUT] [--seed N]
                                 [--format F] [--map OURS=THEIRS] [--annotator A] [--include-models]

The files may be of any format that ``import`` reads.  Labels of language models are left out, but for
``--include-models``.
Users of TEST that TRAIN lacks are new: their first K labels in file order are given as context and never scored, the
rest is scored; with K = 0 they have the population mean.  ``--new-prompts`` tests only on prompts that TRAIN lacks;
with one file for both, a fifth of its prompts is held out from training.  ``--new-texts`` does so with responses: both
of a test label are new.  What test labels share with training labels is counted.  Ties are left out of every metric.
Accuracies come with 95 % intervals from a bootstrap over users, since the labels of one user are not independent, and
so does each method's distance to the best: a method whose interval reaches zero is within noise of it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from copl_core.config import Settings
from copl_core.evaluation.controls import fold_in_flip, label_flip, user_swap
from copl_core.evaluation.dataset import (
    EmbedTexts,
    EvalDataset,
    build_dataset,
    ceiling_of_repeats,
    flipped,
    groups_of,
    leaks,
    only_new_prompts,
    only_new_texts,
    with_swapped_users,
)
from copl_core.evaluation.methods import DEFAULT_METHODS, METHODS, Methods
from copl_core.evaluation.report import FEWEST_IN_GROUP, table
from copl_core.formats.files import add_options, open_file, read_options
from copl_core.formats.leaks import TEST
from copl_core.formats.own import whole
from copl_core.records import Comparisons, CoplError, ImportRow, Kind
from copl_core.training.metrics import correct, interval, measures

REWARD_SECONDS = Settings().reward_budget_seconds
ORACLE = "group-oracle"
REWARD_ONLY = ("copl-reward", "copl-linear", "uniform")  # methods that are nothing but a reward model
FEWEST_OF_USER = 5  # test labels of a user who counts in the worst tenth


def evaluate(
    train_rows: Iterable[ImportRow],
    test_rows: Iterable[ImportRow],
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    embedder: Any,
    context: int = 0,
    seed: int = 0,
    controls: bool = False,
    settings: Settings | None = None,
    report_step: Callable[[str], None] | None = None,
) -> dict:
    """Fit each method to the training rows and measure it on the test rows.

    Args:
        embedder: has ``embed(texts) -> (T, P)``, such as ``TextEmbedder``; called only if a method reads texts.
        controls: also score every label with another user's vector, learn from flipped labels, and flip the context
            labels of new users.
        settings: device, backbone and seconds of the text reward (``reward_budget_seconds``; 0 leaves it out).
        report_step: receives a few words at the start of each step.
    Returns:
        ``{"methods": {name: {"accuracy", "log_loss", "calibration_error", "n", …}}, "train_labels", …}``.
    """
    report_step = report_step or (lambda words: None)
    dataset = build_dataset(train_rows, test_rows, context)
    shared = leaks(dataset)
    for sentence in shared.sentences():
        report_step(sentence)
    embed = _embed_once(lambda: embedder.embed(list(dataset.texts)), report_step)
    known = Methods(settings or Settings.from_environment())

    def run(name: str, on: EvalDataset) -> np.ndarray:
        report_step(f"fitting {name}")
        return known.run(name, on, embed, seed)

    fitted = dataset
    if controls:
        fitted = with_swapped_users(dataset, seed)
        methods = list(dict.fromkeys([*methods, "global"]))  # the swap control compares with it
    rows: dict[str, dict] = {}
    logits, swapped = {}, {}
    for name in methods:
        started = time.monotonic()
        logits[name], swapped[name] = np.split(run(name, fitted), [len(dataset.test)])
        rows[name] = (
            _metrics(logits[name], dataset, seed)
            | {"seconds": round(time.monotonic() - started, 1)}
            | known.about(name, fitted, embed, seed)
        )
        if controls:
            turned = known.given_opposite(name, fitted, embed, seed)
            real = None if turned is None else turned[: len(dataset.test)]
            rows[name]["fold_in_flip"] = None if real is None else fold_in_flip(real, logits[name], dataset)
    best = _compare(rows, logits, dataset, seed)
    if controls:
        opposite = flipped(dataset)
        for name, row in rows.items():
            row["user_swap"] = user_swap(logits[name], swapped[name], logits["global"], dataset, seed)
            row["label_flip"] = label_flip(run(name, opposite), logits[name], dataset)
    return {"methods": rows, "best": best} | _about(dataset, context, seed) | {"leaks": asdict(shared)}


def _embed_once(make: Callable[[], np.ndarray], report_step: Callable[[str], None]) -> EmbedTexts:
    made: list[np.ndarray] = []

    def embed() -> np.ndarray:
        if not made:
            report_step("embedding the texts")
            made.append(make())
        return made[0]

    return embed


def _metrics(logits: np.ndarray, dataset: EvalDataset, seed: int) -> dict:
    """Metrics of one method, with intervals, and the users and the group that it predicts worst."""
    decided = dataset.test.decided
    hits, user = _hits(logits, dataset), dataset.test.user[decided]
    groups = [group for group, kept in zip(dataset.test_groups, decided, strict=True) if kept]
    return (
        measures(logits, dataset.test.outcome)
        | {"accuracy_interval": list(interval(hits, user, seed))}
        | _by_user(hits, user)
        | {"worst_group": _worst_group(hits, groups)}
    )


def _compare(rows: dict[str, dict], logits: dict[str, np.ndarray], dataset: EvalDataset, seed: int) -> str:
    """The name of the best method; adds to every row how far it is behind, with a paired interval."""
    best = max(rows, key=lambda name: (rows[name]["accuracy"], -rows[name]["log_loss"]))
    user = dataset.test.user[dataset.test.decided]
    for name, row in rows.items():
        low, high = interval(_hits(logits[best], dataset) - _hits(logits[name], dataset), user, seed)
        row |= {"behind_best": [low, high], "within_noise_of_best": bool(low <= 0)}
    return best


def _about(dataset: EvalDataset, context: int, seed: int) -> dict:
    user, n_known = dataset.test.user, dataset.train.n_users
    allowed = ceiling_of_repeats(dataset)
    return {
        "ceiling": None if allowed is None else asdict(allowed),
        "train_labels": len(dataset.train.labels),
        "test_labels": len(dataset.test),
        "test_labels_in_training": _repeated(dataset),
        "test_decided": int(dataset.test.decided.sum()),
        "test_groups": len({group for group in dataset.test_groups if group}),
        "context_labels": len(dataset.context),
        "context": context,
        "seed": seed,
        "train_users": n_known,
        "test_users": len(np.unique(user)),
        "new_users": len(np.unique(user[user >= n_known])),
        "train_texts": dataset.train.n_responses,
        "new_texts": len(dataset.texts) - dataset.train.n_responses,
    }


def _repeated(dataset: EvalDataset) -> int:
    """Number of test labels about a pair that the same user labels in training."""

    def pairs(labels: Comparisons) -> np.ndarray:
        low, high = np.minimum(labels.left, labels.right), np.maximum(labels.left, labels.right)
        return (labels.user.astype(np.int64) * len(dataset.texts) + low) * len(dataset.texts) + high

    return int(np.isin(pairs(dataset.test), pairs(dataset.train.labels)).sum())


def _hits(logits: np.ndarray, dataset: EvalDataset) -> np.ndarray:
    decided = dataset.test.decided
    return correct(logits[decided], dataset.test.outcome[decided])


def _by_user(hits: np.ndarray, user: np.ndarray) -> dict[str, float | None]:
    """Mean over users, and mean over the tenth of users with the lowest accuracy; the latter of users with at least
    ``FEWEST_OF_USER`` test labels."""
    _, rows, counts = np.unique(user, return_inverse=True, return_counts=True)
    means = np.bincount(rows, hits) / counts
    enough = np.sort(means[counts >= FEWEST_OF_USER])
    worst = float(enough[: math.ceil(len(enough) / 10)].mean()) if len(enough) else None
    return {"mean_over_users": float(means.mean()), "worst_tenth_of_users": worst}


def _worst_group(hits: np.ndarray, groups: Sequence[str | None]) -> dict | None:
    """The group with the lowest accuracy, with its size; None where fewer than two groups have enough labels."""
    names = np.array([group or "" for group in groups])
    means = {
        str(name): (float(hits[names == name].mean()), int((names == name).sum()))
        for name in np.unique(names)
        if name and (names == name).sum() >= FEWEST_IN_GROUP
    }
    if len(means) < 2:
        return None
    name = min(means, key=lambda group: means[group][0])
    return {"group": name, "accuracy": means[name][0], "n": means[name][1]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("train", type=Path, help="file of training labels, in any format that import reads")
    parser.add_argument(
        "test",
        type=Path,
        help="file of test labels; may be the same file with --split-field, --new-prompts or --new-texts",
    )
    parser.add_argument(
        "--context",
        type=int,
        default=0,
        metavar="K",
        help="labels given of each user that TRAIN lacks; the rest is scored (default 0)",
    )
    parser.add_argument(
        "--split-field",
        action="store_true",
        help="train on rows of TRAIN whose split is not test, test on rows of TEST whose split is test",
    )
    parser.add_argument(
        "--new-prompts",
        action="store_true",
        help="test only on prompts that TRAIN lacks; with one file for both, on a fifth of the prompts",
    )
    parser.add_argument(
        "--new-texts",
        action="store_true",
        help="test only on labels whose two answers TRAIN lacks; with one file for both, a fifth of its answers is "
        "held out, and labels about one of them and another are left out",
    )
    add_options(parser)
    parser.add_argument(
        "--include-models", action="store_true", help="also labels of language models; by default only people count"
    )
    parser.add_argument(
        "--methods",
        default=",".join(DEFAULT_METHODS),
        help=f"all, or some of {', '.join(METHODS)} (default {', '.join(DEFAULT_METHODS)})",
    )
    parser.add_argument(
        "--controls",
        action="store_true",
        help="also score with another user's vector, learn from flipped labels, and flip the labels of --context "
        "(takes twice as long)",
    )
    parser.add_argument(
        "--reward-seconds",
        type=float,
        metavar="S",
        help="time after which the training of the text reward is cut, in copl, copl-reward and uniform; 0 leaves it "
        f"out of copl (default {REWARD_SECONDS:.0f})",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the report to this file")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument(
        "--threads", type=int, default=0, help="processor threads (default: COPL_THREADS, else torch's choice)"
    )
    parser.add_argument("--encoder", type=Path, help="folder of the text encoder (default: the bundled one)")
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="of the text reward in copl, copl-reward and uniform: minilm, smollm2, a folder or a Hugging Face id, a "
        "reward model with one label too (default: COPL_BACKBONE, else minilm)",
    )


def main(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code.

    Raises:
        CoplError: an argument or a file is not usable; nothing has been fitted then.
    """
    methods = _named_methods(args.methods)
    seconds = REWARD_SECONDS if args.reward_seconds is None else args.reward_seconds
    _check_arguments(args, seconds)
    train, test = _read_files(args)
    methods = _runnable(methods, args.methods.strip() == "all", train, test, seconds)
    settings = replace(Settings.from_environment(), reward_budget_seconds=seconds)
    settings = replace(settings, backbone=args.backbone or settings.backbone)
    _set_threads(args.threads or settings.threads)
    report = evaluate(
        train,
        test,
        methods,
        embedder=_Embedder(args.encoder),
        context=args.context,
        seed=args.seed,
        controls=args.controls,
        settings=settings,
        report_step=lambda words: print(f"… {words}", flush=True),
    )
    print(table(report))
    if args.json is not None:
        _write(report, args.json)
    return 0


def _check_arguments(args: argparse.Namespace, seconds: float) -> None:
    for name in ("context", "seed", "threads"):
        if getattr(args, name) < 0:
            raise CoplError(f"--{name} is {getattr(args, name)}: a whole number from 0 is needed.")
    if not 0 <= seconds < math.inf:
        raise CoplError(f"--reward-seconds is {seconds}: a number from 0 is needed.")
    _check_report(args.json, (args.train, args.test))
    if args.new_prompts and args.new_texts:
        raise CoplError("--new-prompts and --new-texts are two questions: ask one at a time.")
    if _is_one_file(args) and not (args.split_field or args.new_prompts or args.new_texts):
        raise CoplError(
            f"{args.train} is both the training and the test file, and a test on training labels says nothing: "
            "give two files, or --split-field, --new-prompts or --new-texts."
        )


def _is_one_file(args: argparse.Namespace) -> bool:
    return args.train.resolve() == args.test.resolve()


def _read_files(args: argparse.Namespace) -> tuple[list[ImportRow], list[ImportRow]]:
    """Training rows and test rows."""
    train = _rows(args, args.train, False if args.split_field else None)
    test = _rows(args, args.test, True if args.split_field else None)
    same = _is_one_file(args) and not args.split_field
    if args.new_prompts:
        return only_new_prompts(train, test, args.seed, same)
    if args.new_texts:
        return only_new_texts(train, test, args.seed, same)
    return train, test


def _check_report(path: Path | None, labels: Sequence[Path]) -> None:
    """Refuse a report file that cannot be written before any method is fitted."""
    if path is None:
        return
    if path.is_dir():
        raise CoplError(f"--json is {path}, which is a folder: name a file to write.")
    if path.resolve() in [one.resolve() for one in labels]:
        raise CoplError(f"--json is {path}, which is a file of labels and would be overwritten: name another file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path if path.exists() and not path.is_file() else path.resolve().parent
        reason = "" if os.access(target, os.W_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise CoplError(f"--json is {path}, which cannot be written ({reason}): choose a folder that is writable.")


def _write(report: dict, path: Path) -> None:
    with whole(path) as file:
        file.write(json.dumps(report, indent=1).encode())


def _named_methods(words: str) -> list[str]:
    methods = list(dict.fromkeys(name.strip() for name in words.split(",") if name.strip()))
    if methods == ["all"]:
        return list(METHODS)
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise CoplError(f"--methods got {', '.join(unknown) or 'nothing'}: choose all, or from {', '.join(METHODS)}.")
    return methods


def _runnable(
    methods: list[str],
    all_methods: bool,
    train: Sequence[ImportRow],
    test: Sequence[ImportRow],
    seconds: float = REWARD_SECONDS,
) -> list[str]:
    """The methods whose needs are met: the group oracle needs users of two groups, a reward model needs time.

    With ``all_methods`` the others are skipped with a message.

    Raises:
        CoplError: a method that is given by name cannot run; nothing has been fitted then.
    """
    group_of = groups_of([*train, *test])
    groups = {group_of[row.annotator] for row in train if row.annotator is not None and row.annotator in group_of}
    missing = {}
    if len(groups) < 2:
        missing[ORACLE] = f"{ORACLE} needs training labels by users of two groups, and these are of {len(groups)}"
    if not seconds:
        missing |= {name: f"{name} needs time for its reward model, and --reward-seconds is 0" for name in REWARD_ONLY}
    for name in [name for name in methods if name in missing]:
        if not all_methods:
            raise CoplError(f"{missing[name]}: provide it, or leave {name} out.")
        print(f"… left out: {missing[name]}", flush=True)
    return [name for name in methods if name not in missing]


class _Embedder:
    """The bundled encoder, loaded at the first text; it uses the cache of the installation."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def embed(self, texts: list[tuple[str, str]]) -> np.ndarray:
        from copl_core.install.weights import resolver
        from copl_core.training.text_embedder import installed_embedder

        settings = Settings.from_environment()
        folder = self.folder or resolver(settings.weights)("minilm")
        return installed_embedder(settings, folder).embed(texts)


def _set_threads(threads: int) -> None:
    import torch

    if threads:  # otherwise torch decides, within OMP_NUM_THREADS
        torch.set_num_threads(threads)


def _rows(args: argparse.Namespace, path: Path, split: bool | None) -> list[ImportRow]:
    """Labels of a file, each with its group if it has one; unreadable lines are reported by number and skipped.

    Args:
        split: None takes every row, True those whose split is test, False the others.
    """
    file = open_file(path, read_options(args.map, args.annotator), args.format)
    n, unit = file.survey.skipped.n, file.container.unit
    for number, reason in file.survey.left_out[:10]:
        print(f"{path.name}, {unit} {number} is left out: {reason}")
    if n > 10:
        print(f"{path.name}: {n - 10} more {unit}s are left out")
    rows = [row for row in file.rows() if row.choice is not None]
    by_models = 0 if args.include_models else sum(row.kind == Kind.MODEL for row in rows)
    if by_models:
        print(f"{path.name}: labels of language models are left out: {by_models} (--include-models takes them)")
        rows = [row for row in rows if row.kind != Kind.MODEL]
    n_excluded = sum(row.excluded for row in rows)
    if n_excluded:
        print(f"{path.name}: {n_excluded} labels of excluded users are left out")
    rows = [replace(row, true_group=row.group or row.true_group) for row in rows if not row.excluded]
    if split is None:
        return rows
    if not any(row.split == TEST for row in rows):
        raise CoplError(
            f"No row of {path} has split test, and --split-field needs some: "
            "give rows a split of train or test, or leave --split-field out."
        )
    return [row for row in rows if (row.split == TEST) == split]
