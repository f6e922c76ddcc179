"""The parts of CoPL fitted to a world, and their mix: what ``evaluate`` calls copl-graph, copl-reward and copl.

As a full training job does (``training.fit``), a first graph and the reward model learn from a part of the training
labels, a probe keeps the rest, and how far each part is believed is learned on the probe; the graph that answers is
then fitted to all training labels.  The mix of ``copl`` is learned anew for texts and for people that training lacks,
on probe labels about texts and by people that the probe's training lacks.  Beside the graph and the text reward it
listens to two plain voices that err elsewhere than a network that shares strength between people, most of all where
texts or people are new: ``tastes``, a regression on what a text is like with the spread of tastes learned, and the
matrix factorisation with each person's own side and length (``baselines.fit_mf``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from copl_core.config import Settings
from copl_core.evaluation.dataset import EvalDataset, places_of
from copl_core.evaluation.validation import asked_about_met, probe_world
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from copl_core.snapshots.mix import Stacking, fit_blend, kind_of

# Where the mix of a probe without labels stands, for each of KINDS and VOICES, and how firmly (see ``fit_blend``).
# Over cuts of llmfao this middle is better than what a few hundred labels say, so that only a large probe moves it
# far; the text reward is good in one study and useless in another, and has to show it.
KNOWN, NEW = (0.8, 0.1, 0.15, 0.15), (0.6, 0.1, 0.3, 0.2)
MIDDLE, PULL = np.array([KNOWN, NEW, NEW, NEW]), np.array([300.0, 30.0, 300.0, 300.0])
VOICES = ("graph", "text reward", "tastes", "factorisation")
KINDS = ("nothing new", "new text", "new person", "new text and person")
MOST_TEXTS = 5000  # more take minutes only to be read by the reward model's frozen layers, and it is left out
FEWEST_FOR_REWARD = 200  # labels; with fewer a reward model learns nothing that a graph does not tell


@dataclass(frozen=True)
class Placed:
    """A graph over every user and text of a world: those it was not fitted on are placed, people by their labels."""

    state: GraphState  # its response tables cover (R_all,)
    users: np.ndarray  # (U_all, d)
    side: np.ndarray  # (U_all,)
    firmness: np.ndarray  # (U_all,)

    def logits(self, asked: Comparisons) -> np.ndarray:
        """Calibrated log-odds (N,) of left, side included."""
        margin = self.state.margins(asked, self.users[asked.user]) * self.firmness[asked.user]
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
    wide = replace(
        state, response_vectors=vectors, response_bias=bias, response_ids=np.arange(len(phi)), labels=_by_row(state)
    )
    users, side = np.tile(state.population, (n_users, 1)), np.zeros(n_users, np.float32)
    users[state.user_ids], side[state.user_ids] = state.user_vectors, state.user_side
    firmness = np.ones(n_users, np.float32)
    if state.user_firmness is not None:
        firmness[state.user_ids] = state.user_firmness
    prior = Prior.of(state)
    for user in np.setdiff1d(given.user, state.user_ids):
        found = adapt(wide, given.take(given.user == user), rule=rule, prior=prior)
        users[user], side[user] = found.vector, found.side
    return Placed(wide, users, side, firmness)


def _by_row(state: GraphState) -> Comparisons:
    """The state's labels with responses named by row of the world; users stay rows of the state."""
    labels, rows = state.labels, state.response_ids
    return replace(labels, left=rows[labels.left], right=rows[labels.right])


class Parts:
    """Everything fitted to one world, each part once and only when it is asked for."""

    def __init__(self, world: EvalDataset, embed: Callable[[], np.ndarray], seed: int, settings: Settings) -> None:
        self.world, self.embed, self.seed, self.settings = world, embed, seed, settings

    @cached_property
    def config(self):
        from copl_core.preference.state import GraphConfig
        from copl_core.training.tune import tuned

        train = self.world.train
        return tuned(
            train,
            self.embed()[train.response_ids],
            GraphConfig(),
            seed=self.seed,
            device=self.settings.device,
            met=asked_about_met(self.world),
        )

    @cached_property
    def graph(self) -> np.ndarray:
        """Log-odds (N,) by a graph of all training labels."""
        world = self.world
        return place(self._fit(world), self.embed(), len(world.users), world.context).logits(world.asked)

    @property
    def reward(self) -> np.ndarray:
        """Log-odds (N,) by the reward model alone."""
        return self._texts[1]

    @cached_property
    def mixed(self) -> np.ndarray:
        """Log-odds (N,) by all parts, each believed as far as it was right in the probe."""
        world = self.world
        text = self.reward if self.has_reward else np.zeros(len(world.asked))
        return self.blend.logits(self._voices(world, self.graph, text), world.new_text, world.new_user)

    @cached_property
    def blend(self) -> Stacking:
        probe = self._probe
        text = self._texts[0] if self.has_reward else np.zeros(len(probe.asked))
        voices = self._voices(probe, self._placed_probe.logits(probe.asked), text)
        return fit_blend(voices, probe.asked.outcome, probe.new_text, probe.new_user, MIDDLE, PULL)

    @property
    def has_reward(self) -> bool:
        """Whether the mix hears the text reward."""
        enough = len(self._probe.train.labels) >= FEWEST_FOR_REWARD and len(self.world.texts) <= MOST_TEXTS
        return enough and self.settings.reward_budget_seconds > 0

    def told(self) -> dict[str, dict]:
        """Weights of the mix for each kind of label that is asked, and on how many probe labels they were learned."""
        kinds = np.unique(kind_of(self.world.new_text, self.world.new_user))
        heard = [name for name in VOICES if name != "text reward" or self.has_reward]
        return {
            KINDS[kind]: {name: float(self.blend.weights[kind, VOICES.index(name)]) for name in heard}
            | {"n": int(self.blend.n[kind])}
            for kind in kinds
        }

    def _voices(self, world: EvalDataset, graph: np.ndarray, text: np.ndarray) -> np.ndarray:
        """(N, 4) log-odds of the graph, the text reward, tastes and the factorisation."""
        from copl_core.evaluation.random_effects import fit_tastes
        from copl_core.training.baselines import fit_mf

        tastes = fit_tastes(world.train, self.embed()[places_of(world.texts, self.world.texts)])
        factors = fit_mf(world.train, [text for _, text in world.texts], self.seed)
        return np.column_stack([graph, text, *(one.logits(world.asked, world.context) for one in (tastes, factors))])

    @cached_property
    def _texts(self) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds by the reward model for what the probe asks and for what the world asks, in one go: the price is in
        the texts, and they share most of them."""
        from copl_core.trainer.job import text_margins

        world, probe = self.world, self._probe
        row = places_of(probe.texts, world.texts)
        everybody = place(self._probe_graph, self.embed(), len(world.users), world.train.labels.joined(world.context))
        users = np.concatenate([self._placed_probe.users, everybody.users])
        first = replace(probe.asked, left=row[probe.asked.left], right=row[probe.asked.right])
        then = replace(world.asked, user=world.asked.user + len(probe.users))
        margins = text_margins(self._model, first.joined(then), users, world.texts)
        return margins[: len(first)], margins[len(first) :]

    @cached_property
    def _placed_probe(self) -> Placed:
        probe = self._probe
        local = replace(
            self._probe_graph, user_ids=np.arange(probe.train.n_users), response_ids=np.arange(probe.train.n_responses)
        )
        return place(local, self.embed()[places_of(probe.texts, self.world.texts)], len(probe.users), probe.context)

    @cached_property
    def _probe(self) -> EvalDataset:
        return probe_world(self.world, self.seed)

    @cached_property
    def _probe_graph(self) -> GraphState:
        return self._fit(self._probe)

    def _fit(self, world: EvalDataset) -> GraphState:
        from copl_core.training.graph_fit import fit_graph

        return fit_graph(
            world.train,
            self.embed()[world.train.response_ids],
            self.config,
            seed=self.seed,
            device=self.settings.device,
        )

    @cached_property
    def _model(self):
        from copl_core.install.weights import resolver
        from copl_core.reward.model import RewardConfig
        from copl_core.training.reward_fit import fit_reward

        settings = self.settings
        return fit_reward(
            self._probe.train,
            self._probe_graph.user_vectors,
            RewardConfig.for_backbone(settings.backbone),
            weights=resolver(settings.weights),
            seed=self.seed,
            device=settings.device,
            time_budget_s=settings.reward_budget_seconds,
        )
