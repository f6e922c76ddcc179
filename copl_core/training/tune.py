"""How firmly a study's graph is held to its priors, and how loudly neighbours speak, chosen on its own labels.

Studies differ: where a few hundred answers differ in style, weak priors win; where people rated a common list and the
pairs were made from the ratings, strong ones do.  Where people fall into groups of one mind, what neighbours say is
worth more than a row of one's own; where each differs in their own way, less.  The choice is made on labels that are
apart from the learned ones *within each person*: both their responses are new to that person.  A random split would
not do, since pairs made from ratings follow from one another (a ≻ b and b ≻ c give a ≻ c) and every overfit looks like
skill.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from copl_core.preference.state import LOUD, GraphConfig
from copl_core.records import TrainingData
from copl_core.training.metrics import figures
from copl_core.training.split import uniform

FACTORS = (1.0, 4.0, 10.0, 25.0)  # of the configured precision of the priors
FEWEST = 150  # decided labels apart from the learned ones; with fewer the configured priors stand
MOST = 2_000_000  # labels; with more the configured priors stand, since every candidate takes minutes
_SHARE = 0.3  # of each person's responses that are kept from the probe

Progress = Callable[[str, int, int, float | None], None]


def tuned(data: TrainingData, phi: np.ndarray, config: GraphConfig, *, seed: int, device: str = "cpu",
          progress: Progress | None = None) -> GraphConfig:
    """The configuration that predicts best, of the configured one and one with loud messages, each with its priors at
    several precisions; one small graph is fitted for each candidate.

    Args:
        phi: (R, P) text embeddings, by response row.
        progress: told ("choosing priors", candidates done, candidates, log-loss).
    """
    config = config.sized(len(data.labels))  # the probe has fewer labels and is to be fitted in the same way
    from copl_core.training.graph_fit import fit_graph, sided_margins

    learned, asked = apart(data)
    asked &= data.labels.decided
    if asked.sum() < FEWEST or len(data.labels) > MOST:
        return config
    probe, test = data.with_labels(data.labels.take(learned)), data.labels.take(asked)
    candidates, losses = _candidates(config), []
    for done, candidate in enumerate(candidates):
        if progress is not None:
            progress("choosing priors", done, len(candidates), min(losses, default=None))
        state = fit_graph(probe, phi, replace(candidate, members=1), seed=seed, device=device)
        losses.append(figures(sided_margins(state, test), test)["log_loss"])
    return candidates[int(np.argmin(losses))]


def _candidates(config: GraphConfig) -> list[GraphConfig]:
    """Every recipe with every precision; a graph of many labels has settled on the loud one (``GraphConfig.sized``)."""
    open_to_choice = config.rule == "copl" and config.layers > 0 and config.large > 0
    recipes = [config, replace(config, **LOUD)] if open_to_choice else [config]
    return [stronger(recipe, factor) for recipe in recipes for factor in FACTORS]


def stronger(config: GraphConfig, factor: float) -> GraphConfig:
    """The same graph with its priors on ids and texts that many times as precise."""
    return replace(config, l2=config.l2 * factor, l2_text=config.l2_text * factor)


def apart(data: TrainingData, share: float = _SHARE) -> tuple[np.ndarray, np.ndarray]:
    """Masks (N,) of labels between two responses that are kept from their user, and between two that are not.

    Returns:
        (learned, asked); labels with one response on each side of the line are in neither.
    """
    labels = data.labels
    users = data.user_ids[labels.user]
    left, right = (uniform(users, data.response_ids[side]) < share for side in (labels.left, labels.right))
    return ~left & ~right, left & right
