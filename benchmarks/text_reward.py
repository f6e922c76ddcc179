"""Which part of the text reward earns its place, on texts that nobody has labelled.

    python -m benchmarks.text_reward --data FOLDER [--columns NAME,…] [--splits N] [--rows NAME,…] [--backbone NAME]

Each row is one form of the text reward; ``--rows`` prints some of them.  ``uniform`` is one reward for everybody inside
the backbone, ``experts`` the mixture of LoRA experts, with one, two or all experts per user, or with a gate that sees
the prompt; the others are linear in the text embedding, without a backbone.  All of them, and the graph beside them,
learn from the same labels: those of the training part that a full run does not hold out.  ``copl (served)`` is a full
run, whose graph learns from all labels of the training part.  Leads are over the first row, with 95 % intervals from a
bootstrap over users.  The column ``demo-new-prompts`` needs no file: its people are simulated.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.memory import fit_memory
from benchmarks.quality import COLUMNS, TEST, TRAIN, new_prompts
from copl_core.config import Settings
from copl_core.demo.world import demo_rows
from copl_core.evaluation.dataset import EvalDataset, build_dataset
from copl_core.evaluation.peers import uniform_reward
from copl_core.evaluation.studio_fit import ExtendedGraph, StudioFit, extend_graph
from copl_core.formats.own import read_rows
from copl_core.install.weights import resolver
from copl_core.preference.adapt import label_weights
from copl_core.preference.state import GraphState
from copl_core.reward.hidden import states_folder
from copl_core.reward.linear import LinearConfig, LinearReward, of_differences
from copl_core.reward.model import RewardConfig
from copl_core.trainer.job import text_margins
from copl_core.training.linear_fit import fit_linear
from copl_core.training.metrics import correct, interval, log_losses
from copl_core.training.reward_fit import fit_reward
from copl_core.training.text_embedder import installed_embedder

DESCRIPTION = "Forms of the text reward on texts that nobody has labelled"
DEMO = "demo-new-prompts"
DEMO_CUTS = 3
COLUMNS_MEASURED = ("polis_more-new-texts", "remesh-new-texts", "llmfao-new-prompts")
LINEAR = {
    "linear: what all like": {"graph": 0.0, "own": 0.0},
    "linear: and own labels": {"graph": 0.0},
    "linear: and the graph": {"own": 0.0},
    "linear: all three": {},
}
EXPERTS: dict[str, dict] = {
    "experts: top-1 (served)": {},
    "experts: top-2": {"routing": "top2"},
    "experts: soft": {"routing": "soft"},
    "experts: prompt-seeing gate": {"gate_input": "user+prompt"},
}
CHOSEN = "linear: priors chosen (served)"
MEMORY = "memory: left out in training"
ROWS = ("uniform", *EXPERTS, *LINEAR, MEMORY, CHOSEN, "graph", "copl (served)")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_reward", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with files of labels; missing ones are skipped")
    parser.add_argument("--columns", default=",".join(COLUMNS_MEASURED), help="columns of benchmarks.quality")
    parser.add_argument(
        "--splits", type=int, default=0, help="splits of each column (default: 3 of small files, else 1)"
    )
    parser.add_argument(
        "--rows", default=",".join(ROWS), help="some of the rows, the first of which the others are compared with"
    )
    parser.add_argument("--backbone", default="minilm", help="of uniform and experts")
    parser.add_argument(
        "--seconds", type=float, default=3000, help="time after which the training of a backbone is cut"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    rows, columns = arguments.rows.split(","), arguments.columns.split(",")
    if unknown := [*(set(rows) - set(ROWS)), *(set(columns) - {*COLUMNS, DEMO})]:
        parser.error(f"{unknown[0]!r} is not known; rows are {', '.join(ROWS)}; columns {', '.join((*COLUMNS, DEMO))}")
    if arguments.data is None and columns != [DEMO]:
        print("Nothing is measured: give the folder of the files of labels with --data.")
        return 0
    _set_threads(arguments.threads)
    settings = replace(
        Settings.from_environment(), backbone=arguments.backbone, reward_budget_seconds=arguments.seconds
    )
    for name in columns:
        path = None if name == DEMO else arguments.data / f"{COLUMNS[name].file}.jsonl.gz"
        if path is not None and not path.is_file():
            print(f"{name}: skipped, since {arguments.data} has no {path.name}.\n")
            continue
        splits = arguments.splits or (DEMO_CUTS if name == DEMO else COLUMNS[name].splits)
        cuts = [measured(path, name, seed, rows, settings) for seed in range(1, splits + 1)]
        print(f"{table(name, arguments.backbone, cuts)}\n", flush=True)
    return 0


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


class Scores:
    """Scores on the decided test labels of one cut, by row: correct or not, log-loss, users, seconds."""

    def __init__(self, dataset: EvalDataset) -> None:
        self.decided = dataset.test.decided
        self.outcome = dataset.test.outcome[self.decided].astype(np.float64)
        self.users = np.array(dataset.users)[dataset.test.user[self.decided]]
        self.hits: dict[str, np.ndarray] = {}
        self.losses: dict[str, np.ndarray] = {}
        self.seconds: dict[str, float] = {}

    def add(self, row: str, make: Callable[[], np.ndarray]) -> None:
        started = time.monotonic()
        logits = make()[self.decided]
        self.seconds[row] = time.monotonic() - started
        self.hits[row] = correct(logits, self.outcome).astype(np.float64)
        self.losses[row] = log_losses(logits, self.outcome)


def dataset_of(path: Path | None, name: str, seed: int) -> EvalDataset:
    """One cut of a column: of the labels in a file, or of the demo's simulated people."""
    if path is None:
        labels = [row for row in demo_rows() if row.choice is not None]
        kind = new_prompts([asdict(row) for row in labels], seed).astype(int)
        return build_dataset(
            *([row for row, part in zip(labels, kind, strict=True) if part == own] for own in (TRAIN, TEST))
        )
    column, labels = COLUMNS[name], [row for row in read_rows(path, []) if row.choice is not None]
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        kind = np.asarray(column.cut([json.loads(line) for line in lines], seed)).astype(int)
    by_line = dict(enumerate(kind.tolist(), 1))
    train, test = ([row for row in labels if by_line[row.line] == part] for part in (TRAIN, TEST))
    return build_dataset(train, test, column.context)


def measured(path: Path | None, name: str, seed: int, rows: list[str], settings: Settings) -> Scores:
    """Fit every row to one cut."""
    dataset = dataset_of(path, name, seed)
    phi = installed_embedder(settings, resolver(settings.weights)("minilm")).embed(list(dataset.texts))
    forms, scores = Forms(StudioFit(dataset, lambda: phi, seed, settings), phi), Scores(dataset)
    makers: dict[str, Callable[[], np.ndarray]] = {
        "uniform": forms.uniform,
        CHOSEN: lambda: forms.linear(None),
        MEMORY: forms.memory,
        "graph": lambda: forms.extended.logits(dataset.test),
        "copl (served)": lambda: forms.fit.mixed,
    }
    makers |= {row: lambda row=row: forms.linear(LinearConfig(**LINEAR[row])) for row in LINEAR}
    makers |= {row: lambda row=row: forms.experts(EXPERTS[row]) for row in EXPERTS}
    for row in rows:
        scores.add(row, makers[row])
        print(f"… {name} {seed} {row}: {scores.hits[row].mean():.3f}, {scores.seconds[row]:.0f} s", flush=True)
    return scores


class Forms:
    """Forms of the text reward, each fitted as a full run fits its own, to the labels that the run does not hold out.

    Every method returns the log-odds (N,) of the test labels.
    """

    def __init__(self, fit: StudioFit, phi: np.ndarray) -> None:
        self.fit, self.phi, self.training = fit, phi, fit._job._split()[0]

    @cached_property
    def graph(self) -> GraphState:
        return self.fit._job.fit_graph(self.training, self.fit._config, "graph", warm=None)

    @cached_property
    def extended(self) -> ExtendedGraph:
        dataset = self.fit.dataset
        given = self.training.labels.joined(dataset.context)
        return extend_graph(self.graph, self.phi, dataset, given)

    def uniform(self) -> np.ndarray:
        dataset = replace(self.fit.dataset, train=self.training)
        return uniform_reward(dataset, lambda: self.phi, self.fit.settings.seed, self.fit.settings)

    def experts(self, changes: dict) -> np.ndarray:
        """The experts alone, with ``changes`` to the settings of a full run."""
        dataset, settings = self.fit.dataset, self.fit.settings
        given = {"balance": settings.balance, "steps": settings.reward_steps} | changes
        model = fit_reward(
            self.training,
            self.graph.user_vectors,
            RewardConfig.for_backbone(settings.backbone, **given),
            weights=resolver(settings.weights),
            seed=settings.seed,
            device=settings.device,
            time_budget_s=settings.reward_budget_seconds,
            disk=states_folder(settings),
        )
        return text_margins(model, dataset.test, self.extended.users, dataset.texts)

    def linear(self, config: LinearConfig | None) -> np.ndarray:
        """A linear text reward of the users of the training labels; without a config, its priors are chosen."""
        phi = self.phi[: self.fit.dataset.train.n_responses]
        return self.by_linear(fit_linear(self.graph, phi, config, tags=self.training.tags))

    def by_linear(self, reward: LinearReward) -> np.ndarray:
        """What a linear text reward that was fitted beside ``graph`` predicts."""
        dataset, graph = self.fit.dataset, self.graph
        users, row = np.unique(dataset.test.user, return_inverse=True)
        known = users[users < dataset.train.n_users]
        weights = np.tile(reward.common, (len(users), 1))
        weight = label_weights(graph, graph.labels)
        weights[: len(known)] = reward.of_fit(known, graph.user_vectors[known], graph.labels, weight)
        return of_differences(reward.features(self.phi), dataset.test, weights[row])

    def memory(self) -> np.ndarray:
        """What all like and each user's memory (``benchmarks.memory``); users of the training labels only."""
        reward = fit_memory(self.graph, self.phi[: self.fit.dataset.train.n_responses])
        return reward.margins(self.phi, self.fit.dataset.test)


def table(name: str, backbone: str, cuts: list[Scores]) -> str:
    """One line per row: accuracy, log-loss, and the lead over the first row, over all cuts together."""
    first, *_ = rows = list(cuts[0].hits)
    _, users = np.unique(np.concatenate([cut.users for cut in cuts]), return_inverse=True)
    hits = {row: np.concatenate([cut.hits[row] for cut in cuts]) for row in rows}
    losses = {row: np.concatenate([cut.losses[row] for cut in cuts]) for row in rows}
    lines = [f"{name}, backbone {backbone}, {len(cuts)} cuts, {len(users):,} test labels"]
    lines.append(f"{'':<32}{'accuracy':>9}{'log-loss':>10}{f'over {first}, points':>42}{'seconds':>9}")
    for row in rows:
        lead = ""
        if row != first:
            gain = 100 * (hits[row] - hits[first])
            low, high = interval(gain, users, 0)
            lead = f"{gain.mean():+.1f} ({low:+.1f} to {high:+.1f})"
        seconds = np.mean([cut.seconds[row] for cut in cuts])
        lines.append(f"{row:<32}{hits[row].mean():>9.3f}{losses[row].mean():>10.3f}{lead:>42}{seconds:>9.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
