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

from copl_core.preference.state import GraphConfig
from copl_core.records import TrainingData
from copl_core.training.metrics import figures
from copl_core.training.split import uniform

FACTORS = (1.0, 4.0, 10.0, 25.0)  # of the configured precision of the priors
STARTS = (1.0,)  # of messages, beside the configured one: neighbours speak as loudly as oneself
LAYERS = (100.0, 10.0)  # precision of the prior on layer matrices, beside the configured one
FEWEST = 150  # decided labels apart from the learned ones; with fewer the configured priors stand
MOST = 2_000_000  # labels; with more the configured priors stand, since every candidate takes minutes
_SHARE = 0.3  # of each person's responses that are kept from the probe

Progress = Callable[[str, int, int, float | None], None]


def tuned(data: TrainingData, phi: np.ndarray, config: GraphConfig, *, seed: int, device: str = "cpu",
          progress: Progress | None = None) -> GraphConfig:
    """The configuration with the priors that predict best; one small graph is fitted for each candidate.

    First the precision of the priors is chosen together with the strength that messages start at, then how far layers
    may move from there.

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
    losses: dict[GraphConfig, float] = {}

    def best(candidates: list[GraphConfig]) -> GraphConfig:
        for candidate in candidates:
            if progress is not None:
                progress("choosing priors", len(losses), n_candidates, min(losses.values(), default=None))
            state = fit_graph(probe, phi, replace(candidate, members=1), seed=seed, device=device)
            losses[candidate] = figures(sided_margins(state, test), test)["log_loss"]
        return min(losses, key=losses.__getitem__)

    n_candidates = len(_firm(config)) + len(_moving(config))
    return best(_moving(best(_firm(config))))


def _firm(config: GraphConfig) -> list[GraphConfig]:
    """Every precision of the priors with every strength of messages; large graphs have settled on the strength."""
    starts = [config.message_start, *(start for start in STARTS if _layered(config) and start != config.message_start)]
    return [stronger(replace(config, message_start=start), factor) for start in starts for factor in FACTORS]


def _moving(config: GraphConfig) -> list[GraphConfig]:
    """Layers that may move further than the configured ones."""
    return [replace(config, l2_layer=precision) for precision in LAYERS if _layered(config) and
            precision < config.l2_layer]


def _layered(config: GraphConfig) -> bool:
    """Whether messages of this graph pass through matrices whose start and prior are open to choice."""
    return config.rule == "copl" and config.layers > 0 and config.large > 0


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
