"""What personalisation adds to the reward model: experts selected by user against one LoRA for all, at the same cost.

    python -m benchmarks.reward [--data FOLDER] [--parts random,prompts,demo] [--backbone minilm|smollm2]
                                [--models copl-reward,uniform,published] [--cuts N] [--budget SECONDS] [--seed N]

``random`` and ``prompts`` read llmfao.jsonl.gz in the folder, or the file that ``--data`` names.  They hold out 15 % of
its labels, or a fifth of its prompts.  The file has few prompts, and they differ much, so a single cut is not reliable:
with ``--cuts 5`` every prompt is held out once.  No label is a test label in two cuts, and the last line of a part
covers all cuts.  All models have the same backbone, the same frozen states (computed before the time is measured), the
same labels and the same time budget.  User vectors come from a graph that is fitted to the training labels only.
``published`` is the paper's layer and gate with our schedule, since the paper's schedule (5e-5, all layers) needs other
budgets.

``demo`` holds out some simulated users of the demo study.  In one case their vectors come from their first ten labels,
in a model that never saw them; in the other the model is trained on those ten labels too.  Both cases are tested on the
same later labels, and on the order of all pairs under the user's simulated utility (``truth``, without label noise).

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

TEST_SHARE = 0.15
MOST_CUTS = {"random": int(1 / TEST_SHARE), "prompts": 5}
CONTEXT = 10  # labels of a new user
LLMFAO = "llmfao.jsonl.gz"
PARTS = ("random", "prompts", "demo")
MODELS = {
    "copl-reward": {},
    "uniform": {"n_experts": 0},
    "published": {"published": True, "gate": "layer", "balance": 0.0, "confidence": 0.0},
}
DESCRIPTION = "What personalisation adds to the reward model: experts selected by user against one LoRA for all."
N_NEW = 30  # held-out users of the demo
CHUNK = 128  # texts between two writes of their states


class Bench:
    """One backbone and the hidden states of all texts, for all models of a run."""

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
        """Compute the states of all texts, so that times measured afterwards are those of training only."""
        started, before = time.monotonic(), self.cache.runs
        for start in range(0, len(texts), CHUNK):
            runs = self.cache.runs
            self.cache.get(texts[start : start + CHUNK])
            if self.kept is not None and self.cache.runs > runs:  # an interrupted run resumes from here
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                self.cache.save(self.kept)
        if self.cache.runs > before:
            depth = self.cache.backbone.depth - self.config.last_layers
            report(
                f"{self.cache.runs - before} texts through {depth} frozen layers in {time.monotonic() - started:.0f} s"
            )

    def graph(self, dataset: EvalDataset) -> GraphState:
        phi = self.embedder.embed(list(dataset.texts[: dataset.train.n_responses]))
        return fit_graph(dataset.train, phi, tuned(dataset.train, phi, GraphConfig(), seed=self.seed), seed=self.seed)

    def reward(self, dataset: EvalDataset, vectors: np.ndarray, **changes) -> RewardModel:
        config = replace(self.config, **changes)
        return fit_reward(
            dataset.train,
            vectors,
            config,
            weights=self.weights,
            seed=self.seed,
            cache=self.cache,
            device=self.settings.device,
            time_budget_s=self.budget or None,
        )


def all_vectors(dataset: EvalDataset, graph: GraphState) -> np.ndarray:
    """Vectors (U_all, d): those of trained users, then those of new users from their context labels."""
    adapted, prior = [], Prior.of(graph)
    for user in range(dataset.train.n_users, len(dataset.users)):
        adapted.append(adapt(graph, dataset.context.take(dataset.context.user == user), prior=prior).vector)
    return np.concatenate([graph.user_vectors, np.array(adapted, np.float32).reshape(-1, graph.user_vectors.shape[1])])


def logits(model: RewardModel, dataset: EvalDataset, vectors: np.ndarray) -> np.ndarray:
    """Log-odds (N,) of left for the test labels, with the position bias learned in training where it applies."""
    side = model.metrics["side"] / float(model.calibration) * dataset.test.position_known
    return text_margins(model, dataset.test, vectors, dataset.texts) + side


@dataclass(frozen=True)
class Scores:
    """The scores of the models on the decided test labels of one cut."""

    users: np.ndarray  # (N,) names
    correct: dict[str, np.ndarray]  # by model, (N,): 1 right, 0 wrong
    loss: dict[str, np.ndarray]  # by model, (N,) log-loss

    @classmethod
    def joined(cls, cuts: list[Scores]) -> Scores:
        columns = [
            {name: np.concatenate([getattr(cut, part)[name] for cut in cuts]) for name in cuts[0].correct}
            for part in ("correct", "loss")
        ]
        return cls(np.concatenate([cut.users for cut in cuts]), *columns)


def on_labels(bench: Bench, rows: list[ImportRow], split: str, models: list[str], cuts: int) -> None:
    """Compare the first of ``models`` with the others on disjoint cuts of the labels of a file."""
    scores = [on_cut(bench, rows, split, models, number) for number in range(cuts)]
    if cuts > 1:
        compare(f"{split}, {cuts} cuts together", Scores.joined(scores), models, bench.seed)


def held_out_rows(rows: list[ImportRow], split: str, seed: int, number: int) -> np.ndarray:
    """Mask (N,) of the test rows of a cut; two cuts have no test row in common."""
    rng = np.random.default_rng(seed)
    if split == "random":
        return np.floor(rng.random(len(rows)) / TEST_SHARE) == number
    prompts = sorted({row.prompt for row in rows})
    test = {prompts[i] for i in np.array_split(rng.permutation(len(prompts)), MOST_CUTS["prompts"])[number]}
    return np.array([row.prompt in test for row in rows])


def on_cut(bench: Bench, rows: list[ImportRow], split: str, models: list[str], number: int) -> Scores:
    """Fit and test all models on one cut, and compare them."""
    mask = held_out_rows(rows, split, bench.seed, number)
    train, test = (
        [row for row, held_out in zip(rows, mask, strict=True) if held_out == part] for part in (False, True)
    )
    dataset = build_dataset(train, test)
    bench.read(list(dataset.texts))
    vectors = all_vectors(dataset, bench.graph(dataset))
    decided = dataset.test.decided
    report(
        f"{split}: {len(dataset.train.labels)} training labels, {decided.sum()} decided test labels, "
        f"{(decided & dataset.new_text).sum()} of these about new texts"
    )
    outcome = dataset.test.outcome[decided]
    scores = Scores(np.array(dataset.users)[dataset.test.user[decided]], {}, {})
    for name in models:
        model = bench.reward(dataset, vectors[: dataset.train.n_users], **MODELS[name])
        predicted = logits(model, dataset, vectors)
        report_model(f"{split} {name}", predicted, dataset.test, model)
        scores.correct[name] = correct(predicted[decided], outcome)
        scores.loss[name] = log_losses(predicted[decided], outcome)
    compare(split, scores, models, bench.seed)
    return scores


def compare(where: str, scores: Scores, models: list[str], seed: int) -> None:
    """Report the lead of the first model over each other one, with intervals by a bootstrap over users."""
    _, user = np.unique(scores.users, return_inverse=True)
    first = models[0]
    for other in models[1:]:
        gain = 100 * (scores.correct[first] - scores.correct[other])
        less = scores.loss[other] - scores.loss[first]
        (low, high), (least, most) = (interval(column, user, seed) for column in (gain, less))
        report(
            f"{where}: {first} {scores.correct[first].mean():.3f}, {other} {scores.correct[other].mean():.3f}: "
            f"{gain.mean():+.1f} points, 95 % over users {low:+.1f} to {high:+.1f}; "
            f"log-loss {scores.loss[first].mean():.3f}, {scores.loss[other].mean():.3f}: "
            f"{less.mean():.3f} less, {least:.3f} to {most:.3f}; n {len(gain)}"
        )


def on_demo(bench: Bench) -> None:
    """Compare new users with ten labels to the same users trained on those ten."""
    rows = [row for row in demo_rows() if row.choice is not None]
    counts = {name: sum(row.annotator == name for row in rows) for name in {row.annotator for row in rows}}
    many = sorted(name for name in counts if counts[name] > CONTEXT)
    new = set(np.random.default_rng(bench.seed).choice(many, N_NEW, replace=False).tolist())
    others, theirs = ([row for row in rows if (row.annotator in new) == side] for side in (False, True))
    first, later = [], []
    for row in theirs:
        (first if sum(one.annotator == row.annotator for one in first) < CONTEXT else later).append(row)
    accuracy = {}
    for name, dataset in (
        ("new", build_dataset(others, first + later, CONTEXT)),
        ("trained", build_dataset(others + first, later)),
    ):
        bench.read(list(dataset.texts))
        graph = bench.graph(dataset)
        vectors = all_vectors(dataset, graph)
        model = bench.reward(dataset, vectors[: dataset.train.n_users])
        predicted = logits(model, dataset, vectors)
        report_model(f"demo {name}", predicted, dataset.test, model)
        truth = agreement(model, dataset, vectors, sorted(new), rows)
        report(f"demo {name}: {truth:.3f} of all pairs in the order of the user's simulated utility")
        accuracy[name] = measures(predicted, dataset.test.outcome)["accuracy"], truth
    gap = 100 * (np.array(accuracy["new"]) - accuracy["trained"])
    report(
        f"demo: {N_NEW} new users with {CONTEXT} labels against trained on those: {gap[0]:+.1f} points on labels, "
        f"{gap[1]:+.1f} on truth"
    )


def agreement(
    model: RewardModel, dataset: EvalDataset, vectors: np.ndarray, names: list[str], rows: list[ImportRow]
) -> float:
    """Share of pairs that the model orders as the users' utilities do, without pairs of equal utility."""
    weights_of, prompts = {row.annotator: tastes()[row.true_group] for row in rows}, study_prompts()
    texts = [(prompt.prompt, response.text) for prompt in prompts for response in prompt.responses]
    rewards = model.rewards(texts, vectors[[dataset.users.index(name) for name in names]])  # (names, texts)
    utilities = np.array(
        [
            [utility(weights_of[name], response.style) for prompt in prompts for response in prompt.responses]
            for name in names
        ]
    )
    width = len(prompts[0].responses)
    pairs = [(start + a, start + b) for start in range(0, len(texts), width) for a, b in combinations(range(width), 2)]
    a, b = np.array(pairs).T
    gap, margin = utilities[:, a] - utilities[:, b], rewards[:, a] - rewards[:, b]
    return float(correct(margin, gap > 0)[np.abs(gap) > 1e-9].mean())


def report_model(name: str, predicted: np.ndarray, labels: Comparisons, model: RewardModel) -> None:
    row, about = measures(predicted, labels.outcome), model.metrics
    experts = (
        f", {about['dead_experts']} dead experts, load entropy {about['load_entropy']:.2f}"
        if model.config.n_experts
        else ""
    )
    report(
        f"{name:<22} accuracy {row['accuracy']:.3f}  log-loss {row['log_loss']:.3f}  n {row['n']:>5}  "
        f"({about['steps']} steps, {about['seconds']:.0f} s{experts})"
    )


def report(line: str) -> None:
    """Print a line, in the first of several processes."""
    if PartialState().is_main_process:
        print(line, flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reward", description=DESCRIPTION)
    parser.add_argument("--data", type=Path, help=f"folder with {LLMFAO}, or a file of labels")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--layers", type=int, help="number of the last layers that have experts")
    parser.add_argument("--checkpoint", action="store_true", help="run layers twice instead of storing activations")
    parser.add_argument("--backbone", default="minilm", help="bundled name, folder or hub id (default minilm)")
    parser.add_argument(
        "--budget", type=float, default=60.0, help="seconds per fit; 0: the whole schedule (default 60)"
    )
    parser.add_argument("--cuts", type=int, default=1, help=f"per part, at most {min(MOST_CUTS.values())} (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--states", type=Path, help="file that stores the frozen states for the next run")
    arguments = parser.parse_args(argv)
    if arguments.data is not None and not arguments.data.exists():
        parser.error(f"--data is {arguments.data}, which does not exist; name a folder with files of labels")
    models, parts = _chosen(parser, arguments.models, MODELS), _chosen(parser, arguments.parts, PARTS)
    if not 1 <= arguments.cuts <= min(MOST_CUTS.values()):
        parser.error(f"--cuts is {arguments.cuts}: it must be a whole number from 1 to {min(MOST_CUTS.values())}")
    changes = {"checkpoint": arguments.checkpoint} | ({"last_layers": arguments.layers} if arguments.layers else {})
    bench = Bench(
        Settings.from_environment(), arguments.backbone, arguments.budget, arguments.seed, arguments.states, **changes
    )
    report(
        f"backbone {arguments.backbone}, experts in the last {bench.config.last_layers} of "
        f"{bench.cache.backbone.depth} layers, {arguments.budget:.0f} s per fit, seed {arguments.seed}"
    )
    for part in parts:
        if part == "demo":
            on_demo(bench)
        elif arguments.data is None:
            report(f"Skipped: {part}, which needs --data.")
        else:
            path = arguments.data / LLMFAO if arguments.data.is_dir() else arguments.data
            on_labels(
                bench, [row for row in read_rows(path, []) if row.choice is not None], part, models, arguments.cuts
            )
    return 0


def _chosen(parser: argparse.ArgumentParser, value: str, known: Iterable[str]) -> list[str]:
    names = value.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{', '.join(unknown)} is not known: choose from {', '.join(known)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
