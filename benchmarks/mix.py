"""How to weigh graph and text weights on texts that nobody has labelled, and which labels should teach it.

    python -m benchmarks.mix --data FOLDER [--columns NAME,…] [--splits N]

Columns are those of ``benchmarks.quality`` whose test labels have new texts.  The experts, which are no part of this,
would take most of the time.  Rows:

    graph                       the graph alone
    graph, each text alone      the same without what texts take from labelled ones that read alike
    text weights                the text weights of each person alone
    equal parts                 half of each
    mix (served)                weights learned on labels with at least one text that neither part has seen
    mix, graph first            the same with a weaker prior around the graph alone
    mix, equal parts first      the same with a weaker prior around equal parts
    mix, both texts unseen      weights learned on labels between two unseen texts, by a second fit without a quarter of
                                the responses

Intervals are of the lead over the graph, in points, by a bootstrap over users.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality import COLUMNS
from benchmarks.text_reward import DEMO, DEMO_CUTS, Forms, Scores, dataset_of
from copl_core.config import Settings
from copl_core.evaluation.dataset import EvalDataset
from copl_core.evaluation.studio_fit import ExtendedGraph, StudioFit
from copl_core.install.weights import resolver
from copl_core.records import Comparisons, TrainingData
from copl_core.reward.linear import LinearConfig
from copl_core.snapshots import mix as mixes
from copl_core.snapshots.mix import Parts
from copl_core.trainer.job import linear_margins, new_text_margins
from copl_core.training.linear_fit import fit_linear
from copl_core.training.metrics import interval
from copl_core.training.split import draws
from copl_core.training.text_embedder import installed_embedder

DESCRIPTION = "Weights of graph and text weights on unseen texts, learned on several kinds of labels"
COLUMNS_MEASURED = ("polis_more-new-texts", "remesh-new-texts", "llmfao-new-prompts", DEMO)
UNSEEN, SALT = 0.25, 11  # share of the responses that the second fit learns nothing about
Weights = tuple[float, float]  # of graph and text weights
Margins = tuple[np.ndarray, np.ndarray]  # (N,) of both


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mix", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with files of labels; missing ones are skipped")
    parser.add_argument("--columns", default=",".join(COLUMNS_MEASURED), help="columns of benchmarks.text_reward")
    parser.add_argument(
        "--splits", type=int, default=0, help="splits of each column (default: 3 of small files, else 1)"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    columns = arguments.columns.split(",")
    if unknown := set(columns) - {*COLUMNS, DEMO}:
        parser.error(f"{unknown.pop()!r} is not known; columns are {', '.join((*COLUMNS, DEMO))}")
    if arguments.data is None and columns != [DEMO]:
        print("Nothing is measured: give the folder of the files of labels with --data.")
        return 0
    torch.set_num_threads(arguments.threads)
    for name in columns:
        path = None if name == DEMO else arguments.data / f"{COLUMNS[name].file}.jsonl.gz"
        if path is not None and not path.is_file():
            print(f"{name}: skipped, since {arguments.data} has no {path.name}.\n")
            continue
        splits = arguments.splits or (DEMO_CUTS if name == DEMO else COLUMNS[name].splits)
        print(f"{table(name, [measured(path, name, seed) for seed in range(1, splits + 1)])}\n", flush=True)
    return 0


def measured(path: Path | None, name: str, seed: int) -> tuple[Scores, dict[str, Weights], tuple[int, int]]:
    """Scores on one cut, the weights of each row, and how many labels taught them: with one unseen text, and two."""
    dataset, settings = dataset_of(path, name, seed), Settings.from_environment()
    phi = installed_embedder(settings, resolver(settings.weights)("minilm")).embed(list(dataset.texts))
    fit = StudioFit(dataset, lambda: phi, seed, settings)
    forms, job = Forms(fit, phi), fit._job
    linear = fit_linear(forms.graph, job.phi, tags=forms.training.tags)
    new, texts = job._split()[2], list(job.data.texts())
    margins = (
        new_text_margins(forms.graph, new, job.phi, texts),
        linear_margins(linear, forms.graph, new, job.phi),
    )
    both, margins_of_both = between_unseen(fit, linear.config)
    weights: dict[str, Weights] = {
        "graph": (1.0, 0.0),
        "text weights": (0.0, 1.0),
        "equal parts": (0.5, 0.5),
        "mix (served)": learned_weights(margins, new.outcome),
        "mix, graph first": learned_weights(margins, new.outcome, mixes.KNOWN_MEAN, mixes.KNOWN_STRENGTH),
        "mix, equal parts first": learned_weights(margins, new.outcome, (0.5, 0.0, 0.5), mixes.KNOWN_STRENGTH),
        "mix, both texts unseen": learned_weights(margins_of_both, both.outcome),
    }
    scores, serving, by_text = Scores(dataset), fit._serving, forms.by_linear(linear)
    by_graph, position = serving.margins(dataset.test), serving.position(dataset.test)
    scores.add("graph", lambda: by_graph + position)
    scores.add("graph, each text alone", lambda: each_alone(serving, phi, dataset).logits(dataset.test))
    for row, (graph, text) in weights.items():
        scores.add(row, lambda graph=graph, text=text: graph * by_graph + text * by_text + position)
    accuracies = ", ".join(f"{row} {hits.mean():.3f}" for row, hits in scores.hits.items())
    print(f"… {name} {seed}: {accuracies}", flush=True)
    return scores, weights, (len(new), len(both))


def between_unseen(fit: StudioFit, config: LinearConfig) -> tuple[Comparisons, Margins]:
    """Labels between two texts that a second fit has not seen, and its margins."""
    job = fit._job
    learned, both = without_some(job.data)
    graph = job.fit_graph(learned, fit._config, "graph", warm=None)
    linear = fit_linear(graph, job.phi, config, tags=learned.tags)
    by_graph = new_text_margins(graph, both, job.phi, list(job.data.texts()))
    return both, (by_graph, linear_margins(linear, graph, both, job.phi))


def each_alone(serving: ExtendedGraph, phi: np.ndarray, dataset: EvalDataset) -> ExtendedGraph:
    """The graph where a new text takes nothing from labelled ones that read alike."""
    state, known = serving.state, np.arange(len(phi)) < dataset.train.n_responses
    vectors, bias = state.embed_responses(phi)
    vectors[known], bias[known] = state.response_vectors[known], state.response_bias[known]
    return replace(serving, state=replace(state, response_vectors=vectors, response_bias=bias))


def without_some(data: TrainingData) -> tuple[TrainingData, Comparisons]:
    """(labels about the other responses, decided labels between two of the drawn ones)"""
    labels = data.labels
    ids = data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]
    drawn = draws("response", *ids, SALT) < UNSEEN
    return data.take(~drawn.any(1)), labels.take(drawn.all(1) & labels.decided)


def learned_weights(
    margins: Margins, outcome: np.ndarray, mean: Parts = mixes.NEW_MEAN, strength: Parts = mixes.NEW_STRENGTH
) -> Weights:
    """The weights that ``snapshots.mix`` learns from the margins of graph and text weights."""
    graph, text = margins
    found = mixes.fit_weights(np.stack([graph, np.zeros(len(graph)), text], 1), outcome, mean, strength)
    return float(found[0]), float(found[2])


def table(name: str, cuts: list[tuple[Scores, dict[str, Weights], tuple[int, int]]]) -> str:
    """One line per row: accuracy, log-loss, lead over the graph, and mean weights, over all cuts together."""
    scores = [cut[0] for cut in cuts]
    _, users = np.unique(np.concatenate([one.users for one in scores]), return_inverse=True)
    one, both = np.mean([cut[2] for cut in cuts], 0)
    lines = [
        f"{name}, {len(cuts)} cuts, {len(users):,} test labels; weights learned on {one:.0f} labels with an unseen "
        f"text, or {both:.0f} with two",
        f"{'':<24}{'accuracy':>9}{'log-loss':>10}{'over the graph, points':>28}{'graph':>8}{'text':>6}",
    ]
    base = np.concatenate([one.hits["graph"] for one in scores])
    for row in scores[0].hits:
        hits = np.concatenate([one.hits[row] for one in scores])
        loss = np.concatenate([one.losses[row] for one in scores]).mean()
        gain = 100 * (hits - base)
        low, high = interval(gain, users, 0)
        graph, text = np.mean([cut[1].get(row, (1.0, 0.0)) for cut in cuts], 0)
        lead = "" if row == "graph" else f"{gain.mean():+.1f} ({low:+.1f} to {high:+.1f})"
        lines.append(f"{row:<24}{hits.mean():>9.3f}{loss:>10.3f}{lead:>28}{graph:>8.2f}{text:>6.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
