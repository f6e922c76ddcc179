"""CoPL's components fitted to a dataset, and their stacking: the methods copl-graph, copl-reward and copl.

As in a full training job (``trainer.job``), a first graph and the reward model learn from a part of the training
labels; the weights of the components are learned on the rest, the validation labels.  The final graph is then fitted
to all training labels.  Weights are learned separately for new texts and new users, on validation labels about texts
and by users that the first graph has not seen.  Beside the graph and the text reward, copl has two plain components
whose errors differ from those of a network that shares strength between users, most of all where texts or users are
new: ``random_effects``, a regression on text features with user effects, and matrix factorisation with each user's
position bias and preference for length (``baselines.fit_mf``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from copl_core.config import Settings
from copl_core.evaluation.dataset import EvalDataset, rows_of
from copl_core.evaluation.validation import is_about_seen_responses, validation_dataset
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from copl_core.snapshots.mix import Stacking, fit_stacking, label_kind

COMPONENTS = ("graph", "text reward", "tastes", "factorisation")  # names in the report
KINDS = ("nothing new", "new text", "new person", "new text and person")  # names in the report, by ``label_kind``
# Prior of the stacking weights, for each of KINDS and COMPONENTS (see ``fit_stacking``).  Over cuts of llmfao this mean
# is better than weights learned from a few hundred labels, so only many validation labels move it far.  The text reward
# is good in one study and useless in another: its prior is weak.
KNOWN, NEW = (0.8, 0.1, 0.15, 0.15), (0.6, 0.1, 0.3, 0.2)
PRIOR_MEAN, PRIOR_STRENGTH = np.array([KNOWN, NEW, NEW, NEW]), np.array([300.0, 30.0, 300.0, 300.0])
MOST_TEXTS = 5000  # with more, the frozen layers of the reward model alone take minutes, and it is left out
FEWEST_FOR_REWARD = 200  # labels; with fewer, a reward model adds nothing to the graph


@dataclass(frozen=True)
class ExtendedGraph:
    """A graph over every user and text of a dataset.  Users and texts that it was not fitted on have predicted vectors:
    users from their labels, texts from their embeddings."""

    state: GraphState  # its response tables cover (R_all,)
    users: np.ndarray  # (U_all, d)
    side: np.ndarray  # (U_all,)
    inverse_temperature: np.ndarray  # (U_all,)

    def logits(self, test: Comparisons) -> np.ndarray:
        """Calibrated log-odds (N,) of left, with the position bias where the position is known."""
        margin = self.state.margins(test, self.users[test.user]) * self.inverse_temperature[test.user]
        side = (self.state.position_bias + self.side[test.user]) * test.position_known
        return margin + side / self.state.temperature


def extend_graph(
    state: GraphState, phi: np.ndarray, n_users: int, context: Comparisons, rule: str = "map"
) -> ExtendedGraph:
    """Add every user and text of a dataset to a graph whose user and response ids are rows of that dataset.

    Args:
        phi: (R_all, P) embeddings of the texts of the dataset.
        context: labels of users who are not in the graph; a user without any has the population mean.
        rule: how a user is placed from labels (``adapt``).
    """
    from copl_core.preference.adapt import Prior, adapt

    vectors, bias = state.embed_responses(phi)
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


class Components:
    """All models fitted to one dataset; each is fitted once, at its first use."""

    def __init__(self, dataset: EvalDataset, embed: Callable[[], np.ndarray], seed: int, settings: Settings) -> None:
        self.dataset, self.embed, self.seed, self.settings = dataset, embed, seed, settings

    @cached_property
    def config(self):
        """The graph configuration, chosen on the training labels."""
        from copl_core.preference.config import GraphConfig
        from copl_core.training.tune import tuned

        train = self.dataset.train
        return tuned(
            train,
            self.embed()[train.response_ids],
            GraphConfig(),
            seed=self.seed,
            device=self.settings.device,
            known_responses=is_about_seen_responses(self.dataset),
        )

    @cached_property
    def graph(self) -> np.ndarray:
        """Log-odds (N,) by a graph of all training labels."""
        dataset = self.dataset
        graph = extend_graph(self._fit_graph(dataset), self.embed(), len(dataset.users), dataset.context)
        return graph.logits(dataset.test)

    @property
    def reward(self) -> np.ndarray:
        """Log-odds (N,) by the reward model alone."""
        return self._text_margins[1]

    @cached_property
    def stacked(self) -> np.ndarray:
        """Log-odds (N,) by all components, with the weights learned on the validation labels."""
        dataset = self.dataset
        text = self.reward if self.has_reward else np.zeros(len(dataset.test))
        components = self._components(dataset, self.graph, text)
        return self.stacking.logits(components, dataset.new_text, dataset.new_user)

    @cached_property
    def stacking(self) -> Stacking:
        """Weights of the components, learned on the validation labels."""
        inner = self._validation
        text = self._text_margins[0] if self.has_reward else np.zeros(len(inner.test))
        components = self._components(inner, self._validation_graph.logits(inner.test), text)
        return fit_stacking(components, inner.test.outcome, inner.new_text, inner.new_user, PRIOR_MEAN, PRIOR_STRENGTH)

    @property
    def has_reward(self) -> bool:
        """Whether the text reward is one of the components."""
        enough = len(self._validation.train.labels) >= FEWEST_FOR_REWARD and len(self.dataset.texts) <= MOST_TEXTS
        return enough and self.settings.reward_budget_seconds > 0

    def weights(self) -> dict[str, dict]:
        """Weights of the components for each kind of test label, and "n", the validation labels behind them."""
        kinds = np.unique(label_kind(self.dataset.new_text, self.dataset.new_user))
        used = [name for name in COMPONENTS if name != "text reward" or self.has_reward]
        return {
            KINDS[kind]: {name: float(self.stacking.weights[kind, COMPONENTS.index(name)]) for name in used}
            | {"n": int(self.stacking.n[kind])}
            for kind in kinds
        }

    def _components(self, dataset: EvalDataset, graph: np.ndarray, text: np.ndarray) -> np.ndarray:
        """(N, 4) log-odds of the graph, the text reward, random effects and matrix factorisation."""
        from copl_core.evaluation.random_effects import fit_random_effects
        from copl_core.training.baselines import fit_mf

        phi = self.embed()[rows_of(dataset.texts, self.dataset.texts)]
        plain = (
            fit_random_effects(dataset.train, phi),
            fit_mf(dataset.train, [text for _, text in dataset.texts], self.seed),
        )
        return np.column_stack([graph, text, *(model.logits(dataset.test, dataset.context) for model in plain)])

    @cached_property
    def _text_margins(self) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds by the reward model, of the validation labels and of the test labels.

        Both are computed in one pass: the cost is in the texts, and the two share most of them.
        """
        from copl_core.trainer.job import text_margins

        dataset, inner = self.dataset, self._validation
        row = rows_of(inner.texts, dataset.texts)
        given = dataset.train.labels.joined(dataset.context)
        graph = extend_graph(self._first_graph, self.embed(), len(dataset.users), given)
        users = np.concatenate([self._validation_graph.users, graph.users])
        validation = replace(inner.test, left=row[inner.test.left], right=row[inner.test.right])
        test = replace(dataset.test, user=dataset.test.user + len(inner.users))
        margins = text_margins(self._model, validation.joined(test), users, dataset.texts)
        return margins[: len(validation)], margins[len(validation) :]

    @cached_property
    def _validation(self) -> EvalDataset:
        return validation_dataset(self.dataset, self.seed)

    @cached_property
    def _first_graph(self) -> GraphState:
        """The graph of the labels that are left beside the validation labels."""
        return self._fit_graph(self._validation)

    @cached_property
    def _validation_graph(self) -> ExtendedGraph:
        """The first graph with the users and texts of the validation labels."""
        inner = self._validation
        local = replace(
            self._first_graph, user_ids=np.arange(inner.train.n_users), response_ids=np.arange(inner.train.n_responses)
        )
        phi = self.embed()[rows_of(inner.texts, self.dataset.texts)]
        return extend_graph(local, phi, len(inner.users), inner.context)

    def _fit_graph(self, dataset: EvalDataset) -> GraphState:
        from copl_core.training.graph_fit import fit_graph

        phi = self.embed()[dataset.train.response_ids]
        return fit_graph(dataset.train, phi, self.config, seed=self.seed, device=self.settings.device)

    @cached_property
    def _model(self):
        from copl_core.install.weights import resolver
        from copl_core.reward.hidden import states_folder
        from copl_core.reward.model import RewardConfig
        from copl_core.training.reward_fit import fit_reward

        settings = self.settings
        return fit_reward(
            self._validation.train,
            self._first_graph.user_vectors,
            RewardConfig.for_backbone(settings.backbone, steps=settings.reward_steps),
            weights=resolver(settings.weights),
            seed=self.seed,
            device=settings.device,
            time_budget_s=settings.reward_budget_seconds,
            disk=states_folder(settings),
        )
