"""Effects of the preference graph's design: label noise, unequal groups, circles, architectures, weights of labels.

    python -m benchmarks.graph_quality                            # synthetic worlds with a known truth
    python -m benchmarks.graph_quality --data FOLDER              # and circles, architectures, uses on real labels

1. Noise: a fifth of the labels of a synthetic world is flipped.  Accuracy against the truth on pairs that the user did
   not label, for the plain, the smoothed and the unbiased loss (rDPO) with ε estimated from repeated pairs: stopped on
   held-out labels, the same with constant priors, and run to the end.
2. Imbalance: two groups, ten to one.  The accuracy of the worst group, of our graph and of the published layer and
   schedule.
3. Circles: Bradley–Terry and the skew-symmetric term (``Architecture.cyclic``) with one to four planes, in a world in
   which no score explains a preference, and on real labels.
4. Architectures on real labels: a fifth of the labels, drawn by (person, response), is the test set
   (``llmfao.jsonl.gz`` in the folder of ``--data``, or the files of ``--file``).  These are validation labels, on which
   the prior is chosen: do not use data here that you report on elsewhere.

5. Uses: labels of weight 1, and of weight 1 / u, where u is how many labels of the person use the more used of the two
   responses: pairs made from ratings are not independent.  On the same splits of real labels.

Every figure is the mean over seeds (each with its own world or split), ± the standard error of that mean.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.cycles import make_cycles
from benchmarks.quality import TEST, TRAIN, parts_of
from benchmarks.synthetic import Protocol, make_world
from copl_core.preference.config import READOUT, GraphConfig
from copl_core.records import Comparisons
from copl_core.training.graph_fit import fit_graph
from copl_core.training.losses import flip_rate
from copl_core.training.metrics import log_losses, measures
from copl_core.training.tune import tuned

DESCRIPTION = "the preference graph: losses under noise, unequal groups, circles, architectures, weights of labels"
NOISE = 0.2


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph_quality", description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="noise,imbalance,cyclic,architectures,uses", help="tables to print")
    parser.add_argument("--users", type=int, default=1000, help="users of the synthetic worlds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder with label files, for circles and architectures")
    parser.add_argument("--file", default="llmfao.jsonl.gz", help="label files in that folder, by commas")
    parser.add_argument("--published-dim", type=int, default=64, help="width of the published graph (paper: 512)")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0: all")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads or os.cpu_count() or 1)
    parts = arguments.parts.split(",")
    if "noise" in parts:
        noise(arguments.users, arguments.seeds)
    if "imbalance" in parts:
        imbalance(arguments.users, arguments.seeds, arguments.published_dim)
    if "cyclic" in parts:
        cyclic_world(arguments.seeds)
    for file in arguments.file.split(","):
        path = (arguments.data or Path()) / file
        found = arguments.data is not None and path.is_file()
        for part, table in REAL.items():
            if part in parts and found:
                table(path, arguments.seeds)
            elif part in parts:
                print(f"\nThe table {part} of real labels is skipped: --data names no folder with {file}.")
    return 0


def noise(users: int, seeds: int) -> None:
    """Losses in a world in which a fifth of the labels is flipped."""
    protocol = Protocol.uf_p(4, users=users, prompts=users * 4 // 5, repeats=2, noise=NOISE)
    print(
        f"Noise {NOISE:.0%}: {users:,} users, {protocol.labels} labels and {protocol.repeats} repeats each, "
        f"{2 * protocol.prompts:,} responses; {seeds} worlds"
    )
    flips = [flip_rate(make_world(protocol, seed).data.labels) for seed in range(seeds)]
    print(f"ε estimated from the repeats: {spread(flips, 3)}")
    head("accuracy", "log-loss", "worst group")
    for way, changes in WAYS.items():
        for loss in ("bt", "smoothing", "rdpo"):
            config = GraphConfig.build(loss=loss, **changes)
            row(f"{loss}, {way}", [against_truth(protocol, config, seed) for seed in range(seeds)])


# No regularisation: every label is in the graph and is a query label, no prior, no early stopping.
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
WAYS: dict[str, dict] = {
    "stopped on held-out labels": {},
    "stopped, constant priors": {"id_prior_growth": 1.0},
    "run to the end, no prior": ENDLESS,
}


def imbalance(users: int, seeds: int, published_dim: int) -> None:
    """The worst of two groups, one ten times as large as the other."""
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
    """Accuracy, log-loss and worst group on unseen pairs; without ``config`` it is chosen as in a training job."""
    world = make_world(protocol, seed)
    config = config or tuned(world.data, world.phi, GraphConfig(), seed=seed)
    state = fit_graph(world.data, world.phi, config, seed=seed)
    logits = state.margins(world.test)
    figures = world.figures(logits)
    return figures["accuracy"], float(log_losses(logits, world.test.outcome).mean()), figures["worst_group"]


CYCLIC = {"Bradley–Terry": 0, "1 plane": 1, "2 planes": 2, "4 planes": 4}


def cyclic_world(seeds: int) -> None:
    """Rock–paper–scissors, with a third of the users turning the other way round; noise-free test labels."""
    worlds = [make_cycles(seed=seed) for seed in range(seeds)]
    data = worlds[0].data
    print(f"\nCircles: {data.n_users} users, {len(data.labels)} labels, {data.n_responses} responses; {seeds} worlds")
    head("accuracy", "log-loss")
    for name, planes in CYCLIC.items():
        config, figures = GraphConfig.build(cyclic=planes), []
        for seed, world in enumerate(worlds):
            state = fit_graph(world.data, world.phi, config, seed=seed)
            found = measures(state.margins(world.test), world.test.outcome)
            figures.append((found["accuracy"], found["log_loss"]))
        row(name, figures)


def cyclic_labels(path: Path, seeds: int) -> None:
    """The same heads on real labels, with their lead over Bradley–Terry on the same split and seed."""
    print(f"\nCircles on {path.name}: a fifth of the labels is the test set; {seeds} random splits")
    head("accuracy", "log-loss", "lead, points")
    splits = [real(path, seed) for seed in range(seeds)]
    plain: list[tuple[float, float]] = []
    for name, planes in CYCLIC.items():
        figures = [split(GraphConfig.build(cyclic=planes), seed) for seed, split in enumerate(splits)]
        plain = plain or figures
        row(name, [(*own, 100 * (own[0] - other[0])) for own, other in zip(figures, plain, strict=True)])


def architectures(path: Path, seeds: int) -> None:
    """Each kind of layer, with the precision of its prior chosen from three on the first split."""
    print(f"\nArchitectures on {path.name}: a fifth of the labels is the test set; {seeds} random splits")
    head("accuracy", "log-loss", "prior")
    splits = [real(path, seed) for seed in range(seeds)]
    for name, config in [(layer, GraphConfig.build(layer=layer)) for layer in READOUT] + [
        ("copl, diagonal matrices", GraphConfig.build(mixing="diagonal")),
        ("no layer", GraphConfig.build(n_layers=0)),
        ("copl, 2 planes of circles", GraphConfig.build(cyclic=2)),
    ]:
        choices = (
            [config.with_settings(l2_layer=precision) for precision in (1000.0, 100.0, 10.0)]
            if config.architecture.n_layers and config.architecture.layer != "lightgcn"
            else [config]
        )
        best = min(choices, key=lambda choice: splits[0](choice, 0)[1])
        row(name, [(*split(best, seed), best.priors.l2_layer) for seed, split in enumerate(splits)])


def uses(path: Path, seeds: int) -> None:
    """Labels of equal weight, and of weight 1 / u."""
    print(f"\nUses on {path.name}: a fifth of the labels is the test set; {seeds} random splits")
    head("accuracy", "log-loss", "lead, points")
    splits = [real(path, seed) for seed in range(seeds)]
    plain: list[tuple[float, float]] = []
    for name, weigh in (("weight 1", None), ("weight 1 / u", weighed_by_uses)):
        figures = [split(GraphConfig(), seed, weigh) for seed, split in enumerate(splits)]
        plain = plain or figures
        row(name, [(*own, 100 * (own[0] - other[0])) for own, other in zip(figures, plain, strict=True)])


def weighed_by_uses(labels: Comparisons) -> Comparisons:
    """The labels with 1 / u times their strength, in units of the mean."""
    ends = np.stack([labels.left, labels.right], 1)
    edge = np.unique(labels.user[:, None] * (1 + ends.max(initial=0)) + ends, return_inverse=True)[1].reshape(-1, 2)
    weight = labels.strength / np.bincount(edge.ravel())[edge].max(1)
    return replace(labels, strength=(weight / weight.mean()).astype(np.float32))


REAL = {"cyclic": cyclic_labels, "architectures": architectures, "uses": uses}

Weigh = Callable[[Comparisons], Comparisons]


def real(path: Path, seed: int) -> Callable[..., tuple[float, float]]:
    """A function that measures (accuracy, log-loss) of a configuration, a seed and perhaps a ``Weigh`` of the training
    labels, on a split of a file's labels by (person, response)."""
    from copl_core.config import Settings
    from copl_core.evaluation.dataset import build_dataset
    from copl_core.formats.own import read_rows
    from copl_core.install.weights import resolver
    from copl_core.training.text_embedder import TextEmbedder

    rows = [row for row in read_rows(path, []) if row.choice is not None]
    part = parts_of(rows, 0.2, seed)
    world = build_dataset(
        *([row for row, own in zip(rows, part, strict=True) if own == wanted] for wanted in (TRAIN, TEST))
    )
    settings = Settings.from_environment()
    phi = TextEmbedder(resolver(settings.weights)("minilm"), cache=settings.cache / "phi").embed(list(world.texts))
    known = np.flatnonzero(~world.new_user & ~world.new_text)
    labels = world.test.take(known)

    def measure(config: GraphConfig, seed: int, weigh: Weigh | None = None) -> tuple[float, float]:
        train = world.train if weigh is None else world.train.with_labels(weigh(world.train.labels))
        state = fit_graph(train, phi[: world.train.n_responses], config, seed=seed)
        figures = measures(state.label_log_odds(labels), labels.outcome)
        return figures["accuracy"], figures["log_loss"]

    return measure


def head(*columns: str) -> None:
    print(f"{'':44}" + "".join(f"{column:>19}" for column in columns))


def row(name: str, figures: list[tuple[float, ...]]) -> None:
    print(f"{name:44}" + "".join(f"{spread(column, 4):>19}" for column in zip(*figures, strict=True)), flush=True)


def spread(values: Iterable[float], digits: int) -> str:
    figures = np.array(list(values), float)
    error = figures.std(ddof=1) / len(figures) ** 0.5 if len(figures) > 1 else float("nan")
    how = f".{digits}f" if abs(figures.mean()) < 1e4 else ".0e"  # a loss without a lower bound may diverge
    return f"{figures.mean():{how}} ± {error:{how}}"


if __name__ == "__main__":
    sys.exit(main())
