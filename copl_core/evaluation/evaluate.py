"""Honest evaluation from files: train on one file of labels, report on another, in a place that touches no study.

    python -m copl_core evaluate TRAIN TEST [--context K] [--split-field] [--new-prompts] [--controls]
                                 [--methods a,b | all] [--reward-seconds S] [--json OUT] [--seed N]

Users of TEST that TRAIN lacks are new: their first K labels in file order are given as context and never scored, the
rest is asked; with K = 0 they stand at the population mean.  ``--new-prompts`` asks only labels about prompts that
TRAIN lacks; with one file for both, a fifth of its prompts is kept from training.  Ties are left out of every figure.
Accuracies come with 95 % intervals from a bootstrap over users, since the labels of one person are not independent, and
so does each method's distance to the best: a method whose interval reaches zero is within noise of it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from copl_core.config import Settings
from copl_core.evaluation.controls import label_flip, user_swap
from copl_core.evaluation.dataset import (
    TEST,
    EmbedTexts,
    EvalDataset,
    build_world,
    flipped,
    groups_of,
    only_new_prompts,
    with_strangers,
)
from copl_core.evaluation.methods import DEFAULT_METHODS, METHODS, Methods
from copl_core.formats.own import read_rows, whole
from copl_core.records import Comparisons, CoplError, ImportRow
from copl_core.training.metrics import FEWEST_USERS, correct, interval, measures

REWARD_SECONDS = 90.0
ORACLE = "group-oracle"
TIMED = ("copl-reward", "uniform")  # methods that are a reward model and nothing else
FEWEST_IN_GROUP = 20  # asked labels that a group needs before it may be called the worst


def evaluate(
    train_rows: Iterable[ImportRow],
    test_rows: Iterable[ImportRow],
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    embedder,
    context: int = 0,
    seed: int = 0,
    controls: bool = False,
    settings: Settings | None = None,
    say: Callable[[str], None] | None = None,
) -> dict:
    """Fit each method on the training rows and measure it on the test rows.

    Args:
        embedder: has ``embed(texts) -> (T, P)``, such as ``phi.TextEmbedder``; asked only if a method reads texts.
        controls: also score every label with another user's vector, and learn from flipped labels.
        settings: device, backbone and seconds of the text reward (``reward_budget_seconds``; 0 leaves it out).
        say: told in words what is being done.
    Returns:
        ``{"methods": {name: {"accuracy", "log_loss", "calibration_error", "n", …}}, "train_labels", …}``.
    """
    world = build_world(train_rows, test_rows, context)
    embed = _once(lambda: embedder.embed(list(world.texts)), say)
    known = Methods(settings or Settings.from_environment())
    run = _teller(known, embed, seed, say)
    plain = world
    if controls:
        world = with_strangers(world, seed)
        methods = list(dict.fromkeys([*methods, "global"]))  # what another user's vector is compared with
    report = {"methods": {}}
    logits = {}
    for name in methods:
        started = time.monotonic()
        both = run(name, world)
        logits[name] = both[: len(plain.asked)]
        report["methods"][name] = (
            _measured(logits[name], plain, seed)
            | {"seconds": round(time.monotonic() - started, 1)}
            | known.about(name, world, embed, seed)
        )
        if controls:
            logits[f"{name} swapped"] = both[len(plain.asked) :]
    report["best"] = _compare(report["methods"], logits, plain, seed)
    if controls:
        mirror = flipped(plain)
        for name, row in report["methods"].items():
            row["user_swap"] = user_swap(logits[name], logits[f"{name} swapped"], logits["global"], plain, seed)
            row["label_flip"] = label_flip(run(name, mirror), logits[name], plain)
    return report | _about(plain, context, seed)


def _teller(methods: Methods, embed: EmbedTexts, seed: int, say) -> Callable[[str, EvalDataset], np.ndarray]:
    def run(name: str, world: EvalDataset) -> np.ndarray:
        if say is not None:
            say(f"fitting {name}")
        return methods.run(name, world, embed, seed)

    return run


def _once(make: Callable[[], np.ndarray], say: Callable[[str], None] | None) -> EmbedTexts:
    made: list[np.ndarray] = []

    def embed() -> np.ndarray:
        if not made:
            if say is not None:
                say("embedding the texts")
            made.append(make())
        return made[0]

    return embed


def _measured(logits: np.ndarray, world: EvalDataset, seed: int) -> dict:
    """Figures of one method, with intervals and whom it serves worst."""
    decided = world.asked.decided
    hits, user = _hits(logits, world), world.asked.user[decided]
    groups = [group for group, asked in zip(world.asked_groups, decided, strict=True) if asked]
    return (
        measures(logits, world.asked.outcome)
        | {"accuracy_interval": list(interval(hits, user, seed))}
        | _by_user(hits, user)
        | {"worst_group": _worst_group(hits, groups)}
    )


def _compare(found: dict[str, dict], logits: dict[str, np.ndarray], world: EvalDataset, seed: int) -> str:
    """The best method's name; every row is told how far behind it lies, with a paired interval."""
    best = max(found, key=lambda name: (found[name]["accuracy"], -found[name]["log_loss"]))
    user = world.asked.user[world.asked.decided]
    for name, row in found.items():
        low, high = interval(_hits(logits[best], world) - _hits(logits[name], world), user, seed)
        row |= {"behind_best": [low, high], "within_noise_of_best": bool(low <= 0)}
    return best


def _about(world: EvalDataset, context: int, seed: int) -> dict:
    user, n_known = world.asked.user, world.train.n_users
    return {
        "train_labels": len(world.train.labels),
        "test_labels": len(world.asked),
        "test_labels_in_training": _known_already(world),
        "test_decided": int(world.asked.decided.sum()),
        "test_groups": len({group for group in world.asked_groups if group}),
        "context_labels": len(world.context),
        "context": context,
        "seed": seed,
        "train_users": n_known,
        "test_users": len(np.unique(user)),
        "new_users": len(np.unique(user[user >= n_known])),
        "train_texts": world.train.n_responses,
        "new_texts": len(world.texts) - world.train.n_responses,
    }


def _known_already(world: EvalDataset) -> int:
    """Asked labels of people whose training labels are about the same pair."""

    def pairs(labels: Comparisons) -> np.ndarray:
        low, high = np.minimum(labels.left, labels.right), np.maximum(labels.left, labels.right)
        return (labels.user.astype(np.int64) * len(world.texts) + low) * len(world.texts) + high

    return int(np.isin(pairs(world.asked), pairs(world.train.labels)).sum())


def _hits(logits: np.ndarray, world: EvalDataset) -> np.ndarray:
    decided = world.asked.decided
    return correct(logits[decided], world.asked.outcome[decided])


def _by_user(hits: np.ndarray, user: np.ndarray) -> dict[str, float | None]:
    """Mean over users, and the mean of the tenth of users served worst; a user counts from five asked labels."""
    _, rows, counts = np.unique(user, return_inverse=True, return_counts=True)
    means = np.bincount(rows, hits) / counts
    enough = np.sort(means[counts >= 5])
    worst = float(enough[: math.ceil(len(enough) / 10)].mean()) if len(enough) else None
    return {"mean_over_users": float(means.mean()), "worst_tenth_of_users": worst}


def _worst_group(hits: np.ndarray, groups: Sequence[str | None]) -> dict | None:
    """The group of rows that is predicted worst, its accuracy and size; None where rows name fewer than two groups."""
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


def table(report: dict) -> str:
    """The report as people read it."""
    found, best = report["methods"], report["best"]
    grouped = any(row["worst_group"] for row in found.values())
    worst = "worst group" if grouped else "worst tenth"
    lines = [
        f"{'method':<12} {'accuracy (95 %)':>22} {'log-loss':>9} {'cal. err.':>9} {worst:>12} {'n':>6}  "
        "behind the best (95 %)"
    ]
    for name, row in sorted(found.items(), key=lambda item: (item[0] != best, -item[1]["accuracy"])):
        low, high = row["behind_best"]
        behind = (
            "best"
            if name == best
            else f"{100 * low:+.1f} to {100 * high:+.1f} points"
            + (", within noise" if row["within_noise_of_best"] else "")
        )
        low, high = row["accuracy_interval"]
        last = row["worst_group"]["accuracy"] if row["worst_group"] else row["worst_tenth_of_users"]
        lines.append(
            f"{name:<12} {row['accuracy']:>8.3f} ({low:.3f}–{high:.3f}) {row['log_loss']:>8.3f} "
            f"{row['calibration_error']:>9.3f} {'–' if last is None else format(last, '.3f'):>12} "
            f"{row['n']:>6}  {behind}"
        )
    lines += ["", _verdict(report), *_mixes(report), *_controls(report), _counts(report)]
    return "\n".join(lines)


def _verdict(report: dict) -> str:
    near = [name for name, row in report["methods"].items() if row["within_noise_of_best"] and name != report["best"]]
    ahead = f"within noise of it: {', '.join(near)}" if near else "no other method is within noise of it"
    return f"Best is {report['best']}; {ahead}."


def _mixes(report: dict) -> list[str]:
    lines = []
    for name, row in report["methods"].items():
        for kind, mix in row.get("mix", {}).items():
            weights = ", ".join(f"{voice} {weight:.2f}" for voice, weight in mix.items() if voice != "n")
            lines.append(f"{name} weighs, where a label has {kind}: {weights} (learned on {mix['n']} labels).")
    return lines


def _controls(report: dict) -> list[str]:
    lines = []
    for name, row in report["methods"].items():
        if "user_swap" in row:
            swap, flip = row["user_swap"], row["label_flip"]
            low, high = swap["gain_interval"]
            lines.append(
                f"{name}: over global {100 * swap['gain_own']:+.1f} points, with another user's vector "
                f"{100 * swap['gain']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}); learned from flipped "
                f"labels, accuracy {flip['accuracy']:.3f}."
            )
    return lines


def _counts(report: dict) -> str:
    group = report["methods"][report["best"]]["worst_group"]
    named = f" The worst group of {report['best']} is {group['group']!r} (n = {group['n']})." if group else ""
    return (
        f"Trained on {report['train_labels']} labels of {report['train_users']} users; asked "
        f"{report['test_labels']} labels of {report['test_users']} users, {report['new_users']} of them new "
        f"({report['context_labels']} labels given as context); {report['new_texts']} texts were new. "
        f"Ties are left out of every figure.{named}{_cautions(report)}"
    )


def _cautions(report: dict) -> str:
    known, people = report["test_labels_in_training"], report["test_users"]
    words = (
        f" {known} of the asked labels are about a pair that the same user's training labels are about."
        if known
        else ""
    )
    if report["test_groups"] and not report["methods"][report["best"]]["worst_group"]:
        words += (
            f" No worst group is told: of the {report['test_groups']} that rows name, fewer than two have "
            f"{FEWEST_IN_GROUP} asked labels."
        )
    if people < FEWEST_USERS:
        words += f" Intervals are over the labels of these {people} users, and say nothing of others."
    return words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("train", type=Path, help="file of labels to learn from (JSONL, also .gz)")
    parser.add_argument(
        "test", type=Path, help="file of labels to be asked; may be the same with --split-field or --new-prompts"
    )
    parser.add_argument(
        "--context",
        type=int,
        default=0,
        metavar="K",
        help="labels given of each user that TRAIN lacks; the rest is asked (default 0)",
    )
    parser.add_argument(
        "--split-field",
        action="store_true",
        help="learn from rows of TRAIN whose split is not test, ask rows of TEST whose split is test",
    )
    parser.add_argument(
        "--new-prompts",
        action="store_true",
        help="ask only about prompts that TRAIN lacks; of one file for both, a fifth of the prompts",
    )
    parser.add_argument(
        "--methods",
        default=",".join(DEFAULT_METHODS),
        help=f"all, or of {', '.join(METHODS)} (default {', '.join(DEFAULT_METHODS)})",
    )
    parser.add_argument(
        "--controls",
        action="store_true",
        help="also score with another user's vector, and learn from flipped labels (twice the time)",
    )
    parser.add_argument(
        "--reward-seconds",
        type=float,
        metavar="S",
        help=f"time of the text reward in copl, copl-reward and uniform; 0 leaves it out of copl "
        f"(default {REWARD_SECONDS:.0f})",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the report to this file")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument(
        "--threads", type=int, default=0, help="processor threads (default: COPL_THREADS, else as torch chooses)"
    )
    parser.add_argument("--encoder", type=Path, help="folder of the text encoder; the bundled one otherwise")


def main(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code.  Mishaps are raised as CoplError, for the caller to tell."""
    methods = _chosen(args.methods)
    seconds = REWARD_SECONDS if args.reward_seconds is None else args.reward_seconds
    if args.context < 0:
        raise CoplError(f"--context is {args.context}: a whole number from 0 is needed.")
    if not 0 <= seconds < math.inf:
        raise CoplError(f"--reward-seconds is {seconds}: a number from 0 is needed.")
    for name in ("seed", "threads"):
        if getattr(args, name) < 0:
            raise CoplError(f"--{name} is {getattr(args, name)}: a whole number from 0 is needed.")
    _check_report(args.json, (args.train, args.test))
    one_file = args.train.resolve() == args.test.resolve()
    if one_file and not (args.split_field or args.new_prompts):
        raise CoplError(
            f"{args.train} was given to learn from and to be asked, and nobody errs on what was learned: "
            "give two files, or --split-field or --new-prompts."
        )
    train = _rows(args.train, False if args.split_field else None)
    test = _rows(args.test, True if args.split_field else None)
    if args.new_prompts:
        train, test = only_new_prompts(train, test, args.seed, one_file and not args.split_field)
    methods = _possible(methods, args.methods.strip() == "all", train, test, seconds)
    settings = replace(Settings.from_environment(), reward_budget_seconds=seconds)
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
        say=lambda words: print(f"… {words}", flush=True),
    )
    print(table(report))
    if args.json is not None:
        _write(report, args.json)
    return 0


def _check_report(path: Path | None, labels: Sequence[Path]) -> None:
    """Refuse a place for the report before hours go into it."""
    if path is None:
        return
    if path.is_dir():
        raise CoplError(f"--json is {path}, which is a folder: name a file to write.")
    if path.resolve() in [one.resolve() for one in labels]:
        raise CoplError(f"--json is {path}, which is a file of labels, and would be written over: name another.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = path if path.exists() and not path.is_file() else path.resolve().parent
        reason = "" if os.access(place, os.W_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise CoplError(f"--json is {path}, which cannot be written ({reason}): choose a folder that is writable.")


def _write(report: dict, path: Path) -> None:
    with whole(path) as file:
        file.write(json.dumps(report, indent=1).encode())


def _chosen(words: str) -> list[str]:
    methods = list(dict.fromkeys(name.strip() for name in words.split(",") if name.strip()))
    if methods == ["all"]:
        return list(METHODS)
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise CoplError(f"--methods got {', '.join(unknown) or 'nothing'}: choose all, or from {', '.join(METHODS)}.")
    return methods


def _possible(
    methods: list[str],
    everything: bool,
    train: Sequence[ImportRow],
    test: Sequence[ImportRow],
    seconds: float = REWARD_SECONDS,
) -> list[str]:
    """Without the group oracle where training has people of fewer than two groups, and without reward models that get
    no time, where all methods were asked for; asked for by name, they are refused here, before hours go into others."""
    group_of = groups_of([*train, *test])
    groups = {group_of.get(row.annotator) for row in train} - {None}
    lacking = {}
    if len(groups) < 2:
        lacking[ORACLE] = f"{ORACLE} needs training labels by people of two groups, and these are of {len(groups)}"
    if not seconds:
        lacking |= {name: f"{name} needs time for its reward model, and --reward-seconds is 0" for name in TIMED}
    for name in [name for name in methods if name in lacking]:
        if not everything:
            raise CoplError(f"{lacking[name]}: give it that, or leave {name} out.")
        print(f"… left out: {lacking[name]}", flush=True)
    return [name for name in methods if name not in lacking]


class _Embedder:
    """The bundled encoder, found only when a text has to be embedded; its cache is the installation's."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def embed(self, texts: list[tuple[str, str]]) -> np.ndarray:
        from copl_core.install.weights import resolver
        from copl_core.training.text_embedder import TextEmbedder

        settings = Settings.from_environment()
        folder = self.folder or resolver(settings.weights)("minilm")
        return TextEmbedder(folder, device=settings.device, cache=settings.cache / "phi").embed(texts)


def _set_threads(threads: int) -> None:
    import torch

    if threads:  # else as many as torch takes by itself, which OMP_NUM_THREADS may bound
        torch.set_num_threads(threads)


def _rows(path: Path, split: bool | None) -> list[ImportRow]:
    """Labels of a file, each with its group if it names one; lines that cannot be read are told by number and left out.

    ``split`` None takes every row, True those whose split is test, False the others.
    """
    problems: list[tuple[int, str]] = []
    rows = [row for row in read_rows(path, problems) if row.choice is not None]
    for line, reason in problems[:10]:
        print(f"{path.name}, line {line} is left out: {reason}")
    if len(problems) > 10:
        print(f"{path.name}: {len(problems) - 10} more lines are left out")
    out = [row for row in rows if row.excluded]
    if out:
        print(f"{path.name}: {len(out)} labels of people who are excluded are left out")
    rows = [replace(row, true_group=row.group or row.true_group) for row in rows if not row.excluded]
    if split is None:
        return rows
    if not any(row.split == TEST for row in rows):
        raise CoplError(
            f"No row of {path} has split test, and --split-field asks for it: "
            "give rows a split of train or test, or leave --split-field out."
        )
    return [row for row in rows if (row.split == TEST) == split]
