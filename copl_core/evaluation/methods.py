"""The methods that ``evaluate`` knows by name.  Each is fitted to a dataset and returns log-odds of left.

copl          what a snapshot of the studio serves: graph and text reward, mixed as the trainer does (``studio_fit``)
copl-graph    the graph of copl alone
copl-reward   the experts of copl alone: the reward model
copl-linear   the linear text reward of copl alone
published     the graph of the paper (arXiv 2503.01658) as its authors' code runs it, with the paper's rule for new
              users; one difference: about a thousand steps instead of a hundred epochs (``schedules``)
taste         a regression on text features with random effects of users (``random_effects``)
global, side-length, mf
              Bradley–Terry, each user's position bias and preference for length, matrix factorisation (``baselines``)
uniform, i2e, vpl, pal, lore, group-oracle, …
              the published peers (``peers``)
"""

from __future__ import annotations

import math

import numpy as np

from copl_core.config import Settings
from copl_core.evaluation.dataset import EmbedTexts, EvalDataset, Method, opposite
from copl_core.evaluation.peers import PEERS, reward_seconds, uniform_reward
from copl_core.evaluation.studio_fit import StudioFit, extend_graph
from copl_core.evaluation.validation import matched_split
from copl_core.preference.config import GraphConfig

MOST_STEPS = 1000  # of the published schedule, approximately; each step propagates over the whole graph at width 512
FASTER = 1e-3  # learning rate that is tried beside the paper's 1e-4 where there are few labels
BASELINES = ("global", "side-length", "mf")
DEFAULT_METHODS = (*BASELINES, "copl-graph", "copl")
STUDIO_PARTS = {"copl": "mixed", "copl-graph": "graph", "copl-reward": "reward", "copl-linear": "linear"}
METHODS = ("copl", "copl-graph", "copl-reward", "copl-linear", "published", "taste", *BASELINES, *PEERS)


class Methods:
    """All methods under one set of settings.  What several methods share is fitted once per dataset."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._fits: list[tuple[EvalDataset, int, StudioFit]] = []

    def run(self, name: str, dataset: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray:
        """Log-odds (N,) of left for the test labels of ``dataset``."""
        return self._method(name)(dataset, embed, seed)

    def _method(self, name: str) -> Method:
        if name == "uniform":
            return lambda dataset, embed, seed: uniform_reward(dataset, embed, seed, self.settings)
        if name in PEERS:
            return PEERS[name]
        if name in BASELINES:
            return _baseline(name)
        if name == "published":
            return self._published
        if name == "taste":
            return _random_effects
        if name in ("copl-reward", "copl-linear"):
            reward_seconds(name, self.settings)
        return lambda dataset, embed, seed: getattr(self.studio_fit(dataset, embed, seed), STUDIO_PARTS[name])

    def given_opposite(self, name: str, dataset: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray | None:
        """Log-odds (N,) where the context labels of new users are reversed and nothing is fitted again; None for a
        method that is no part of the studio, or without context labels."""
        if name not in STUDIO_PARTS or len(dataset.context) == 0:
            return None
        fit = self.studio_fit(dataset, embed, seed).with_context(opposite(dataset.context))
        return getattr(fit, STUDIO_PARTS[name])

    def studio_fit(self, dataset: EvalDataset, embed: EmbedTexts, seed: int) -> StudioFit:
        """The studio's fit of this dataset; those of the last two datasets are kept for the next method."""
        for known, known_seed, fit in self._fits:
            if known is dataset and known_seed == seed:
                return fit
        fit = StudioFit(dataset, embed, seed, self.settings)
        self._fits = [*self._fits[-1:], (dataset, seed, fit)]
        return fit

    def about(self, name: str, dataset: EvalDataset, embed: EmbedTexts, seed: int) -> dict:
        """What the report says of a method beside its metrics: the weights of copl, by kind of text."""
        return {"mix": self.studio_fit(dataset, embed, seed).weights()} if name == "copl" else {}

    def _published(self, dataset: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray:
        """The published graph, by the schedule with the lower loss on its own held-out labels."""
        from copl_core.training.graph_fit import fit_graph

        phi, train = embed(), dataset.train
        states = [
            fit_graph(train, phi[: train.n_responses], config, seed=seed, device=self.settings.device)
            for config in schedules(len(train.labels))
        ]
        best = min(states, key=lambda state: np.nan_to_num(state.metrics["log_loss"], nan=np.inf))
        return extend_graph(best, phi, dataset, dataset.context, "published").logits(dataset.test)


def schedules(n_labels: int) -> list[GraphConfig]:
    """The published settings, with the schedules to try for this number of labels.

    The paper trains 100 epochs in batches of 1024 (14,700 steps on its largest data set) at a learning rate of 1e-4.
    Here the number of steps is about ``MOST_STEPS`` whatever the number of labels: fewer epochs where there are many
    labels, more where there are few, since a hundred epochs of a small file are a few hundred steps.  For small files
    the rate ``FASTER`` is tried too, and the better of the two on the labels that the published schedule itself holds
    out is kept.  Where a hundred epochs are more than ``MOST_STEPS``, steps are expensive and only the paper's rate is
    used.  All else (width, layers, batch, warm-up and cosine, best held-out epoch kept) is as published.
    """
    published = GraphConfig.published()
    paper = published.paper
    steps = max(1, math.ceil((1 - published.schedule.holdout) * n_labels / paper.batch))  # of one epoch
    config = published.with_settings(epochs=math.ceil(MOST_STEPS / steps))
    return [config, config.with_settings(lr=FASTER)] if steps * paper.epochs < MOST_STEPS else [config]


def _baseline(name: str) -> Method:
    def run(dataset: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray:
        from copl_core.training import baselines

        fit = {"global": baselines.fit_global, "side-length": baselines.fit_side_length, "mf": baselines.fit_mf}[name]
        texts = [text for _, text in dataset.texts]
        return fit(dataset.train, texts, seed, matched_split(dataset, seed)).logits(dataset.test, dataset.context)

    return run


def _random_effects(dataset: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray:
    from copl_core.evaluation.random_effects import fit_random_effects

    return fit_random_effects(dataset.train, embed()).logits(dataset.test, dataset.context)
