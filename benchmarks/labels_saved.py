"""How many labels a new user needs until the model knows them: the most informative pairs against random ones.

    python -m benchmarks.labels_saved [--people N] [--data FOLDER]

A graph is fitted to the labels of other users.  Each new user labels one pair after another, and each label updates
their embedding, as in the product; the embedding is tested on pairs that the user never labels on the way.  Each user
runs twice: with the most informative open pair each time, and with a random one.  A pair that is labelled in both runs
has the same outcome in both.

"Knows them" means 90 % of the way from the accuracy without any label (the population mean) to the plateau, the
accuracy with all labels that a user could give.  Curves are means over the new users; the intervals resample users.

Two worlds: the demo study, whose users are simulated, and (with ``--data``) residents' votes on civic statements
(``polis_bowling_green.jsonl.gz``), where an outcome can only be taken from the votes: a resident's labels of the split
"train" are the pool, and the labels of the split "test", which share no statement with the pool, are the test labels.
The residents with the most labels are divided into parts, and each part is new to a graph fitted to all the others.

The curves are written to ``benchmarks/labels_saved.svg``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from copl_core.demo import world as demo
from copl_core.evaluation.dataset import EvalDataset, build_dataset
from copl_core.formats.leaks import TEST
from copl_core.formats.own import read_rows
from copl_core.preference.acquire import informative
from copl_core.preference.adapt import Prior, adapt
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, ImportRow
from copl_core.training.metrics import correct

DESCRIPTION = "labels a new user needs: most informative pairs against random ones"
FIGURE = Path(__file__).with_name("labels_saved.svg")
POLIS = "polis_bowling_green.jsonl.gz"
SHARE = 0.9  # of the plateau's gain
EARLY = 20  # first labels, over which the two are compared too
PARTS = 2  # of the residents
RESAMPLES = 2000
MOST_LABELS = 60  # of a simulated user; residents have fewer
POLICIES = {"most informative": "#0072b2", "random": "#e69f00"}


@dataclass(frozen=True)
class NewUser:
    """One new user."""

    pool: Comparisons  # pairs that can be labelled, with the outcomes that the user would give
    test: Comparisons


@dataclass(frozen=True)
class Result:
    """The curves of one world."""

    name: str
    curves: dict[str, np.ndarray]  # policy → accuracy (U, labels + 1)
    whole: np.ndarray  # (U,) accuracy with the whole pool

    def needed(self, policy: str, users: np.ndarray) -> int:
        """Labels until the mean over these users reaches ``SHARE`` of the gain; one more than the curve has where it
        does not."""
        start = self.curves[policy][users, 0].mean()
        enough = start + SHARE * (self.whole[users].mean() - start)
        reached = self.curves[policy][users].mean(0) >= enough
        return int(reached.argmax()) if reached.any() else len(reached)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels_saved", description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=300, help="new users of each graph")
    parser.add_argument("--data", type=Path, help=f"folder with {POLIS}")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    results = [run("demo study (simulated users)", [demo_world(arguments.people, arguments.seed)], arguments.seed)]
    path = None if arguments.data is None else arguments.data / POLIS
    if path is None or not path.is_file():
        print(f"The residents' votes are skipped: give --data FOLDER with {POLIS}.")
    else:
        results.append(run("residents' votes", polis_worlds(path, arguments.people, arguments.seed), arguments.seed))
    for result in results:
        print(table(result, arguments.seed))
    FIGURE.write_text(picture(results))
    print(f"The curves are in {FIGURE.name}.")
    return 0


# ---- worlds


def demo_world(n_users: int, seed: int) -> tuple[EvalDataset, list[NewUser]]:
    """The demo study as training data; new users of its true groups in equal numbers, with one label on each pair.

    A random third of the pairs is the test, the others are the pool.
    """
    rng = np.random.default_rng([seed, 1])
    tastes = list(demo.tastes().values())
    pairs = [
        (prompt, a, b) for prompt in demo.study_prompts() for a, b in combinations(range(demo.RESPONSES_PER_PROMPT), 2)
    ]
    labels = [
        _demo_answer(f"new-{number:03d}", tastes[number % len(tastes)], *pair, rng)
        for number in range(n_users)
        for pair in pairs
    ]
    world = build_dataset(demo.demo_rows(seed), labels)
    is_test = np.concatenate([rng.permutation(len(pairs)) < len(pairs) // 3 for _ in range(n_users)])
    return world, _new_users(world.test, is_test)


def _demo_answer(
    name: str, taste: demo.Taste, prompt: demo.DemoPrompt, a: int, b: int, rng: np.random.Generator
) -> ImportRow:
    if rng.random() < 0.5:
        a, b = b, a
    first, second = prompt.responses[a], prompt.responses[b]
    gap = demo.utility(taste, first.style) - demo.utility(taste, second.style)
    return ImportRow(0, prompt.prompt, first.text, second.text, demo.answer(gap, rng), name)


def polis_worlds(path: Path, n_users: int, seed: int) -> Iterator[tuple[EvalDataset, list[NewUser]]]:
    """Residents' votes, once for each part of the residents with the most labels."""
    problems: list[tuple[int, str]] = []
    rows = list(read_rows(path, problems))
    given: dict[str, int] = {}
    for row in rows:
        given[row.annotator] = given.get(row.annotator, 0) + (row.split != TEST)
    full = sorted(name for name, count in given.items() if count == max(given.values()))
    for part in np.array_split(np.random.default_rng([seed, 2]).permutation(full), PARTS):
        new = set(part[:n_users].tolist())
        theirs = [row for row in rows if row.annotator in new]
        world = build_dataset([row for row in rows if row.annotator not in new], theirs)
        yield world, _new_users(world.test, np.array([row.split == TEST for row in theirs]))


def _new_users(labels: Comparisons, is_test: np.ndarray) -> list[NewUser]:
    users = [
        NewUser(labels.take(own & ~is_test), labels.take(own & is_test & labels.decided))
        for own in (labels.user == user for user in np.unique(labels.user))
    ]
    return [user for user in users if len(user.test)]


# ---- one world


def run(name: str, worlds: Iterable[tuple[EvalDataset, list[NewUser]]], seed: int) -> Result:
    """Both policies for every new user of every world, with the same random numbers for the same user."""
    curves, whole = {policy: [] for policy in POLICIES}, []
    for world, users in worlds:
        started = time.monotonic()
        state = fit(world, seed)
        prior = Prior.of(state)
        length = min(MOST_LABELS, min(len(user.pool) for user in users))
        for number, user in enumerate(users):
            for policy, found in curves.items():
                found.append(curve(state, prior, user, policy, length, np.random.default_rng([seed, 3, number])))
            whole.append(accuracy(state, adapt(state, user.pool, prior=prior).vector, user))
        print(
            f"{name}: {len(users)} new users beside {world.train.n_users:,} known ones with "
            f"{len(world.train.labels):,} labels; {time.monotonic() - started:.0f} s",
            flush=True,
        )
    length = min(len(one) for found in curves.values() for one in found)
    return Result(
        name, {policy: np.array([one[:length] for one in found]) for policy, found in curves.items()}, np.array(whole)
    )


def fit(world: EvalDataset, seed: int) -> GraphState:
    """The graph, fitted as by the trainer."""
    from copl_core.config import Settings
    from copl_core.install.weights import resolver
    from copl_core.training.graph_fit import fit_graph
    from copl_core.training.text_embedder import TextEmbedder
    from copl_core.training.tune import tuned

    settings = Settings.from_environment()
    embedder = TextEmbedder(resolver(settings.weights)("minilm"), cache=settings.cache / "phi")
    phi = embedder.embed(list(world.texts[: world.train.n_responses]))
    return fit_graph(world.train, phi, tuned(world.train, phi, GraphConfig(), seed=seed), seed=seed)


def curve(
    state: GraphState, prior: Prior, user: NewUser, policy: str, length: int, rng: np.random.Generator
) -> np.ndarray:
    """Accuracy (length + 1,) after 0, 1, … labels of one user."""
    pool = user.pool
    pairs = np.column_stack([pool.left, pool.right])
    chosen, left, found = [], np.arange(len(pool)), []
    for number in range(length + 1):
        placement = adapt(state, pool.take(np.array(chosen, np.int64)), prior=prior)
        found.append(accuracy(state, placement.vector, user))
        if number < length:
            best = (
                rng.integers(len(left)) if policy == "random" else np.argmax(informative(state, placement, pairs[left]))
            )
            chosen.append(left[best])
            left = np.delete(left, best)
    return np.array(found)


def accuracy(state: GraphState, vector: np.ndarray, user: NewUser) -> float:
    """Accuracy on the test labels; a margin of zero counts as half correct."""
    margins = state.margins(user.test, np.tile(vector, (len(user.test), 1)))
    return float(correct(margins, user.test.outcome).mean())


# ---- results


def table(result: Result, seed: int) -> str:
    """Labels needed and saved, with 95 % intervals over users, and the curves at some lengths."""
    draws = np.random.default_rng(seed).integers(len(result.whole), size=(RESAMPLES, len(result.whole)))
    all_users = np.arange(len(result.whole))
    needed = {
        policy: (result.needed(policy, all_users), np.array([result.needed(policy, draw) for draw in draws]))
        for policy in POLICIES
    }
    (best, best_draws), (chance, chance_draws) = needed.values()
    start, length = result.curves["random"][:, 0].mean(), result.curves["random"].shape[1] - 1
    lines = [
        f"{result.name}: accuracy {start:.3f} without labels, {result.whole.mean():.3f} with all of a user's",
        f"  labels to {SHARE:.0%} of the gain: most informative {best} {_span(best_draws)}, random {chance} "
        f"{_span(chance_draws)}",
        f"  labels saved: {chance - best} {_span(chance_draws - best_draws)}",
        f"  accuracy gained over the first {EARLY} labels: {_gain(result, draws)} points on average",
        "  " + "labels".ljust(18) + "".join(f"{n:>7}" for n in _lengths(length)),
    ]
    for policy in POLICIES:
        mean = result.curves[policy].mean(0)
        lines.append("  " + policy.ljust(18) + "".join(f"{mean[n]:>7.3f}" for n in _lengths(length)))
    return "\n".join(lines)


def _gain(result: Result, draws: np.ndarray) -> str:
    """Mean distance between the two curves over the first labels, with its interval."""
    best, chance = (result.curves[policy][:, 1 : EARLY + 1].mean(1) for policy in POLICIES)
    low, high = np.percentile((best - chance)[draws].mean(1), [2.5, 97.5])
    return f"{100 * (best - chance).mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _span(draws: np.ndarray) -> str:
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"({low:.0f} to {high:.0f})"


def _lengths(most: int) -> list[int]:
    return [n for n in (0, 1, 2, 3, 5, 8, 12, 20, 30, 40, 60) if n <= most]


WIDE, HIGH, EDGE, GAP = 640, 300, 60, 70  # of one panel and the margins around it, in pixels


def picture(results: Sequence[Result]) -> str:
    """The curves as SVG, one panel per world: mean accuracy by labels, with 95 % intervals of the mean over users."""
    panels = "".join(_panel(result, EDGE + number * (HIGH + GAP)) for number, result in enumerate(results))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE + 2 * EDGE}" '
        f'height="{EDGE + len(results) * (HIGH + GAP)}" font-family="sans-serif" font-size="13" fill="#23262b">'
        f'<rect width="100%" height="100%" fill="#fdfcf9"/>{panels}</svg>\n'
    )


def _panel(result: Result, top: int) -> str:
    length = next(iter(result.curves.values())).shape[1] - 1
    start, plateau = result.curves["random"][:, 0].mean(), result.whole.mean()
    low, high = min(start, plateau) - 0.03, max(start, plateau) + 0.03

    def point(n: float, value: float) -> str:
        return f"{EDGE + WIDE * n / length:.1f},{top + HIGH * (high - value) / (high - low):.1f}"

    drawn = [f'<text x="{EDGE}" y="{top - 14}" font-size="15">{result.name}: accuracy by labels given</text>']
    for value in np.arange(np.ceil(low * 20) / 20, high, 0.05):
        drawn.append(
            f'<polyline points="{point(0, value)} {point(length, value)}" stroke="#dcd8ce"/>'
            f'<text x="{EDGE - 8}" y="{point(0, value).partition(",")[2]}" text-anchor="end" dy="4">'
            f"{value:.2f}</text>"
        )
    for n in range(0, length + 1, 10):
        at = point(n, low).partition(",")[0]
        drawn.append(f'<text x="{at}" y="{top + HIGH + 18}" text-anchor="middle">{n}</text>')
    enough = start + SHARE * (plateau - start)
    drawn.append(
        f'<polyline points="{point(0, enough)} {point(length, enough)}" stroke="#7f7f7f" '
        f'stroke-dasharray="5 4"/><text x="{EDGE + WIDE}" y="{point(0, enough).partition(",")[2]}" dy="-5" '
        f'text-anchor="end">{SHARE:.0%} of the gain</text>'
    )
    for number, (policy, colour) in enumerate(POLICIES.items()):
        mean = result.curves[policy].mean(0)
        half = 1.96 * result.curves[policy].std(0) / np.sqrt(len(result.whole))
        edge = [
            *(point(n, value) for n, value in enumerate(mean + half)),
            *(point(n, value) for n, value in reversed(list(enumerate(mean - half)))),
        ]
        drawn.append(
            f'<polygon points="{" ".join(edge)}" fill="{colour}" fill-opacity="0.15"/>'
            f'<polyline points="{" ".join(point(n, value) for n, value in enumerate(mean))}" fill="none" '
            f'stroke="{colour}" stroke-width="2.5"/><text x="{EDGE + WIDE}" '
            f'y="{top + HIGH - 30 + 18 * number}" text-anchor="end" fill="{colour}">{policy}</text>'
        )
    return "".join(drawn)


if __name__ == "__main__":
    sys.exit(main())
