"""How firmly a study's graph is held to its priors, and how far its layers may move, chosen on its own labels.

Studies differ: where a few hundred answers differ in style, weak priors that grow firmer as they are needed to win;
where people rated a common list and the pairs were made from the ratings, strong ones that stay as they are.  Where
people fall into groups of one mind layers have to move; where each differs in their own way, less.  The choice is
made on labels that are apart from the learned ones *within each person*: both their responses are new to that person.
A random draw would not do, since pairs made from ratings follow from one another (a ≻ b and b ≻ c give a ≻ c) and every
overfit looks like skill; it is made only where what will be asked is of that kind, too.

A few hundred labels tell good candidates from bad ones, and hardly the best from the second: where fits are short,
several draws are made and the worse half of the candidates is left out after each (successive halving).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from copl_core.preference.state import FULL_STRENGTH_MESSAGES, GraphConfig
from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.training.metrics import measures
from copl_core.training.progress import Progress
from copl_core.training.split import draws, split_by_edge

FACTORS = (1 / 3, 1.0, 4.0, 10.0)  # of the configured precision of the priors
FEWEST = 150  # decided labels apart from the learned ones; with fewer the configured priors stand
MOST = 2_000_000  # labels; with more the configured priors stand, since every candidate takes minutes
DRAWS = 3
TELL_EVERY = 1.0  # seconds between two reports of one fit
MANY = 20_000  # labels; from so many on one draw is enough
_SHARE = 0.3  # of each person's responses that are kept from the probe
_MET_SHARE = 0.15  # of the labels, where people are asked about responses they have met


def tuned(
    data: TrainingData,
    phi: np.ndarray,
    config: GraphConfig,
    *,
    seed: int,
    device: str = "cpu",
    met: bool = False,
    progress: Progress | None = None,
    known: Sequence[float] = (),
    keep: Callable[[list[float]], None] | None = None,
) -> GraphConfig:
    """The configuration that predicts best, of a few recipes of messages, each with its priors at several precisions;
    one small graph is fitted for each candidate and draw.

    Args:
        phi: (R, P) text embeddings, by response row.
        met: whether people will be asked about responses that they have met in training, in other pairs.
        progress: told ("choosing priors", fits done, fits, best log-loss so far).
        known: log-losses of the first fits, of the same choice that was broken off.
        keep: given the log-losses of all fits so far after each.
    """
    config = config.sized(len(data.labels))  # the probe has fewer labels and is to be fitted in the same way
    draws = [_draw(data, met, draw) for draw in range(1 if len(data.labels) > MANY else DRAWS)]
    if min(asked.sum() for _, asked in draws) < FEWEST or len(data.labels) > MOST:
        return config
    losses: dict[GraphConfig, list[float]] = {candidate: [] for candidate in _candidates(config)}
    left, n_fits, found = list(losses), _fits(len(losses), len(draws)), list[float]()
    tell = _told(progress, found, n_fits)
    for learned, asked in draws:
        probe, test = data.with_labels(data.labels.take(learned)), data.labels.take(asked)
        for candidate in left:
            tell()
            if len(found) < len(known):
                found.append(known[len(found)])
            else:
                found.append(_log_loss(probe, test, phi, replace(candidate, members=1), seed, device, tell))
                if keep is not None:
                    keep(found)
            losses[candidate].append(found[-1])
        left = sorted(left, key=lambda candidate: np.mean(losses[candidate]))[: _half(len(left))]
    return left[0]


def _told(progress: Progress | None, found: list[float], n_fits: int) -> Callable[..., None]:
    """Tells how far the choice is, whatever it is given, once for each fit and now and then during one: who is told
    may end the job."""
    last: tuple[int, float] = (-1, 0.0)

    def tell(*_: object) -> None:
        nonlocal last
        now = time.monotonic()
        if progress is not None and (len(found) > last[0] or now - last[1] >= TELL_EVERY):
            last = len(found), now
            progress("choosing priors", len(found), n_fits, min(found, default=None))

    return tell


def _log_loss(
    probe: TrainingData,
    test: Comparisons,
    phi: np.ndarray,
    candidate: GraphConfig,
    seed: int,
    device: str,
    tell: Callable[..., None],
) -> float:
    """Of the labels ``test`` by a graph fitted to ``probe``; of a training that breaks down as bad as can be."""
    from copl_core.training.graph_fit import fit_graph, sided_margins

    try:
        state = fit_graph(probe, phi, candidate, seed=seed, device=device, progress=tell)
    except CoplError:
        return math.inf
    return measures(sided_margins(state, test), test.outcome)["log_loss"]


def _draw(data: TrainingData, met: bool, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks (N,) of the labels that candidates learn from, and of decided ones that they are asked."""
    labels = data.labels
    if met:
        ids = data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]
        asked = draws("pair", *ids, 10 + draw)[:, 0] < _MET_SHARE
        learned = ~asked
    else:
        learned, asked = split_by_edge(data, _SHARE, draw)
    return learned, asked & labels.decided


def _half(n: int) -> int:
    return -(-n // 2)


def _fits(candidates: int, draws: int) -> int:
    """How many fits the halving takes."""
    return candidates + (_fits(_half(candidates), draws - 1) if draws > 1 else 0)


def _candidates(config: GraphConfig) -> list[GraphConfig]:
    """Every recipe with every precision."""
    return [stronger(recipe, factor) for recipe in _recipes(config) for factor in FACTORS]


def _recipes(config: GraphConfig) -> list[GraphConfig]:
    """Ways of hearing neighbours: layers that stay near their start, or may move; and either also with priors that stay
    as they are, by which a small group keeps its own mind.  A graph of many labels has settled (``GraphConfig.sized``),
    and is asked whether coordinates are to speak for one another."""
    if config.rule != "copl" or config.layers == 0:
        return [config]
    if config.large > 0:
        return [
            replace(config, firmer=firmer, **layers)
            for firmer in (config.firmer, 1.0)
            for layers in ({}, FULL_STRENGTH_MESSAGES)
        ]
    return [config, replace(config, mixing="full", lr=GraphConfig().lr)] if config.mixing == "diagonal" else [config]


def stronger(config: GraphConfig, factor: float) -> GraphConfig:
    """The same graph with its priors on ids and texts that many times as precise."""
    return replace(config, l2=config.l2 * factor, l2_text=config.l2_text * factor)
