"""Honest evaluation from files: train on one file of labels, report on another, in a place that touches no study.

    python -m copl_core evaluate TRAIN TEST [--context K] [--split-field] [--methods a,b] [--json OUT] [--seed N]

Users of TEST that TRAIN lacks are new: their first K labels in file order are given as context and never scored, the
rest is asked; with K = 0 they stand at the population mean.  Texts that TRAIN lacks are placed by what they say.  Ties
are left out of every figure.  Each method's figure comes with its n, and the difference to the best with an interval
from a bootstrap over users, since the labels of one person are not independent.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from copl_core.files import read_rows
from copl_core.records import Choice, Comparisons, CoplError, ImportRow, TrainingData

DEFAULT_METHODS = ("global", "side-length", "mf", "copl")
METHODS = (*DEFAULT_METHODS, "copl-graph", "published")
OUTCOMES = {Choice.LEFT: 1.0, Choice.RIGHT: 0.0, Choice.TIE: 0.5, Choice.BOTH_BAD: 0.5}
RESAMPLES = 2000


@dataclass(frozen=True)
class World:
    """Both files over one numbering: rows that training knows come first, so that a row past its end is new."""

    train: TrainingData
    prompts: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]  # (R_all,) prompt and response
    asked: Comparisons  # labels that are scored
    context: Comparisons  # labels given of new users
    users: tuple[str, ...]  # (U_all,)


# A method is fitted to a world and gives log-odds (N,) of left for the asked labels.
Method = Callable[[World, "Embed", int], np.ndarray]
Embed = Callable[[], np.ndarray]  # φ (R_all, P), made when first asked for


def build_world(train_rows: Iterable[ImportRow], test_rows: Iterable[ImportRow], context: int = 0) -> World:
    """Number users and texts of both files.

    Raises:
        CoplError: if either file holds no label, or nothing is left to ask.
    """
    train_rows, test_rows = [r for r in train_rows if _is_label(r)], [r for r in test_rows if _is_label(r)]
    for rows, name in ((train_rows, "training"), (test_rows, "test")):
        if not rows:
            raise CoplError(f"The {name} file holds no label: rows with prompt, response_a, response_b, choice and "
                            "annotator are needed.")
    users: dict[str, int] = {}
    texts: dict[tuple[str, str], int] = {}
    prompts: dict[str, int] = {}
    trained = _number(train_rows, users, texts, prompts)
    n_users, n_texts, n_prompts = len(users), len(texts), len(prompts)
    tested = _number(test_rows, users, texts, prompts)
    known_texts, known_prompts = tuple(texts)[:n_texts], tuple(prompts)[:n_prompts]
    train = TrainingData(
        user_ids=np.arange(n_users), response_ids=np.arange(n_texts),
        response_prompt=np.array([prompts[prompt] for prompt, _ in known_texts], np.int64), prompts=known_prompts,
        responses=tuple(text for _, text in known_texts), labels=trained)
    given = _first_of_new(tested.user, n_users, context)
    asked = tested.take(np.flatnonzero(~given))
    if not asked.decided.any():
        raise CoplError("Nothing is left to ask: every test label is a tie or was given as context. "
                        "Use a smaller --context or a larger test file.")
    return World(train, tuple(prompts), tuple(texts), asked, tested.take(np.flatnonzero(given)), tuple(users))


def _is_label(row: ImportRow) -> bool:
    return row.choice is not None and row.annotator is not None


def _number(rows: Sequence[ImportRow], users: dict, texts: dict, prompts: dict) -> Comparisons:
    def text(prompt: str, response: str) -> int:
        prompts.setdefault(prompt, len(prompts))
        return texts.setdefault((prompt, response), len(texts))

    return Comparisons.build(
        [users.setdefault(row.annotator, len(users)) for row in rows],
        [text(row.prompt, row.response_a) for row in rows], [text(row.prompt, row.response_b) for row in rows],
        [OUTCOMES[row.choice] for row in rows], [row.choice is Choice.BOTH_BAD for row in rows])


def _first_of_new(user: np.ndarray, n_known: int, context: int) -> np.ndarray:
    """Mask (N,) of the first ``context`` labels of each user past the known ones, in file order."""
    order = np.argsort(user, kind="stable")
    starts = np.searchsorted(user[order], user[order], side="left")
    rank = np.empty(len(user), np.int64)
    rank[order] = np.arange(len(user)) - starts
    return (user >= n_known) & (rank < context)


def _baseline(name: str) -> Method:
    def run(world: World, embed: Embed, seed: int) -> np.ndarray:
        from copl_core.training import baselines

        fit = {"global": baselines.fit_global, "side-length": baselines.fit_side_length, "mf": baselines.fit_mf}[name]
        return fit(world.train, [text for _, text in world.texts], seed).logits(world.asked, world.context)

    return run


def _graph(rule: str) -> Method:
    def run(world: World, embed: Embed, seed: int) -> np.ndarray:
        from copl_core.preference.state import GraphConfig
        from copl_core.training.graph_fit import fit_graph
        from copl_core.training.tune import tuned

        phi = embed()
        known = phi[:world.train.n_responses]
        config = GraphConfig(rule="published", members=1, leave_out=0.0, id_dropout=0.0) if rule == "published" \
            else tuned(world.train, known, GraphConfig(), seed=seed)
        state = fit_graph(world.train, known, config, seed=seed)
        return graph_logits(state, world, phi, "published" if rule == "published" else "map")

    return run


def graph_logits(state, world: World, phi: np.ndarray, adapt_rule: str = "map") -> np.ndarray:
    """Log-odds (N,) of the asked labels by a graph fitted on the world: new texts placed by φ, new users by context."""
    from copl_core.preference.adapt import Prior, adapt

    vectors, bias = state.place_responses(phi[len(state.response_ids):])
    wide = replace(state, response_vectors=np.concatenate([state.response_vectors, vectors]),
                   response_bias=np.concatenate([state.response_bias, bias]))
    n_known = len(state.user_ids)
    users, side = np.zeros((len(world.users), vectors.shape[1]), np.float32), np.zeros(len(world.users))
    users[:n_known], side[:n_known] = state.user_vectors, state.user_side
    users[n_known:] = state.population
    prior = Prior.of(state)
    for user in np.unique(world.context.user):
        given = world.context.take(np.flatnonzero(world.context.user == user))
        place = adapt(wide, given, rule=adapt_rule, prior=prior)
        users[user], side[user] = place.vector, place.side
    asked = world.asked
    return wide.margins(asked, users[asked.user]) + (state.side + side[asked.user]) / state.temperature


_RUN: dict[str, Method] = {name: _baseline(name) for name in ("global", "side-length", "mf")} | {
    "copl": _graph("copl"), "copl-graph": _graph("copl"), "published": _graph("published")}


def evaluate(train_rows: Iterable[ImportRow], test_rows: Iterable[ImportRow], methods: Sequence[str] = DEFAULT_METHODS,
             *, embedder, context: int = 0, seed: int = 0, say: Callable[[str], None] | None = None) -> dict:
    """Fit each method on the training rows and measure it on the test rows.

    Args:
        embedder: has ``embed(texts) -> (T, P)``, such as ``phi.TextEmbedder``; asked only if a method reads texts.
        say: told in words what is being done.
    Returns:
        ``{"methods": {name: {"accuracy", "log_loss", "calibration_error", "n", …}}, "train_labels", …}``.
    """
    from copl_core.training.losses import measures

    world = build_world(train_rows, test_rows, context)
    embed = _once(lambda: embedder.embed(list(world.texts)), say)
    outcome, user = world.asked.outcome, world.asked.user
    figures, hits = {}, {}
    for name in methods:
        started = time.monotonic()
        if say is not None:
            say(f"fitting {name}")
        logits = _RUN[name](world, embed, seed)
        hits[name] = _hits(logits, outcome)
        figures[name] = measures(logits, outcome) | _by_user(hits[name], user[world.asked.decided]) \
            | {"seconds": round(time.monotonic() - started, 1)}
    best = max(figures, key=lambda name: (figures[name]["accuracy"], -figures[name]["log_loss"]))
    for name in figures:
        low, high = _interval(hits[best] - hits[name], user[world.asked.decided], seed)
        figures[name] |= {"behind_best": [low, high], "within_noise_of_best": bool(low <= 0)}
    n_known = world.train.n_users
    return {"methods": figures, "best": best, "train_labels": len(world.train.labels),
            "test_labels": len(world.asked), "test_decided": int(world.asked.decided.sum()),
            "context_labels": len(world.context), "context": context, "seed": seed, "train_users": n_known,
            "test_users": len(np.unique(user)), "new_users": len(np.unique(user[user >= n_known])),
            "train_texts": world.train.n_responses, "new_texts": len(world.texts) - world.train.n_responses}


def _once(make: Callable[[], np.ndarray], say: Callable[[str], None] | None) -> Embed:
    made: list[np.ndarray] = []

    def embed() -> np.ndarray:
        if not made:
            if say is not None:
                say("embedding the texts")
            made.append(make())
        return made[0]

    return embed


def _hits(logits: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    from copl_core.training.losses import right

    decided = outcome != 0.5
    return right(logits[decided], outcome[decided]).astype(float)


def _by_user(hits: np.ndarray, user: np.ndarray) -> dict[str, float]:
    """Mean over users, and the mean of the tenth of users served worst; a user counts from five asked labels."""
    _, rows, counts = np.unique(user, return_inverse=True, return_counts=True)
    means = np.bincount(rows, hits) / counts
    enough = np.sort(means[counts >= 5])
    worst = enough[:max(1, len(enough) // 10)].mean() if len(enough) else float("nan")
    return {"mean_over_users": float(means.mean()), "worst_tenth_of_users": float(worst)}


def _interval(difference: np.ndarray, user: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of a mean difference (N,), users drawn with replacement."""
    _, rows = np.unique(user, return_inverse=True)
    total, count = np.bincount(rows, difference), np.bincount(rows)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(total), size=(RESAMPLES, len(total)))
    means = total[draws].sum(1) / count[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def table(report: dict) -> str:
    """The report as people read it."""
    figures = report["methods"]
    lines = [f"{'method':<12} {'accuracy':>8} {'log-loss':>9} {'cal. err.':>9} {'worst 10%':>9} {'n':>6}  "
             "behind the best (95 %)"]
    for name, row in sorted(figures.items(), key=lambda item: -item[1]["accuracy"]):
        low, high = row["behind_best"]
        behind = "best" if name == report["best"] else f"{100 * low:+.1f} to {100 * high:+.1f} points" + (
            ", within noise" if row["within_noise_of_best"] else "")
        lines.append(f"{name:<12} {row['accuracy']:>8.3f} {row['log_loss']:>9.3f} {row['calibration_error']:>9.3f} "
                     f"{row['worst_tenth_of_users']:>9.3f} {row['n']:>6}  {behind}")
    lines.append(f"Trained on {report['train_labels']} labels of {report['train_users']} users; asked "
                 f"{report['test_labels']} labels of {report['test_users']} users, {report['new_users']} of them new "
                 f"({report['context_labels']} labels given as context); {report['new_texts']} texts were new. "
                 "Ties are left out of every figure.")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("train", type=Path, help="file of labels to learn from (JSONL, also .gz)")
    parser.add_argument("test", type=Path, help="file of labels to be asked; may be the same with --split-field")
    parser.add_argument("--context", type=int, default=0, metavar="K",
                        help="labels given of each user that TRAIN lacks; the rest is asked (default 0)")
    parser.add_argument("--split-field", action="store_true",
                        help="learn from rows of TRAIN whose split is not test, ask rows of TEST whose split is test")
    parser.add_argument("--methods", default=",".join(DEFAULT_METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the report to this file")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 takes what there is")
    parser.add_argument("--encoder", type=Path, help="folder of the text encoder; the bundled one otherwise")


def main(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code.  Mishaps are raised as CoplError, for the caller to tell."""
    methods = [name.strip() for name in args.methods.split(",") if name.strip()]
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise CoplError(f"--methods got {', '.join(unknown) or 'nothing'}: choose from {', '.join(METHODS)}.")
    if args.context < 0:
        raise CoplError(f"--context is {args.context}: a whole number from 0 is needed.")
    train = _rows(args.train, False if args.split_field else None)
    test = _rows(args.test, True if args.split_field else None)
    _set_threads(args.threads)
    report = evaluate(train, test, methods, embedder=_Embedder(args.encoder), context=args.context,
                      seed=args.seed, say=lambda words: print(f"… {words}", flush=True))
    print(table(report))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1))
    return 0


class _Embedder:
    """The bundled encoder, found only when a text has to be embedded; its cache is the installation's."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def embed(self, texts: list[tuple[str, str]]) -> np.ndarray:
        from copl_core.config import Settings
        from copl_core.training.phi import TextEmbedder
        from copl_core.weights import resolver

        settings = Settings.from_environment()
        folder = self.folder or resolver(settings.weights)("minilm")
        return TextEmbedder(folder, device=settings.device, cache=settings.cache / "phi").embed(texts)


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)


def _rows(path: Path, split: bool | None) -> list[ImportRow]:
    """Labels of a file; lines that cannot be read are told by number and left out.

    ``split`` None takes every row, True those whose split is test, False the others.
    """
    problems: list[tuple[int, str]] = []
    rows = [row for row in read_rows(path, problems) if row.choice is not None]
    for line, reason in problems[:10]:
        print(f"{path.name}, line {line} is left out: {reason}")
    if len(problems) > 10:
        print(f"{path.name}: {len(problems) - 10} more lines are left out")
    if split is None:
        return rows
    tests = _test_lines(path)
    if not tests:
        raise CoplError(f"No row of {path} has split test, and --split-field asks for it: "
                        "give rows a split of train or test, or leave --split-field out.")
    return [row for row in rows if (row.line in tests) == split]


def _test_lines(path: Path) -> set[int]:
    """Numbers of the lines whose split is test."""
    open_text = gzip.open if path.read_bytes()[:2] == b"\x1f\x8b" else open
    found = set()
    with open_text(path, "rt", encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                if json.loads(line).get("split") == "test":
                    found.add(number)
            except (ValueError, AttributeError):
                continue  # told of already by the reader
    return found
