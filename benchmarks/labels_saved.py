"""How many labels a new person needs until the model knows them: the most informative pairs against random ones.

    python -m benchmarks.labels_saved [--people N] [--data FOLDER]

A graph is fitted to the labels of other people.  Each new person answers one pair after another and is placed anew by
each answer, as in the product; their place is asked of pairs that they never answer on the way.  They are run twice:
handed the most informative of their open pairs each time, and handed a random one.  A pair that is answered in both
runs has the same answer in both.

"Knows them" is 90 % of the way from the accuracy without any label (the population mean) to the plateau, the accuracy
with all the labels a person could give.  Curves are means over the new people, and the intervals resample those people.

Two worlds: the demo study, whose people are simulated, and (with ``--data``) residents' votes on civic statements
(``polis_bowling_green.jsonl.gz``), where an answer can only be drawn from what the person really said: their own
labels of the split "train", asked of their own labels of the split "test", which share no statement with the former.
The residents are new in turns: those with the most labels are dealt into parts, and each part is new to a graph fitted
to all the others.

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
from copl_core.evaluation.dataset import TEST, EvalDataset, build_dataset
from copl_core.formats.own import read_rows
from copl_core.preference.acquire import informative
from copl_core.preference.adapt import Prior, adapt
from copl_core.preference.state import GraphConfig, GraphState
from copl_core.records import Comparisons, ImportRow
from copl_core.training.metrics import correct

DESCRIPTION = "labels a new person needs: most informative pairs against random ones"
FIGURE = Path(__file__).with_name("labels_saved.svg")
POLIS = "polis_bowling_green.jsonl.gz"
SHARE = 0.9  # of the plateau's gain
EARLY = 20  # labels over which the two are compared besides
PARTS = 2  # of the residents
RESAMPLES = 2000
ANSWERS = 60  # of a simulated person at most; a resident's labels end sooner
POLICIES = {"most informative": "#0072b2", "random": "#e69f00"}


@dataclass(frozen=True)
class Newcomer:
    """One new person: what they could be asked with what they would answer, and what the model is asked about them."""

    pool: Comparisons
    asked: Comparisons


@dataclass(frozen=True)
class Result:
    """One world's curves: accuracy (people, labels + 1) for each policy, and with the whole pool (people,)."""

    name: str
    curves: dict[str, np.ndarray]
    whole: np.ndarray

    def needed(self, policy: str, people: np.ndarray) -> int:
        """Labels until the mean over these people reaches the share of the plateau's gain; a curve that does not is
        counted as one label longer than it is.
        """
        start = self.curves[policy][people, 0].mean()
        enough = start + SHARE * (self.whole[people].mean() - start)
        reached = self.curves[policy][people].mean(0) >= enough
        return int(reached.argmax()) if reached.any() else len(reached)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels_saved", description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=300, help="new people of each graph")
    parser.add_argument("--data", type=Path, help=f"folder with {POLIS}")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    results = [run("demo study (simulated people)", [demo_world(arguments.people, arguments.seed)], arguments.seed)]
    path = None if arguments.data is None else arguments.data / POLIS
    if path is None or not path.is_file():
        print(f"The residents' votes are left out: --data FOLDER with {POLIS} is needed for them.")
    else:
        results.append(run("residents' votes", polis_worlds(path, arguments.people, arguments.seed), arguments.seed))
    for result in results:
        print(table(result, arguments.seed))
    FIGURE.write_text(picture(results))
    print(f"The curves are in {FIGURE.name}.")
    return 0


# ---- worlds


def demo_world(people: int, seed: int) -> tuple[EvalDataset, list[Newcomer]]:
    """The demo study to learn from; new people of its tastes in equal numbers, with one answer to each of its pairs.

    A random third of the pairs is what the model is asked about, the others can be handed out.
    """
    rng = np.random.default_rng([seed, 1])
    tastes = list(demo.tastes().values())
    pairs = [
        (prompt, a, b) for prompt in demo.study_prompts() for a, b in combinations(range(demo.RESPONSES_PER_PROMPT), 2)
    ]
    said = [
        _demo_answer(f"new-{person:03d}", tastes[person % len(tastes)], *pair, rng)
        for person in range(people)
        for pair in pairs
    ]
    world = build_dataset(demo.demo_rows(seed), said)
    kept = np.concatenate([rng.permutation(len(pairs)) < len(pairs) // 3 for _ in range(people)])
    return world, _newcomers(world.test, kept)


def _demo_answer(
    name: str, taste: demo.Taste, prompt: demo.DemoPrompt, a: int, b: int, rng: np.random.Generator
) -> ImportRow:
    if rng.random() < 0.5:
        a, b = b, a
    first, second = prompt.responses[a], prompt.responses[b]
    gap = demo.utility(taste, first.style) - demo.utility(taste, second.style)
    return ImportRow(0, prompt.prompt, first.text, second.text, demo.answer(gap, rng), name)


def polis_worlds(path: Path, people: int, seed: int) -> Iterator[tuple[EvalDataset, list[Newcomer]]]:
    """Residents' votes, once for each part of those who gave the most labels."""
    problems: list[tuple[int, str]] = []
    rows = list(read_rows(path, problems))
    given: dict[str, int] = {}
    for row in rows:
        given[row.annotator] = given.get(row.annotator, 0) + (row.split != TEST)
    full = sorted(name for name, count in given.items() if count == max(given.values()))
    for part in np.array_split(np.random.default_rng([seed, 2]).permutation(full), PARTS):
        new = set(part[:people].tolist())
        theirs = [row for row in rows if row.annotator in new]
        world = build_dataset([row for row in rows if row.annotator not in new], theirs)
        yield world, _newcomers(world.test, np.array([row.split == TEST for row in theirs]))


def _newcomers(labels: Comparisons, kept: np.ndarray) -> list[Newcomer]:
    people = [
        Newcomer(labels.take(mine & ~kept), labels.take(mine & kept & labels.decided))
        for mine in (labels.user == user for user in np.unique(labels.user))
    ]
    return [person for person in people if len(person.asked)]


# ---- one world


def run(name: str, worlds: Iterable[tuple[EvalDataset, list[Newcomer]]], seed: int) -> Result:
    """Both policies for every new person of every world, with the same random numbers for the same person."""
    curves, whole = {policy: [] for policy in POLICIES}, []
    for world, people in worlds:
        started = time.monotonic()
        state = fit(world, seed)
        prior = Prior.of(state)
        for number, person in enumerate(people):
            length = min(ANSWERS, min(len(one.pool) for one in people))
            for policy, found in curves.items():
                found.append(curve(state, prior, person, policy, length, np.random.default_rng([seed, 3, number])))
            whole.append(accuracy(state, adapt(state, person.pool, prior=prior).vector, person))
        print(
            f"{name}: {len(people)} new people after {world.train.n_users:,} known ones with "
            f"{len(world.train.labels):,} labels; {time.monotonic() - started:.0f} s",
            flush=True,
        )
    length = min(len(one) for found in curves.values() for one in found)
    return Result(
        name, {policy: np.array([one[:length] for one in found]) for policy, found in curves.items()}, np.array(whole)
    )


def fit(world: EvalDataset, seed: int) -> GraphState:
    """The graph as the trainer fits it."""
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
    state: GraphState, prior: Prior, person: Newcomer, policy: str, length: int, rng: np.random.Generator
) -> np.ndarray:
    """Accuracy (length + 1,) after 0, 1, … labels of one person."""
    pool = person.pool
    pairs = np.column_stack([pool.left, pool.right])
    chosen, left, found = [], np.arange(len(pool)), []
    for number in range(length + 1):
        place = adapt(state, pool.take(np.array(chosen, np.int64)), prior=prior)
        found.append(accuracy(state, place.vector, person))
        if number < length:
            best = rng.integers(len(left)) if policy == "random" else np.argmax(informative(state, place, pairs[left]))
            chosen.append(left[best])
            left = np.delete(left, best)
    return np.array(found)


def accuracy(state: GraphState, vector: np.ndarray, person: Newcomer) -> float:
    """Share of the asked labels foreseen; a label without a forecast either way counts half."""
    margins = state.margins(person.asked, np.tile(vector, (len(person.asked), 1)))
    return float(correct(margins, person.asked.outcome).mean())


# ---- what came out


def table(result: Result, seed: int) -> str:
    """Labels needed and saved, with 95 % intervals over people, and the curves at some lengths."""
    draws = np.random.default_rng(seed).integers(len(result.whole), size=(RESAMPLES, len(result.whole)))
    everybody = np.arange(len(result.whole))
    needed = {
        policy: (result.needed(policy, everybody), np.array([result.needed(policy, draw) for draw in draws]))
        for policy in POLICIES
    }
    (best, best_draws), (chance, chance_draws) = needed.values()
    start, length = result.curves["random"][:, 0].mean(), result.curves["random"].shape[1] - 1
    lines = [
        f"{result.name}: accuracy {start:.3f} without labels, {result.whole.mean():.3f} with all of a person's",
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
    """How far the one curve lies above the other, label by label, with the interval."""
    best, chance = (result.curves[policy][:, 1 : EARLY + 1].mean(1) for policy in POLICIES)
    low, high = np.percentile((best - chance)[draws].mean(1), [2.5, 97.5])
    return f"{100 * (best - chance).mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _span(draws: np.ndarray) -> str:
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"({low:.0f} to {high:.0f})"


def _lengths(most: int) -> list[int]:
    return [n for n in (0, 1, 2, 3, 5, 8, 12, 20, 30, 40, 60) if n <= most]


WIDE, HIGH, EDGE, GAP = 640, 300, 60, 70  # of one panel and the room around it, in pixels


def picture(results: Sequence[Result]) -> str:
    """The curves as SVG, one panel a world: mean accuracy by labels, with 95 % intervals of the mean over people."""
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
    for place, (policy, colour) in enumerate(POLICIES.items()):
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
            f'y="{top + HIGH - 30 + 18 * place}" text-anchor="end" fill="{colour}">{policy}</text>'
        )
    return "".join(drawn)


if __name__ == "__main__":
    sys.exit(main())
