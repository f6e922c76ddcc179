"""The parts of CoPL fitted to a world, and their mix: what ``evaluate`` calls copl-graph, copl-reward and copl.

As a full training job does (``training.fit``), a first graph and the reward model learn from a part of the training
labels, a probe keeps the rest, and how far each part is believed is learned on the probe; the graph that answers is
then fitted to all training labels.  The mix of ``copl`` is learned anew for texts and for people that training lacks,
on probe labels about texts and by people that the probe's training lacks.  Beside the graph and the text reward it
reads one more voice, each person's own habit of length and side (``baselines.fit_side_length``), which a network that
shares strength between people draws in too far when texts are new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from copl_core.config import Settings
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from copl_core.training.mix import Blend, fit_blend
from copl_core.training.probe import probe_world
from copl_core.training.world import World

MIDDLE = np.array([0.7, 0.2, 0.2])  # graph, text reward, habits: where the mix of a probe without labels stands
FEWEST_FOR_REWARD = 200  # labels; with fewer a reward model learns nothing that a graph does not tell


@dataclass(frozen=True)
class Placed:
    """A graph over every user and text of a world: those it was not fitted on are placed, people by their labels."""

    state: GraphState  # its response tables cover (R_all,)
    users: np.ndarray  # (U_all, d)
    side: np.ndarray  # (U_all,)

    def logits(self, asked: Comparisons) -> np.ndarray:
        """Calibrated log-odds (N,) of left, side included."""
        margin = self.state.margins(asked, self.users[asked.user])
        return margin + (self.state.side + self.side[asked.user]) / self.state.temperature


def place(state: GraphState, phi: np.ndarray, n_users: int, given: Comparisons, rule: str = "map") -> Placed:
    """Every user and text of a world in a graph whose user and response ids are rows of that world.

    Args:
        phi: (R_all, P) by row of the world.
        given: labels that people whom the graph lacks have given; who gave none stands at the population mean.
    """
    from copl_core.preference.adapt import Prior, adapt

    vectors, bias = state.place_responses(phi)
    vectors[state.response_ids], bias[state.response_ids] = state.response_vectors, state.response_bias
    wide = replace(state, response_vectors=vectors, response_bias=bias, response_ids=np.arange(len(phi)),
                   labels=_by_row(state))
    users, side = np.tile(state.population, (n_users, 1)), np.zeros(n_users, np.float32)
    users[state.user_ids], side[state.user_ids] = state.user_vectors, state.user_side
    prior = Prior.of(state)
    for user in np.setdiff1d(given.user, state.user_ids):
        found = adapt(wide, given.take(given.user == user), rule=rule, prior=prior)
        users[user], side[user] = found.vector, found.side
    return Placed(wide, users, side)


def _by_row(state: GraphState) -> Comparisons:
    """The state's labels with responses named by row of the world; users stay rows of the state."""
    labels, rows = state.labels, state.response_ids
    return replace(labels, left=rows[labels.left], right=rows[labels.right])


class Parts:
    """Everything fitted to one world, each part once and only when it is asked for."""

    def __init__(self, world: World, embed: Callable[[], np.ndarray], seed: int, settings: Settings) -> None:
        self.world, self.embed, self.seed, self.settings = world, embed, seed, settings

    @cached_property
    def config(self):
        from copl_core.preference.state import GraphConfig
        from copl_core.training.tune import tuned

        train = self.world.train
        return tuned(train, self.embed()[train.response_ids], GraphConfig(), seed=self.seed,
                     device=self.settings.device)

    @cached_property
    def graph(self) -> np.ndarray:
        """Log-odds (N,) by a graph of all training labels."""
        world = self.world
        return place(self._fit(world), self.embed(), len(world.users), world.context).logits(world.asked)

    @cached_property
    def reward(self) -> np.ndarray:
        """Log-odds (N,) by the reward model alone."""
        world = self.world
        everybody = _joined(world.train.labels, world.context)
        placed = place(self._probe_graph, self.embed(), len(world.users), everybody)
        return self._text(placed, world.asked, world.texts)

    @cached_property
    def mixed(self) -> np.ndarray:
        """Log-odds (N,) by all parts, each believed as far as it was right in the probe."""
        return self.blend.logits(self._voices(self.world, self.graph, self.has_reward and self.reward),
                                 self.world.new_text, self.world.new_user)

    @cached_property
    def blend(self) -> Blend:
        probe = self._probe
        phi = self.embed()[_rows(probe, self.world)]
        local = replace(self._probe_graph, user_ids=np.arange(probe.train.n_users),
                        response_ids=np.arange(probe.train.n_responses))
        placed = place(local, phi, len(probe.users), probe.context)
        text = self.has_reward and self._text(placed, probe.asked, probe.texts)
        voices = self._voices(probe, placed.logits(probe.asked), text)
        return fit_blend(voices, probe.asked.outcome, probe.new_text, probe.new_user, MIDDLE)

    @property
    def has_reward(self) -> bool:
        return self.settings.reward_budget_seconds > 0 and len(self._probe.train.labels) >= FEWEST_FOR_REWARD

    def _voices(self, world: World, graph: np.ndarray, text: np.ndarray | bool) -> np.ndarray:
        """(N, 3) log-odds of the graph, the text reward (zero where there is none) and habits."""
        from copl_core.training.baselines import fit_side_length

        habits = fit_side_length(world.train, [text for _, text in world.texts], self.seed)
        return np.column_stack([graph, text if text is not False else np.zeros(len(graph)),
                                habits.logits(world.asked, world.context)])

    @cached_property
    def _probe(self) -> World:
        return probe_world(self.world, self.seed)

    @cached_property
    def _probe_graph(self) -> GraphState:
        return self._fit(self._probe)

    def _fit(self, world: World) -> GraphState:
        from copl_core.training.graph_fit import fit_graph

        return fit_graph(world.train, self.embed()[world.train.response_ids], self.config, seed=self.seed,
                         device=self.settings.device)

    @cached_property
    def _model(self):
        from copl_core.reward.model import RewardConfig
        from copl_core.training.reward_fit import fit_reward
        from copl_core.weights import resolver

        settings = self.settings
        return fit_reward(self._probe.train, self._probe_graph.user_vectors,
                          RewardConfig.for_backbone(settings.backbone), weights=resolver(settings.weights),
                          seed=self.seed, device=settings.device, time_budget_s=settings.reward_budget_seconds)

    def _text(self, placed: Placed, asked: Comparisons, texts: tuple[tuple[str, str], ...]) -> np.ndarray:
        from copl_core.training.fit import text_margins

        return text_margins(self._model, asked, placed.users, texts)


def _joined(*several: Comparisons) -> Comparisons:
    return Comparisons(*(np.concatenate([getattr(one, name) for one in several]) for name in Comparisons.__slots__))


def _rows(probe: World, world: World) -> np.ndarray:
    """Row in the real world of every text of the probe."""
    row = {text: i for i, text in enumerate(world.texts)}
    return np.array([row[text] for text in probe.texts])
