"""The methods that ``evaluate`` knows by name; each is fitted to a world and gives log-odds of left for its labels.

    copl          graph, text reward and two plain voices, mixed as learned on a part of the training labels (``parts``)
    copl-graph    the preference graph alone
    copl-reward   the text reward alone, at the budget of seconds that copl gives it
    published     the graph of the paper (arXiv 2503.01658) as its authors' code runs it, and its rule for new users;
                  its hundred epochs are cut to a thousand steps where labels are many
    taste         a regression on what a text is like, with the spread of tastes learned (``tastes``)
    global, side-length, mf
                  Bradley–Terry, each person's side and length, matrix factorisation (``baselines``)
    uniform, i2e, vpl, pal, lore, group-oracle, …
                  the published peers (``peers``)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from copl_core.config import Settings
from copl_core.training.parts import Parts, place
from copl_core.training.peers import PEERS, uniform_reward
from copl_core.training.world import World

Embed = Callable[[], np.ndarray]  # φ (R_all, P), made when first asked for
Method = Callable[[World, Embed, int], np.ndarray]  # world, texts, seed → log-odds (N,) of left
MOST_STEPS = 1000  # of the published schedule, each a propagation over the whole graph at width 512
BASELINES = ("global", "side-length", "mf")
DEFAULT_METHODS = (*BASELINES, "copl-graph", "copl")
METHODS = ("copl", "copl-graph", "copl-reward", "published", "taste", *BASELINES, *PEERS)


class Methods:
    """All methods under one set of settings.  Parts that several methods share are fitted once a world."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._parts: list[tuple[World, int, Parts]] = []

    def run(self, name: str, world: World, embed: Embed, seed: int) -> np.ndarray:
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
        part = {"copl": "mixed", "copl-graph": "graph", "copl-reward": "reward"}[name]
        return lambda world, embed, seed: getattr(self.parts(world, embed, seed), part)

    def parts(self, world: World, embed: Embed, seed: int) -> Parts:
        """The fits of this world, kept for the next method."""
        for known, its_seed, parts in self._parts:
            if known is world and its_seed == seed:
                return parts
        self._parts = [*self._parts[-1:], (world, seed, Parts(world, embed, seed, self.settings))]
        return self._parts[-1][2]

    def about(self, name: str, world: World, embed: Embed, seed: int) -> dict:
        """What is to be told of a method beside its figures."""
        return {"mix": self.parts(world, embed, seed).told()} if name == "copl" else {}

    def _published(self, world: World, embed: Embed, seed: int) -> np.ndarray:
        from copl_core.preference.state import GraphConfig
        from copl_core.training.graph_fit import fit_graph

        config = GraphConfig.published()
        steps = len(world.train.labels) / config.batch
        config = replace(config, epochs=max(1, min(config.epochs, round(MOST_STEPS / steps))))
        phi = embed()
        state = fit_graph(world.train, phi[:world.train.n_responses], config, seed=seed, device=self.settings.device)
        return place(state, phi, len(world.users), world.context, "published").logits(world.asked)


def _baseline(name: str) -> Method:
    def run(world: World, embed: Embed, seed: int) -> np.ndarray:
        from copl_core.training import baselines

        fit = {"global": baselines.fit_global, "side-length": baselines.fit_side_length, "mf": baselines.fit_mf}[name]
        return fit(world.train, [text for _, text in world.texts], seed).logits(world.asked, world.context)

    return run


def _taste(world: World, embed: Embed, seed: int) -> np.ndarray:
    from copl_core.training.tastes import fit_tastes

    return fit_tastes(world.train, embed()).logits(world.asked, world.context)
