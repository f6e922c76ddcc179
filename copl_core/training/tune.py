"""How firmly a study's graph is held to its priors, chosen on the study's own labels.

Studies differ: where a few hundred answers differ in style, weak priors win; where people rated a common list and the
pairs were made from the ratings, strong ones do.  The choice is made on labels that are apart from the learned ones
*within each person*: both their responses are new to that person.  A random split would not do, since pairs made from
ratings follow from one another (a ≻ b and b ≻ c give a ≻ c) and every overfit looks like skill.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from copl_core.preference.state import GraphConfig
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
    """The configuration with the prior precision that predicts best; one small graph is fitted for each candidate.

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
    losses = []
    for done, factor in enumerate(FACTORS):
        if progress is not None:
            progress("choosing priors", done, len(FACTORS), losses[-1] if losses else None)
        candidate = replace(stronger(config, factor), members=1)
        state = fit_graph(probe, phi, candidate, seed=seed, device=device)
        losses.append(figures(sided_margins(state, test), test)["log_loss"])
    return stronger(config, FACTORS[int(np.argmin(losses))])


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
