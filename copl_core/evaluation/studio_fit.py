"""What a full run of the studio fits to a dataset, and predicts: copl-graph, copl-reward, copl-linear and copl.

All parts come from the functions of the trainer (``trainer.job``): the choice of priors, the graph without the held-out
labels, the reward model, the linear text reward, the mix of all, and the graph of all labels that serves.  So what
``evaluate`` measures is what a snapshot serves.  Only one thing is added, since a snapshot gives rewards and
``evaluate`` predicts labels: the position bias of the graph, where the position is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from copl_core.config import Settings
from copl_core.evaluation.dataset import EvalDataset
from copl_core.preference.adapt import label_weights
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from copl_core.reward.linear import of_differences
from copl_core.snapshots.mix import Mix
from copl_core.trainer.schedule import FEWEST

KINDS = ("known texts", "new texts")  # names in the report
_OF_TRAINING = ("_job", "_config", "_reward", "_state")  # parts of a ``StudioFit`` that read no context label
GRAPH_ALONE = Mix(graph_new=1.0, text_new=0.0)


@dataclass(frozen=True)
class ExtendedGraph:
    """A graph over every user and text of a dataset.  Users and texts that it was not fitted on have predicted vectors:
    users from their labels, texts from their embeddings."""

    state: GraphState  # its response tables cover (R_all,)
    users: np.ndarray  # (U_all, d)
    side: np.ndarray  # (U_all,)
    inverse_temperature: np.ndarray  # (U_all,)

    def margins(self, test: Comparisons) -> np.ndarray:
        """Calibrated log-odds (N,) of left over right, wherever the two are shown."""
        return self.state.margins(test, self.users[test.user]) * self.inverse_temperature[test.user]

    def position(self, test: Comparisons) -> np.ndarray:
        """What the position adds to the log-odds (N,) of left where it is known."""
        return (self.state.position_bias + self.side[test.user]) * test.position_known / self.state.temperature

    def logits(self, test: Comparisons) -> np.ndarray:
        """Calibrated log-odds (N,) of left, with the position bias where the position is known."""
        return self.margins(test) + self.position(test)


def extend_graph(
    state: GraphState, phi: np.ndarray, dataset: EvalDataset, context: Comparisons, rule: str = "map"
) -> ExtendedGraph:
    """Add every user and text of a dataset to a graph whose user and response ids are rows of that dataset.

    Args:
        phi: (R_all, P) embeddings of the texts of the dataset.
        context: labels of users who are not in the graph; a user without any has the population mean.
        rule: how a user is placed from labels (``adapt``).
    """
    from copl_core.preference.adapt import Prior, adapt

    n_users = len(dataset.users)
    vectors, bias = state.embed_responses(phi, [prompt for prompt, _ in dataset.texts])
    vectors[state.response_ids], bias[state.response_ids] = state.response_vectors, state.response_bias
    wide = replace(
        state, response_vectors=vectors, response_bias=bias, response_ids=np.arange(len(phi)), labels=_by_row(state)
    )
    users, side = np.tile(state.population, (n_users, 1)), np.zeros(n_users, np.float32)
    users[state.user_ids], side[state.user_ids] = state.user_vectors, state.user_position_bias
    inverse_temperature = np.ones(n_users, np.float32)
    if state.user_inverse_temperature is not None:
        inverse_temperature[state.user_ids] = state.user_inverse_temperature
    prior = Prior.of(state)
    for user in np.setdiff1d(context.user, state.user_ids):
        adapted = adapt(wide, context.take(context.user == user), rule=rule, prior=prior)
        users[user], side[user] = adapted.vector, adapted.position_bias
    return ExtendedGraph(wide, users, side, inverse_temperature)


def _by_row(state: GraphState) -> Comparisons:
    """The labels of the state with responses as rows of the dataset; users stay rows of the state."""
    labels, rows = state.labels, state.response_ids
    return replace(labels, left=rows[labels.left], right=rows[labels.right])


class StudioFit:
    """The parts that a full run fits to one dataset; each is fitted once, at its first use."""

    def __init__(self, dataset: EvalDataset, embed: Callable[[], np.ndarray], seed: int, settings: Settings) -> None:
        self.dataset, self.embed = dataset, embed
        self.settings = replace(settings, seed=seed)

    def with_context(self, context: Comparisons) -> StudioFit:
        """This fit where new users have given other labels, without tags.  What has been fitted is not fitted again."""
        dataset = replace(self.dataset, context=context, context_tags=None)
        other = StudioFit(dataset, self.embed, self.settings.seed, self.settings)
        vars(other).update({name: part for name, part in vars(self).items() if name in _OF_TRAINING})
        return other

    @property
    def graph(self) -> np.ndarray:
        """Log-odds (N,) by the graph of all training labels."""
        return self._serving.logits(self.dataset.test)

    @cached_property
    def reward(self) -> np.ndarray:
        """Log-odds (N,) by the reward model alone.

        Raises:
            CoplError: too few labels for a full run.
        """
        from copl_core.trainer.job import text_margins

        return text_margins(self._reward.model, self.dataset.test, self._text_vectors, self.dataset.texts)

    @cached_property
    def linear(self) -> np.ndarray:
        """Log-odds (N,) by the linear text reward alone.

        Raises:
            CoplError: too few labels for a full run.
        """
        dataset, fitted = self.dataset, self._reward
        test, phi, linear, vectors = dataset.test, self.embed(), fitted.linear, self._text_vectors
        context, tags = dataset.context, dataset.context_tags
        users, row = np.unique(test.user, return_inverse=True)
        weights = np.zeros((len(users), phi.shape[1]))
        known = users < dataset.train.n_users
        labels = fitted.graph.labels
        of_fit = label_weights(fitted.graph, labels)
        weights[known] = linear.of_fit(users[known], vectors[users[known]], labels, of_fit)
        known_texts = np.maximum(context.left, context.right) < dataset.train.n_responses
        for k in np.flatnonzero(~known):
            rows = np.flatnonzero((context.user == users[k]) & known_texts)
            theirs, reasons = context.take(rows), None if tags is None else tags.take(rows)
            weights[k] = linear.of_labels(vectors[users[k]], theirs, label_weights(fitted.graph, theirs), reasons)
        return of_differences(linear.features(phi), test, weights[row])

    @cached_property
    def mixed(self) -> np.ndarray:
        """Log-odds (N,) by graph, experts and linear text reward, weighted as in the snapshot of this run."""
        dataset, serving, mix = self.dataset, self._serving, self.mix
        graph = np.where(dataset.new_text, mix.graph_new, mix.graph)
        text = np.where(dataset.new_text, mix.text_new, mix.text)
        linear = np.where(dataset.new_text, mix.linear_new, mix.linear)
        margin = graph * serving.margins(dataset.test)
        margin = margin + (text * self.reward if text.any() else 0.0) + (linear * self.linear if linear.any() else 0.0)
        return margin + serving.position(dataset.test)

    @property
    def mix(self) -> Mix:
        """The weights of graph and text reward; the graph alone where there is no reward model."""
        return self._reward.mix if self.has_reward else GRAPH_ALONE

    @property
    def has_reward(self) -> bool:
        """Whether the studio would fit a reward model to these labels."""
        return len(self.dataset.train.labels) >= FEWEST["full"] and self.settings.reward_budget_seconds > 0

    def weights(self) -> dict[str, dict]:
        """Weights of the parts for each of ``KINDS`` that is tested, and "n", the held-out labels behind them."""
        mix, text = self.mix, self.has_reward
        known = {"graph": mix.graph} | ({"experts": mix.text, "text weights": mix.linear} if text else {})
        new = {"graph": mix.graph_new} | ({"experts": mix.text_new, "text weights": mix.linear_new} if text else {})
        known, new = known | {"n": mix.n}, new | {"n": mix.n_new}
        return {KINDS[kind]: (known, new)[kind] for kind in np.unique(self.dataset.new_text).astype(int)}

    @cached_property
    def _job(self):
        from copl_core.install.weights import resolver
        from copl_core.trainer.job import Job

        train, settings = self.dataset.train, self.settings
        phi = self.embed()[train.response_ids]
        return Job(train, phi, settings, resolver(settings.weights))

    @cached_property
    def _config(self):
        """The settings of the graph, as chosen by a full run."""
        return self._job.graph_config("full")

    @cached_property
    def _reward(self):
        return self._job.fit_reward(self._config)

    @cached_property
    def _state(self) -> GraphState:
        """The graph of all training labels."""
        return self._job.fit_graph(self._job.data, self._config, "graph", warm=None)

    @cached_property
    def _text_vectors(self) -> np.ndarray:
        """Vectors (U_all, d) of all users in the graph that the text rewards were fitted beside."""
        dataset = self.dataset
        given = dataset.train.labels.joined(dataset.context)
        return extend_graph(self._reward.graph, self.embed(), dataset, given).users

    @cached_property
    def _serving(self) -> ExtendedGraph:
        return extend_graph(self._state, self.embed(), self.dataset, self.dataset.context)
