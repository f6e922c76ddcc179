"""How evenly experts are used with and without the balance loss: the demo's five groups and data of four groups.

    python -m benchmarks.expert_loads [--world demo|four] [--budget SECONDS] [--seed N]

For each data set the preference graph is fitted, then the reward model twice on the same labels and vectors: with the
default weight of the balance loss and without it.  The load of an expert is the share of users who have it as their top
expert; the factor is the largest load divided by the smallest.  Of the four groups two prefer short responses and two
long ones; one of each prefers lists.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

import numpy as np
from scipy.special import expit

from copl_core.config import Settings
from copl_core.demo.world import demo_rows
from copl_core.features import measure_many
from copl_core.insight.gating import Load, load
from copl_core.preference.config import GraphConfig
from copl_core.records import Choice, Comparisons, ImportRow, TrainingData

DESCRIPTION = "load of each expert with and without the balance loss, demo and four groups"
PEOPLE, PROMPTS, LABELS = 300, 60, 20  # of the four groups; labels per user


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.expert_loads", description=__doc__.splitlines()[0])
    parser.add_argument("--world", choices=("demo", "four"), action="append", help="data set (default: both)")
    parser.add_argument("--budget", type=float, help="seconds per reward model, which then takes fewer steps")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    for name in arguments.world or ("demo", "four"):
        data = training_data(demo_rows() if name == "demo" else four_groups())
        print(f"{name}: {data.n_users} people, {len(data.labels):,} labels, {data.n_responses} responses")
        for balance in (None, 0.0):
            found, accuracy, n = measure(data, balance, arguments.budget, arguments.seed)
            print(
                f"  {'with' if balance is None else 'without'} the balance loss: "
                + " ".join(f"{share:.3f}" for share in np.sort(found.share)[::-1])
                + f"   factor {found.factor:.2f}, dead {found.dead}, entropy {found.entropy:.2f} of "
                f"{np.log2(len(found.share)):.2f} bits, accuracy {accuracy:.3f} on {n} held-out labels",
                flush=True,
            )
    return 0


def measure(data: TrainingData, balance: float | None, budget: float | None, seed: int) -> tuple[Load, float, int]:
    """The load after one fit, and the reward model's accuracy and number of held-out labels."""
    from copl_core.install.weights import resolver
    from copl_core.reward.model import RewardConfig
    from copl_core.training.graph_fit import fit_graph
    from copl_core.training.reward_fit import fit_reward

    phi = measure_many([response for _, response in data.texts()])
    graph = fit_graph(data, phi, GraphConfig.build(members=1), seed=seed)
    config = RewardConfig.for_backbone("minilm", **({} if balance is None else {"balance": balance}))
    model = fit_reward(
        data,
        graph.user_vectors,
        config,
        weights=resolver(Settings.from_environment().weights),
        seed=seed,
        time_budget_s=budget,
    )
    return load(model.gates(graph.user_vectors).mean(1)), model.metrics["accuracy"], model.metrics["n"]


def training_data(rows: Iterable[ImportRow]) -> TrainingData:
    """The labels among the rows, with ids in the order of appearance."""
    users, prompts, responses, columns = {}, {}, {}, []
    for row in rows:
        if row.choice is None:
            continue
        prompt = prompts.setdefault(row.prompt, len(prompts))
        sides = [responses.setdefault((prompt, text), len(responses)) for text in (row.response_a, row.response_b)]
        outcome = {Choice.LEFT: 1.0, Choice.RIGHT: 0.0}.get(row.choice, 0.5)
        columns.append((users.setdefault(row.annotator, len(users)), *sides, outcome))
    user, left, right, outcome = zip(*columns, strict=True)
    return TrainingData(
        np.arange(len(users)),
        np.arange(len(responses)),
        np.array([key[0] for key in responses]),
        tuple(prompts),
        tuple(key[1] for key in responses),
        Comparisons.build(user, left, right, outcome),
    )


def four_groups(seed: int = 0) -> Iterable[ImportRow]:
    rng = np.random.default_rng(seed)
    for person in range(PEOPLE):
        brief, lists = person % 2, person // 2 % 2
        for prompt in rng.choice(PROMPTS, LABELS, replace=False).tolist():
            a, b = rng.choice(4, 2, replace=False).tolist()
            like = [(1 if (which & 1) == brief else -1) + (1 if which >> 1 == lists else -1) for which in (a, b)]
            first = rng.random() < expit(1.5 * (like[0] - like[1]))
            yield ImportRow(
                0,
                f"How do I begin with plan {prompt}?",
                text(prompt, a),
                text(prompt, b),
                Choice.LEFT if first else Choice.RIGHT,
                f"person {person}",
                position_known=True,
            )


def text(prompt: int, which: int) -> str:
    """One of four responses: long or short, with or without a list."""
    steps = ["Look at the whole first.", "Choose one part of it.", "Try that part for a week.", "Then ask somebody."]
    steps = steps[:1] if which & 1 else steps
    return f"About plan {prompt}:\n\n" + ("\n".join(f"- {step}" for step in steps) if which >> 1 else " ".join(steps))


if __name__ == "__main__":
    sys.exit(main())
