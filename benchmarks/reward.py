"""What people add to the reward model: experts by user against one LoRA for everybody, at the same cost.

    python -m benchmarks.reward [--data FOLDER] [--parts random,prompts,demo] [--backbone minilm|smollm2]
                                [--models copl-reward,uniform,published] [--cuts N] [--budget SECONDS] [--seed N]

``random`` and ``prompts`` read llmfao.jsonl.gz in the folder, or the file that ``--data`` names: 15 % of its labels are
kept from training, or a fifth of its prompts.  Prompts differ so much, and the file has so few, that one cut says
little: with ``--cuts 5`` every prompt is asked about once.  No label is asked in two cuts, and the last line of a part
is over all of them.  All models have the same backbone, the same frozen states (made once,
before any clock runs), the same labels and the same budget of time; user vectors come from a graph fitted to the
training labels alone.  ``published`` is the paper's layer and gate under our schedule: its own, 5e-5 over full depth,
is for other budgets.

``demo`` holds out some simulated people of the demo study.  Once they are placed by their first ten labels, in a model
that never saw them; once the model is trained on those ten labels too.  Both are asked the same later labels, and the
order of all pairs by the taste that the person was given (``truth``: without slips of the hand).

``accelerate launch -m benchmarks.reward …`` runs the same on several graphics cards, ``torchrun`` on several cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from accelerate import PartialState

from copl_core.config import Settings
from copl_core.demo.world import demo_rows, study_prompts, tastes, utility
from copl_core.evaluation.dataset import EvalDataset, build_dataset
from copl_core.formats.own import read_rows
from copl_core.install.weights import resolver
from copl_core.preference.adapt import Prior, adapt
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, ImportRow
from copl_core.reward.backbone import load_backbone
from copl_core.reward.hidden import HiddenCache
from copl_core.reward.model import RewardConfig, RewardModel
from copl_core.trainer.job import text_margins
from copl_core.training.graph_fit import fit_graph
from copl_core.training.metrics import correct, interval, log_losses, measures
from copl_core.training.reward_fit import fit_reward
from copl_core.training.text_embedder import TextEmbedder
from copl_core.training.tune import tuned

ASKED_SHARE = 0.15
MOST_CUTS = {"random": int(1 / ASKED_SHARE), "prompts": 5}
GIVEN = 10  # labels of a new person
LLMFAO = "llmfao.jsonl.gz"
PARTS = ("random", "prompts", "demo")
MODELS = {
    "copl-reward": {},
    "uniform": {"n_experts": 0},
    "published": {"published": True, "gate": "layer", "balance": 0.0, "confidence": 0.0},
}
DESCRIPTION = "What people add to the reward model: experts by user against one LoRA for everybody, at the same cost."
NEWCOMERS = 30
CHUNK = 128  # texts between two savings of their states


class Bench:
    """One backbone and the states of its texts, for every model of a run."""

    def __init__(
        self, settings: Settings, backbone: str, budget: float, seed: int, kept: Path | None, **changes
    ) -> None:
        self.settings, self.budget, self.seed, self.kept = settings, budget, seed, kept
        self.weights = resolver(settings.weights)
        self.config = RewardConfig.for_backbone(backbone, **changes)
        loaded = load_backbone(backbone, self.weights, self.config.last_layers)
        self.cache = HiddenCache(loaded, self.config.max_tokens, settings.device, precision=self.config.precision)
        if kept is not None and kept.is_file():
            self.cache.load(kept)
        self.embedder = TextEmbedder(self.weights("minilm"), cache=settings.cache / "phi")

    def read(self, texts: list[tuple[str, str]]) -> None:
        """Make the states of all texts; a clock that runs afterwards times training alone."""
        started, before = time.monotonic(), self.cache.runs
        for start in range(0, len(texts), CHUNK):
            runs = self.cache.runs
            self.cache.get(texts[start : start + CHUNK])
            if self.kept is not None and self.cache.runs > runs:  # a run that is cut off goes on from here
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                self.cache.save(self.kept)
        if self.cache.runs > before:
            depth = self.cache.backbone.depth - self.config.last_layers
            say(f"{self.cache.runs - before} texts through {depth} frozen layers in {time.monotonic() - started:.0f} s")

    def graph(self, world: EvalDataset) -> GraphState:
        phi = self.embedder.embed(list(world.texts[: world.train.n_responses]))
        return fit_graph(world.train, phi, tuned(world.train, phi, GraphConfig(), seed=self.seed), seed=self.seed)

    def reward(self, world: EvalDataset, vectors: np.ndarray, **changes) -> RewardModel:
        config = replace(self.config, **changes)
        return fit_reward(
            world.train,
            vectors,
            config,
            weights=self.weights,
            seed=self.seed,
            cache=self.cache,
            device=self.settings.device,
            time_budget_s=self.budget or None,
        )


def everybody(world: EvalDataset, graph: GraphState) -> np.ndarray:
    """Vectors (U_all, d): trained rows, and new people placed by the labels given of them."""
    placed, prior = [], Prior.of(graph)
    for user in range(world.train.n_users, len(world.users)):
        placed.append(adapt(graph, world.context.take(world.context.user == user), prior=prior).vector)
    return np.concatenate([graph.user_vectors, np.array(placed, np.float32).reshape(-1, graph.user_vectors.shape[1])])


def logits(model: RewardModel, world: EvalDataset, vectors: np.ndarray) -> np.ndarray:
    """Log-odds (N,) of left for the asked labels, the side nuisance of training included."""
    side = model.metrics["side"] / float(model.calibration)
    return text_margins(model, world.test, vectors, world.texts) + side


@dataclass(frozen=True)
class Answers:
    """What the models of one cut said about the labels that prefer a side."""

    users: np.ndarray  # (N,) names
    right: dict[str, np.ndarray]  # by model, (N,): 1 right, 0 wrong
    loss: dict[str, np.ndarray]  # by model, (N,) log-loss

    @classmethod
    def joined(cls, cuts: list[Answers]) -> Answers:
        columns = [
            {name: np.concatenate([getattr(cut, part)[name] for cut in cuts]) for name in cuts[0].right}
            for part in ("right", "loss")
        ]
        return cls(np.concatenate([cut.users for cut in cuts]), *columns)


def on_labels(bench: Bench, rows: list[ImportRow], split: str, models: list[str], cuts: int) -> None:
    """The first of ``models`` against the others on disjoint cuts of the labels of a file."""
    answers = [on_cut(bench, rows, split, models, number) for number in range(cuts)]
    if cuts > 1:
        compare(f"{split}, {cuts} cuts together", Answers.joined(answers), models, bench.seed)


def drawn(rows: list[ImportRow], split: str, seed: int, number: int) -> np.ndarray:
    """Mask (N,) of the rows that a cut asks; those of two numbers have none in common."""
    rng = np.random.default_rng(seed)
    if split == "random":
        return np.floor(rng.random(len(rows)) / ASKED_SHARE) == number
    prompts = sorted({row.prompt for row in rows})
    asked = {prompts[i] for i in np.array_split(rng.permutation(len(prompts)), MOST_CUTS["prompts"])[number]}
    return np.array([row.prompt in asked for row in rows])


def on_cut(bench: Bench, rows: list[ImportRow], split: str, models: list[str], number: int) -> Answers:
    asked = drawn(rows, split, bench.seed, number)
    learn, ask = ([row for row, out in zip(rows, asked, strict=True) if out == side] for side in (False, True))
    world = build_dataset(learn, ask)
    bench.read(list(world.texts))
    vectors = everybody(world, bench.graph(world))
    decided = world.test.decided
    say(
        f"{split}: {len(world.train.labels)} labels learned, {decided.sum()} that prefer a side asked, "
        f"{(decided & world.new_text).sum()} of these about new texts"
    )
    outcome = world.test.outcome[decided]
    answers = Answers(np.array(world.users)[world.test.user[decided]], {}, {})
    for name in models:
        model = bench.reward(world, vectors[: world.train.n_users], **MODELS[name])
        said = logits(model, world, vectors)
        tell(f"{split} {name}", said, world.test, model)
        answers.right[name], answers.loss[name] = correct(said[decided], outcome), log_losses(said[decided], outcome)
    compare(split, answers, models, bench.seed)
    return answers


def compare(where: str, answers: Answers, models: list[str], seed: int) -> None:
    """Tell how far the first model is ahead of each other one, with intervals of a bootstrap over people."""
    _, user = np.unique(answers.users, return_inverse=True)
    first = models[0]
    for other in models[1:]:
        gain = 100 * (answers.right[first] - answers.right[other])
        less = answers.loss[other] - answers.loss[first]
        (low, high), (least, most) = (interval(column, user, seed) for column in (gain, less))
        say(
            f"{where}: {first} {answers.right[first].mean():.3f}, {other} {answers.right[other].mean():.3f}: "
            f"{gain.mean():+.1f} points, 95 % over people {low:+.1f} to {high:+.1f}; "
            f"log-loss {answers.loss[first].mean():.3f}, {answers.loss[other].mean():.3f}: "
            f"{less.mean():.3f} less, {least:.3f} to {most:.3f}; n {len(gain)}"
        )


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
    for name, world in (
        ("new", build_dataset(others, first + later, GIVEN)),
        ("trained", build_dataset(others + first, later)),
    ):
        bench.read(list(world.texts))
        graph = bench.graph(world)
        vectors = everybody(world, graph)
        model = bench.reward(world, vectors[: world.train.n_users])
        said = logits(model, world, vectors)
        tell(f"demo {name}", said, world.test, model)
        truth = agreement(model, world, vectors, sorted(new), rows)
        say(f"demo {name}: {truth:.3f} of all pairs in the order of the person's taste")
        accuracy[name] = measures(said, world.test.outcome)["accuracy"], truth
    gap = 100 * (np.array(accuracy["new"]) - accuracy["trained"])
    say(
        f"demo: {NEWCOMERS} new people with {GIVEN} labels against trained on those: {gap[0]:+.1f} points on labels, "
        f"{gap[1]:+.1f} on truth"
    )


def agreement(
    model: RewardModel, world: EvalDataset, vectors: np.ndarray, names: list[str], rows: list[ImportRow]
) -> float:
    """Share of pairs that the model orders as the people's tastes do, pairs of equal utility aside."""
    taste_of, prompts = {row.annotator: tastes()[row.true_group] for row in rows}, study_prompts()
    texts = [(prompt.prompt, response.text) for prompt in prompts for response in prompt.responses]
    rewards = model.rewards(texts, vectors[[world.users.index(name) for name in names]])  # (names, texts)
    liked = np.array(
        [
            [utility(taste_of[name], response.style) for prompt in prompts for response in prompt.responses]
            for name in names
        ]
    )
    width = len(prompts[0].responses)
    pairs = [(start + a, start + b) for start in range(0, len(texts), width) for a, b in combinations(range(width), 2)]
    a, b = np.array(pairs).T
    gap, margin = liked[:, a] - liked[:, b], rewards[:, a] - rewards[:, b]
    return float(correct(margin, gap > 0)[np.abs(gap) > 1e-9].mean())


def tell(name: str, said: np.ndarray, labels: Comparisons, model: RewardModel) -> None:
    row, about = measures(said, labels.outcome), model.metrics
    served = (
        f", {about['dead_experts']} experts serve nobody, load entropy {about['load_entropy']:.2f}"
        if model.config.n_experts
        else ""
    )
    say(
        f"{name:<22} accuracy {row['accuracy']:.3f}  log-loss {row['log_loss']:.3f}  n {row['n']:>5}  "
        f"({about['steps']} steps, {about['seconds']:.0f} s{served})"
    )


def say(words: str) -> None:
    if PartialState().is_main_process:
        print(words, flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reward", description=DESCRIPTION)
    parser.add_argument("--data", type=Path, help=f"folder with {LLMFAO}, or a file of labels")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--layers", type=int, help="experts in this many of the last layers")
    parser.add_argument("--checkpoint", action="store_true", help="run layers twice rather than keep activations")
    parser.add_argument("--backbone", default="minilm", help="bundled name, folder or hub id (default minilm)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds a fit; 0: the whole schedule (default 60)")
    parser.add_argument(
        "--cuts", type=int, default=1, help=f"of each part, at most {min(MOST_CUTS.values())} (default 1)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--states", type=Path, help="file to keep the frozen states in, for the next run")
    arguments = parser.parse_args(argv)
    if arguments.data is not None and not arguments.data.exists():
        parser.error(f"--data is {arguments.data}, which is not there; name a folder with files of labels")
    models, parts = _chosen(parser, arguments.models, MODELS), _chosen(parser, arguments.parts, PARTS)
    if not 1 <= arguments.cuts <= min(MOST_CUTS.values()):
        parser.error(f"--cuts is {arguments.cuts}: a whole number from 1 to {min(MOST_CUTS.values())} is needed")
    changes = {"checkpoint": arguments.checkpoint} | ({"last_layers": arguments.layers} if arguments.layers else {})
    bench = Bench(
        Settings.from_environment(), arguments.backbone, arguments.budget, arguments.seed, arguments.states, **changes
    )
    say(
        f"backbone {arguments.backbone}, experts in the last {bench.config.last_layers} of "
        f"{bench.cache.backbone.depth} layers, {arguments.budget:.0f} s a fit, seed {arguments.seed}"
    )
    for part in parts:
        if part == "demo":
            on_demo(bench)
        elif arguments.data is None:
            say(f"Left out: {part}, for want of --data.")
        else:
            path = arguments.data / LLMFAO if arguments.data.is_dir() else arguments.data
            on_labels(
                bench, [row for row in read_rows(path, []) if row.choice is not None], part, models, arguments.cuts
            )
    return 0


def _chosen(parser: argparse.ArgumentParser, said: str, known: Iterable[str]) -> list[str]:
    names = said.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{', '.join(unknown)} is not known: choose from {', '.join(known)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
