"""What people add to the reward model: experts by user against one LoRA for everybody, at the same cost.

    python -m benchmarks.reward --data FILE [--backbone minilm|smollm2] [--split random|prompts|both] [--budget SECONDS]
    python -m benchmarks.reward --demo [--backbone minilm|smollm2]

With ``--data``, labels of FILE (JSONL, also .gz) are cut at random, 85 to 15 in the hundred, or a fifth of the prompts
is kept from training.  Both models have the same backbone, the same frozen states (made once, before either clock
runs), the same labels and the same budget of time; user vectors come from a graph fitted to the training labels alone.

With ``--demo``, some simulated people of the demo study are held out.  Once they are placed by their first ten labels,
in a model that never saw them; once the model is trained on those ten labels too.  Both are asked the same later
labels, and the order of all pairs by the taste that the person was given (``truth``: without slips of the hand).

``accelerate launch -m benchmarks.reward …`` runs the same on several graphics cards, ``torchrun`` on several cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from accelerate import PartialState

from copl_core.config import Settings
from copl_core.demo.world import demo_rows, study_prompts, tastes, utility
from copl_core.files import read_rows
from copl_core.preference.adapt import Prior, adapt
from copl_core.preference.state import GraphConfig, GraphState
from copl_core.records import Comparisons, ImportRow
from copl_core.reward.backbone import load_backbone
from copl_core.reward.hidden import HiddenCache
from copl_core.reward.model import RewardConfig, RewardModel
from copl_core.training.fit import text_margins
from copl_core.training.graph_fit import fit_graph
from copl_core.training.metrics import figures, interval, right
from copl_core.training.phi import TextEmbedder
from copl_core.training.reward_fit import fit_reward
from copl_core.training.tune import tuned
from copl_core.training.world import World, build_world, only_new_prompts
from copl_core.weights import resolver

ASKED_SHARE = 0.15
GIVEN = 10  # labels of a new person
NEWCOMERS = 30


class Bench:
    """One backbone and the states of its texts, for every model of a run."""

    def __init__(self, settings: Settings, backbone: str, budget: float, seed: int, kept: Path | None) -> None:
        self.settings, self.budget, self.seed, self.kept = settings, budget, seed, kept
        self.weights = resolver(settings.weights)
        self.config = RewardConfig.for_backbone(backbone)
        loaded = load_backbone(backbone, self.weights, self.config.last_layers)
        self.cache = HiddenCache(loaded, self.config.max_tokens, settings.device, precision=self.config.precision)
        if kept is not None and kept.is_file():
            self.cache.load(kept)
        self.embedder = TextEmbedder(self.weights("minilm"), cache=settings.cache / "phi")

    def read(self, texts: list[tuple[str, str]]) -> None:
        """Make the states of all texts; a clock that runs afterwards times training alone."""
        started, before = time.monotonic(), self.cache.runs
        self.cache.get(texts)
        if self.cache.runs > before:
            depth = self.cache.backbone.depth - self.config.last_layers
            say(f"{self.cache.runs - before} texts through {depth} frozen layers in {time.monotonic() - started:.0f} s")
            if self.kept is not None:
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                self.cache.save(self.kept)

    def graph(self, world: World) -> GraphState:
        phi = self.embedder.embed(list(world.texts[:world.train.n_responses]))
        return fit_graph(world.train, phi, tuned(world.train, phi, GraphConfig(), seed=self.seed), seed=self.seed)

    def reward(self, world: World, vectors: np.ndarray, n_experts: int) -> RewardModel:
        config = RewardConfig.for_backbone(self.config.backbone, n_experts=n_experts)
        return fit_reward(world.train, vectors, config, weights=self.weights, seed=self.seed, cache=self.cache,
                          device=self.settings.device, time_budget_s=self.budget or None)


def everybody(world: World, graph: GraphState) -> np.ndarray:
    """Vectors (U_all, d): trained rows, and new people placed by the labels given of them."""
    placed, prior = [], Prior.of(graph)
    for user in range(world.train.n_users, len(world.users)):
        placed.append(adapt(graph, world.context.take(world.context.user == user), prior=prior).vector)
    return np.concatenate([graph.user_vectors, np.array(placed, np.float32).reshape(-1, graph.user_vectors.shape[1])])


def logits(model: RewardModel, world: World, vectors: np.ndarray) -> np.ndarray:
    """Log-odds (N,) of left for the asked labels, the side nuisance of training included."""
    side = model.metrics["side"] / float(model.calibration)
    return text_margins(model, world.asked, vectors, world.texts) + side


def on_labels(bench: Bench, rows: list[ImportRow], split: str) -> None:
    """Experts against uniform on one split of the labels of a file."""
    if split == "random":
        asked = np.random.default_rng(bench.seed).random(len(rows)) < ASKED_SHARE
        learn, ask = ([row for row, out in zip(rows, asked, strict=True) if out == side] for side in (False, True))
    else:
        learn, ask = only_new_prompts(rows, rows, bench.seed, same=True)
    world = build_world(learn, ask)
    bench.read(list(world.texts))
    vectors = everybody(world, bench.graph(world))
    decided = world.asked.decided
    say(f"{split}: {len(world.train.labels)} labels learned, {decided.sum()} that prefer a side asked, "
        f"{(decided & world.new_text).sum()} of these about new texts")
    said = {}
    for name, n_experts in (("uniform", 0), ("copl-reward", bench.config.n_experts)):
        model = bench.reward(world, vectors[:world.train.n_users], n_experts)
        said[name] = logits(model, world, vectors)
        tell(f"{split} {name}", said[name], world.asked, model)
    hits = [right(said[name], world.asked.outcome)[decided] for name in ("copl-reward", "uniform")]
    low, high = interval(hits[0] - hits[1], world.asked.user[decided], bench.seed)
    say(f"{split}: experts gain {100 * (hits[0] - hits[1]).mean():+.1f} points, 95 % over users "
        f"{100 * low:+.1f} to {100 * high:+.1f}")


def on_demo(bench: Bench) -> None:
    """New people with ten labels against the same people trained on those ten."""
    rows = [row for row in demo_rows() if row.choice is not None]
    counts = {name: sum(row.annotator == name for row in rows) for name in {row.annotator for row in rows}}
    many = sorted(name for name in counts if counts[name] > GIVEN)
    new = set(np.random.default_rng(bench.seed).choice(many, NEWCOMERS, replace=False).tolist())
    others, theirs = ([row for row in rows if (row.annotator in new) == side] for side in (False, True))
    first, later = [], []
    for row in theirs:
        (first if sum(one.annotator == row.annotator for one in first) < GIVEN else later).append(row)
    accuracy = {}
    for name, world in (("new", build_world(others, first + later, GIVEN)),
                        ("trained", build_world(others + first, later))):
        bench.read(list(world.texts))
        graph = bench.graph(world)
        vectors = everybody(world, graph)
        model = bench.reward(world, vectors[:world.train.n_users], bench.config.n_experts)
        said = logits(model, world, vectors)
        tell(f"demo {name}", said, world.asked, model)
        truth = agreement(model, world, vectors, sorted(new), rows)
        say(f"demo {name}: {truth:.3f} of all pairs in the order of the person's taste")
        accuracy[name] = figures(said, world.asked)["accuracy"], truth
    gap = 100 * (np.array(accuracy["new"]) - accuracy["trained"])
    say(f"demo: {NEWCOMERS} new people with {GIVEN} labels against trained on those: {gap[0]:+.1f} points on labels, "
        f"{gap[1]:+.1f} on truth")


def agreement(model: RewardModel, world: World, vectors: np.ndarray, names: list[str], rows: list[ImportRow]) -> float:
    """Share of pairs that the model orders as the people's tastes do, pairs of equal utility aside."""
    taste_of, prompts = {row.annotator: tastes()[row.taste] for row in rows}, study_prompts()
    texts = [(prompt.prompt, response.text) for prompt in prompts for response in prompt.responses]
    rewards = model.rewards(texts, vectors[[world.users.index(name) for name in names]])  # (names, texts)
    liked = np.array([[utility(taste_of[name], response.style) for prompt in prompts for response in prompt.responses]
                      for name in names])
    width = len(prompts[0].responses)
    pairs = [(start + a, start + b) for start in range(0, len(texts), width) for a, b in combinations(range(width), 2)]
    a, b = np.array(pairs).T
    gap, margin = liked[:, a] - liked[:, b], rewards[:, a] - rewards[:, b]
    return float(right(margin, gap > 0)[np.abs(gap) > 1e-9].mean())


def tell(name: str, said: np.ndarray, labels: Comparisons, model: RewardModel) -> None:
    row, about = figures(said, labels), model.metrics
    served = f", {about['dead_experts']} experts serve nobody, load entropy {about['load_entropy']:.2f}" \
        if model.config.n_experts else ""
    say(f"{name:<22} accuracy {row['accuracy']:.3f}  log-loss {row['log_loss']:.3f}  n {row['n']:>5}  "
        f"({about['steps']} steps, {about['seconds']:.0f} s{served})")


def say(words: str) -> None:
    if PartialState().is_main_process:
        print(words, flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reward", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="file of labels")
    parser.add_argument("--demo", action="store_true", help="new people on the demo study")
    parser.add_argument("--backbone", default="minilm", help="bundled name, folder or hub id (default minilm)")
    parser.add_argument("--split", choices=("random", "prompts", "both"), default="both")
    parser.add_argument("--budget", type=float, default=90.0, help="seconds a fit; 0: the whole schedule (default 90)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--states", type=Path, help="file to keep the frozen states in, for the next run")
    arguments = parser.parse_args(argv)
    if not arguments.demo and arguments.data is None:
        parser.error("give --data FILE or --demo")
    bench = Bench(Settings.from_environment(), arguments.backbone, arguments.budget, arguments.seed, arguments.states)
    say(f"backbone {arguments.backbone}, experts in the last {bench.config.last_layers} of "
        f"{bench.cache.backbone.depth} layers, {arguments.budget:.0f} s a fit, seed {arguments.seed}")
    if arguments.demo:
        on_demo(bench)
    if arguments.data is not None:
        rows = [row for row in read_rows(arguments.data, []) if row.choice is not None]
        for split in ("random", "prompts") if arguments.split == "both" else (arguments.split,):
            on_labels(bench, rows, split)
    return 0


if __name__ == "__main__":
    sys.exit(main())
