"""The methods that ``evaluate`` knows by name; each is fitted to a world and gives log-odds of left for its labels.

copl          graph, text reward and two plain voices, mixed as learned on a part of the training labels (``parts``)
copl-graph    the preference graph alone
copl-reward   the text reward alone, at the budget of seconds that copl gives it
published     the graph of the paper (arXiv 2503.01658) as its authors' code runs it, and its rule for new users,
              but for a thousand steps in place of a hundred epochs (``schedules``)
taste         a regression on what a text is like, with the spread of tastes learned (``tastes``)
global, side-length, mf
              Bradley–Terry, each person's side and length, matrix factorisation (``baselines``)
uniform, i2e, vpl, pal, lore, group-oracle, …
              the published peers (``peers``)
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from copl_core.config import Settings
from copl_core.evaluation.dataset import EmbedTexts, EvalDataset, Method, without_strangers
from copl_core.evaluation.ensemble import KINDS, Parts, place
from copl_core.evaluation.peers import PEERS, imitation, seconds_for, uniform_reward
from copl_core.preference.state import GraphConfig
from copl_core.snapshots.mix import kind_of

MOST_STEPS = 1000  # of the published schedule, about, each a propagation over the whole graph at width 512
FASTER = 1e-3  # learning rate tried beside the paper's 1e-4 where labels are few
BASELINES = ("global", "side-length", "mf")
DEFAULT_METHODS = (*BASELINES, "copl-graph", "copl")
METHODS = ("copl", "copl-graph", "copl-reward", "published", "taste", *BASELINES, *PEERS)


class Methods:
    """All methods under one set of settings.  Parts that several methods share are fitted once a world."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._parts: list[tuple[EvalDataset, int, Parts]] = []

    def run(self, name: str, world: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray:
        """Log-odds (N,) of left for the asked labels of ``world``."""
        return self._find(name)(world, embed, seed)

    def _find(self, name: str) -> Method:
        if name == "uniform":
            return lambda world, embed, seed: uniform_reward(world, embed, seed, self.settings)
        if name in PEERS:
            return PEERS[name]
        if name in BASELINES:
            return _baseline(name)
        if name == "published":
            return self._published
        if name == "taste":
            return _taste
        if name == "copl-reward":
            seconds_for(name, self.settings)
        part = {"copl": "mixed", "copl-graph": "graph", "copl-reward": "reward"}[name]
        return lambda world, embed, seed: getattr(self.parts(world, embed, seed), part)

    def parts(self, world: EvalDataset, embed: EmbedTexts, seed: int) -> Parts:
        """The fits of this world, kept for the next method."""
        for known, its_seed, parts in self._parts:
            if known is world and its_seed == seed:
                return parts
        self._parts = [*self._parts[-1:], (world, seed, Parts(world, embed, seed, self.settings))]
        return self._parts[-1][2]

    def about(self, name: str, world: EvalDataset, embed: EmbedTexts, seed: int) -> dict:
        """What is to be told of a method beside its figures."""
        if name != "copl":
            return {}
        real = without_strangers(world)
        asked = {KINDS[kind] for kind in np.unique(kind_of(real.new_text, real.new_user))}
        told = self.parts(world, embed, seed).told()
        return {"mix": {kind: mix for kind, mix in told.items() if kind in asked}}

    def _published(self, world: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray:
        """The published graph by the schedule that its own held-out labels prefer."""
        from copl_core.training.graph_fit import fit_graph

        phi = embed()
        states = [
            fit_graph(world.train, phi[: world.train.n_responses], config, seed=seed, device=self.settings.device)
            for config in schedules(len(world.train.labels))
        ]
        best = min(states, key=lambda state: np.nan_to_num(state.metrics["log_loss"], nan=np.inf))
        return place(best, phi, len(world.users), world.context, "published").logits(world.asked)


def schedules(n_labels: int) -> list[GraphConfig]:
    """The published settings with the schedules that are tried for so many labels.

    The paper takes 100 epochs in batches of 1024, 14,700 steps on its largest world, at a learning rate of 1e-4.  Here
    it is about ``MOST_STEPS`` steps whatever the number of labels, fewer epochs where labels are many and more where
    they are few: a hundred epochs of a small file are a few hundred steps.  There ``FASTER`` is tried, too, and the
    better on the labels that the published schedule itself holds out is kept; where a hundred epochs are more than
    ``MOST_STEPS``, a step is dear and the paper's rate stands.  All else (width, layers, batch, warm-up and cosine, the
    best on held-out labels kept) is as published.
    """
    paper = GraphConfig.published()
    steps = max(1, math.ceil((1 - paper.holdout) * n_labels / paper.batch))  # of one epoch
    config = replace(paper, epochs=math.ceil(MOST_STEPS / steps))
    return [config, replace(config, lr=FASTER)] if steps * paper.epochs < MOST_STEPS else [config]


def _baseline(name: str) -> Method:
    def run(world: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray:
        from copl_core.training import baselines

        fit = {"global": baselines.fit_global, "side-length": baselines.fit_side_length, "mf": baselines.fit_mf}[name]
        texts = [text for _, text in world.texts]
        return fit(world.train, texts, seed, imitation(world, seed)).logits(world.asked, world.context)

    return run


def _taste(world: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray:
    from copl_core.evaluation.random_effects import fit_tastes

    return fit_tastes(world.train, embed()).logits(world.asked, world.context)
