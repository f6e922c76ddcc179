"""What the preference graph's choices are worth: losses under noise, groups of unequal size, and architectures.

    python -m benchmarks.graph_quality                            # worlds with a known truth
    python -m benchmarks.graph_quality --data FOLDER              # and architectures on labels of real people

1. Noise: a fifth of the labels of a synthetic world is turned round; accuracy against the truth on pairs the user
   never saw, for the plain, the smoothed and the unbiased loss (rDPO), with their ε told by repeated pairs, stopped on
   held-out labels, the same under priors that do not grow firmer, and run to the end.
2. Imbalance: two groups, ten to one; the accuracy of the worst group, ours beside the published layer and schedule.
3. Architectures on real labels: all but a fifth of the labels learned, the fifth asked (``llmfao.jsonl.gz`` in
   the folder of ``--data``, or another ``--file``; random splits).
   Everything is measured on validation labels; a part of the data that is to be reported on elsewhere must not be here.

Every figure is the mean over seeds (each a world or a split of its own), ± the standard error of that mean.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.synthetic import Protocol, make_world
from copl_core.preference.state import READOUT, GraphConfig
from copl_core.training.graph_fit import fit_graph, sided_margins
from copl_core.training.losses import flip_rate
from copl_core.training.metrics import log_losses, measures
from copl_core.training.tune import tuned

DESCRIPTION = "the preference graph: losses under noise, groups of unequal size, architectures"
NOISE = 0.2


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph_quality", description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="noise,imbalance,architectures", help="which tables")
    parser.add_argument("--users", type=int, default=1000, help="of the synthetic worlds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder with files of labels, for the architectures")
    parser.add_argument("--file", default="llmfao.jsonl.gz", help="which of them")
    parser.add_argument("--published-dim", type=int, default=64, help="width of the published graph (paper: 512)")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 takes what there is")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads or os.cpu_count() or 1)
    parts = arguments.parts.split(",")
    if "noise" in parts:
        noise(arguments.users, arguments.seeds)
    if "imbalance" in parts:
        imbalance(arguments.users, arguments.seeds, arguments.published_dim)
    if "architectures" in parts:
        path = (arguments.data or Path()) / arguments.file
        if arguments.data is not None and path.is_file():
            architectures(path, arguments.seeds)
        else:
            print(f"\nArchitectures are left out: --data names no folder with {arguments.file}.")
    return 0


def noise(users: int, seeds: int) -> None:
    """Losses in a world whose labels are wrong in a fifth of the cases."""
    protocol = Protocol.uf_p(4, users=users, prompts=users * 4 // 5, repeats=2, noise=NOISE)
    print(
        f"Noise {NOISE:.0%}: {users:,} users, {protocol.labels} labels and {protocol.repeats} repeats each, "
        f"{2 * protocol.prompts:,} responses; {seeds} worlds"
    )
    told = [flip_rate(make_world(protocol, seed).data.labels) for seed in range(seeds)]
    print(f"ε told by the repeats: {spread(told, 3)}")
    head("accuracy", "log-loss", "worst group")
    for way, changes in WAYS.items():
        for loss in ("bt", "smoothing", "rdpo"):
            config = replace(GraphConfig(loss=loss), **changes)
            row(f"{loss}, {way}", [against_truth(protocol, config, seed) for seed in range(seeds)])


# Nothing holds the graph back: every label is in it and asked at once, no prior, no early stop.
ENDLESS = {
    "members": 1,
    "leave_out": 0.0,
    "l2": 0.0,
    "l2_text": 0.0,
    "l2_bias": 0.0,
    "patience": 10**6,
    "max_steps": 300,
    "holdout": 0.0,
}
WAYS = {"stopped on held-out labels": {}, "stopped, priors stay": {"firmer": 1.0}, "run to the end, no prior": ENDLESS}


def imbalance(users: int, seeds: int, published_dim: int) -> None:
    """The worst group where one is ten times the other."""
    protocol = Protocol.uf_p(2, users=users, prompts=users * 4 // 5, imbalance=10.0)
    print(f"\nImbalance 10 : 1: {users:,} users in two groups, {protocol.labels} labels each; {seeds} worlds")
    head("accuracy", "log-loss", "worst group")
    row("copl, priors chosen on its labels", [against_truth(protocol, None, seed) for seed in range(seeds)])
    for name, config in (
        ("copl, priors as configured", GraphConfig()),
        (f"published, d {published_dim}", GraphConfig.published(dim=published_dim)),
    ):
        row(name, [against_truth(protocol, config, seed) for seed in range(seeds)])


def against_truth(protocol: Protocol, config: GraphConfig | None, seed: int) -> tuple[float, float, float]:
    """Accuracy, log-loss and worst group on the truth about unseen pairs; no config: chosen as a training job does."""
    world = make_world(protocol, seed)
    config = config or tuned(world.data, world.phi, GraphConfig(), seed=seed)
    state = fit_graph(world.data, world.phi, config, seed=seed)
    logits = state.margins(world.asked)
    figures = world.figures(logits)
    return figures["accuracy"], float(log_losses(logits, world.asked.outcome).mean()), figures["worst_group"]


def architectures(path: Path, seeds: int) -> None:
    """Each layer, with the prior on its weights chosen from three on the first split."""
    print(f"\nArchitectures on {path.name}: a fifth of the labels asked; {seeds} random splits")
    head("accuracy", "log-loss", "prior")
    splits = [real(path, seed) for seed in range(seeds)]
    for name, config in [(rule, GraphConfig(rule=rule)) for rule in READOUT] + [
        ("copl, diagonal matrices", GraphConfig(mixing="diagonal")),
        ("no layer", GraphConfig(layers=0)),
    ]:
        choices = (
            [replace(config, l2_layer=precision) for precision in (1000.0, 100.0, 10.0)]
            if config.layers and config.rule != "lightgcn"
            else [config]
        )
        best = min(choices, key=lambda choice: splits[0](choice, 0)[1])
        row(name, [(*split(best, seed), best.l2_layer) for seed, split in enumerate(splits)])


def real(path: Path, seed: int) -> Callable[[GraphConfig, int], tuple[float, float]]:
    """A random split of the labels of a file, ready to be asked how well a configuration does."""
    from copl_core.config import Settings
    from copl_core.evaluation.dataset import build_dataset
    from copl_core.formats.own import read_rows
    from copl_core.install.weights import resolver
    from copl_core.training.text_embedder import TextEmbedder

    rows = [row for row in read_rows(path, []) if row.choice is not None]
    asked = np.random.default_rng(seed).random(len(rows)) < 0.2
    world = build_dataset(
        [row for row, ask in zip(rows, asked, strict=True) if not ask],
        [row for row, ask in zip(rows, asked, strict=True) if ask],
    )
    settings = Settings.from_environment()
    phi = TextEmbedder(resolver(settings.weights)("minilm"), cache=settings.cache / "phi").embed(list(world.texts))
    known = np.flatnonzero(~world.new_user & ~world.new_text)
    labels = world.test.take(known)

    def measure(config: GraphConfig, seed: int) -> tuple[float, float]:
        state = fit_graph(world.train, phi[: world.train.n_responses], config, seed=seed)
        figures = measures(sided_margins(state, labels), labels.outcome)
        return figures["accuracy"], figures["log_loss"]

    return measure


def head(*columns: str) -> None:
    print(f"{'':44}" + "".join(f"{column:>19}" for column in columns))


def row(name: str, figures: list[tuple[float, ...]]) -> None:
    print(f"{name:44}" + "".join(f"{spread(column, 4):>19}" for column in zip(*figures, strict=True)), flush=True)


def spread(values, digits: int) -> str:
    values = np.asarray(values, float)
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    how = f".{digits}f" if abs(values.mean()) < 1e4 else ".0e"  # a loss without a floor may run away
    return f"{values.mean():{how}} ± {error:{how}}"


if __name__ == "__main__":
    sys.exit(main())
