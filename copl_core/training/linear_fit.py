"""Fit the linear text reward (``reward.linear``) beside a graph.

What all users share (μ, A, θ, γ) is learned together with the own parts of the users, by L-BFGS on one convex loss; of
a large study, from some of the users.  Given the shared part, anybody's own part follows from their labels.

The graph's vector of a user knows the labels that A would learn to read from it, and A would trust it too much.  So
each label is learned with a vector that is placed (``adapt``) by the user's labels in the other folds, none of which
shares a response with it.

The prior variances are chosen by the log-loss of labels about responses that a trial fit has not seen; so is whether
the tags of labels are read (``reward.tag_directions``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from copl_core.preference.adapt import Prior, label_weights
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, CoplError
from copl_core.reward.linear import LinearConfig, LinearReward, TextFeatures, tag_weights
from copl_core.reward.tag_directions import FittedTags, TagDirections, frequent
from copl_core.tags import Tags
from copl_core.training.influence import default_factors
from copl_core.training.metrics import log_losses
from copl_core.training.progress import Progress
from copl_core.training.split import draws, uniform

FOLDS = 4  # of a user's labels
FOLD_SALT, UNSEEN_SALT, USER_SALT = 71, 72, 73
UNSEEN = 0.35  # share of the responses of which a trial fit sees no label
FEWEST_UNSEEN = 50  # decided labels between two of them; with fewer, the defaults stay
LEAST_GAIN = 0.01  # in log-loss, for which a default is given up: less is noise of the draw
STEPS, TRIAL_STEPS = 80, 25  # of L-BFGS at most
MOST_LABELS, TRIAL_LABELS = 20_000, 8_000  # that the shared part learns from
MOST_WEIGHTS = 1_500_000  # own weights of all users that learn together; L-BFGS keeps about twenty copies
SINGLE = 4_000_000  # numbers in a table of differences, from which it has single precision
PHASE = "text weights of users"
Choices = tuple[tuple[str, tuple[float, ...]], ...]  # names of settings, each with the values to try
# Tried one after another, each with the best of the values before it.
CHOICES: Choices = (("style", (0.0, 1.0)), ("common", (0.3, 1.0)), ("graph", (0.03, 0.0, 0.1)), ("own", (0.3, 1.0)))
OF_TAGS: Choices = (("reason", (0.0, 0.3, 0.9)),)  # tried last, where there are tags


def fit_linear(
    state: GraphState,
    phi: np.ndarray,
    config: LinearConfig | None = None,
    *,
    tags: Tags | None = None,
    progress: Progress | None = None,
) -> LinearReward:
    """A linear text reward of the users of ``state``, from the labels of its fit.

    Args:
        phi: (R, p) text embeddings, row j belongs to ``state.response_ids[j]``.
        config: prior variances and the weight of tags; None: they are chosen.
        tags: of ``state.labels``.
        progress: called with (phase, step, steps, None); what it raises ends the fit.

    Raises:
        CoplError: no label, or embeddings that do not belong to the responses.
    """
    if len(phi) != len(state.response_ids):
        raise CoplError(f"got {len(phi)} text embeddings for {len(state.response_ids)} responses: give one row each")
    if not len(state.labels):
        raise CoplError("There is no label to learn from: at least one is needed. Label a few pairs first.")
    report = progress or (lambda *_: None)
    report(PHASE, 0, 100, None)
    world = World.of(state, phi, report, tags)
    config = config or world.chosen(report)
    x = TextFeatures.of(world.phi, config.style, state.features_version)
    report(PHASE, 80, 100, None)
    found = world.shared(x(world.phi), config, np.arange(len(world.labels)), STEPS)
    return world.reward(x, config, found, tags)


@dataclass(frozen=True)
class Shared:
    """The solution of one fit."""

    common: np.ndarray  # (p,)
    from_graph: np.ndarray  # (q, p)
    strength: np.ndarray  # (R,)
    position_bias: float
    own: np.ndarray  # (U, p) δ, zero for users who did not take part
    took_part: np.ndarray  # (U,) bool
    directions: TagDirections | None = None  # of the tags that it has read


@dataclass(frozen=True)
class World:
    """The labels that a fit learns from, with what it needs of them: all of a graph state, or those of some users."""

    state: GraphState
    phi: np.ndarray  # (R, p)
    labels: Comparisons  # (M,)
    weight: np.ndarray  # (M,)
    vectors: np.ndarray  # (M, q) of each label's user, placed without this label, standardised
    user_mean: np.ndarray  # (q,)
    user_scale: float
    tags: Tags | None = None  # of the labels

    @classmethod
    def of(cls, state: GraphState, phi: np.ndarray, report: Progress, tags: Tags | None = None) -> World:
        known = state.user_vectors[state.n_labels > 0].astype(np.float64)
        mean = known.mean(0)
        scale = float(np.sqrt(((known - mean) ** 2).sum(1).mean())) or 1.0
        rows = some_users(state, state.labels, MOST_LABELS, phi.shape[1])
        labels = state.labels.take(rows)
        vectors = (placed_by_other_folds(state, rows, report) - mean) / scale
        tags = None if tags is None else tags.take(rows)
        return cls(state, np.asarray(phi, np.float64), labels, label_weights(state, labels), vectors, mean, scale, tags)

    def chosen(self, report: Progress, best: LinearConfig | None = None, choices: Choices = CHOICES) -> LinearConfig:
        """The prior variances, and the weight of tags, with the least log-loss on labels about responses that a trial
        fit has not seen; ``best`` or the defaults where there are too few of these."""
        labels, best = self.labels, best or LinearConfig()
        rows = some_users(self.state, labels, TRIAL_LABELS)
        ids = (
            self.state.user_ids[labels.user],
            self.state.response_ids[labels.left],
            self.state.response_ids[labels.right],
        )
        unseen = draws("response", *ids, UNSEEN_SALT) < UNSEEN  # (N, 2)
        learned, test = rows[~unseen[rows].any(1)], rows[unseen[rows].all(1) & labels.decided[rows]]
        if len(test) < FEWEST_UNSEEN or not labels.decided[learned].any():
            return best
        losses: dict[LinearConfig, float] = {}
        choices += OF_TAGS if self.has_tags(learned) else ()
        trials = sum(len(values) for _, values in choices)
        for name, values in choices:
            for value in values:
                config = replace(best, **{name: value})
                if config not in losses:
                    report(PHASE, 20 + 60 * len(losses) // trials, 100, None)
                    losses[config] = self._loss(config, learned, test)
                if losses[config] < losses[best] - LEAST_GAIN:
                    best = config
        return best

    def has_tags(self, rows: np.ndarray) -> bool:
        """Whether a tag of the labels ``rows`` is frequent enough for a direction."""
        return self.tags is not None and len(frequent(self.tags.take(rows), self.labels.take(rows))) > 0

    def _loss(self, config: LinearConfig, learned: np.ndarray, test: np.ndarray) -> float:
        x = TextFeatures.of(self.phi, config.style, self.state.features_version)(self.phi)
        found = self.shared(x, config, learned, TRIAL_STEPS)
        labels = self.labels.take(test)
        difference = x[labels.left] - x[labels.right]
        weights = found.common + self.vectors[test] @ found.from_graph + found.own[labels.user]
        return float(log_losses((difference * weights).sum(1), labels.outcome).mean())

    def shared(
        self, x: np.ndarray, config: LinearConfig, rows: np.ndarray, steps: int, start: np.ndarray | None = None
    ) -> Shared:
        """The solution for the labels ``rows``, from features x (R, p).

        Args:
            start: of the iteration, in units of the prior's standard deviations; zeros by default.
        """
        labels = self.labels.take(rows)
        users, user = np.unique(labels.user, return_inverse=True)
        difference, vectors, weight = x[labels.left] - x[labels.right], self.vectors[rows], self.weight[rows]
        factor = default_factors(labels, weight, len(self.state.user_ids))
        if factor is not None:
            weight = weight * factor[labels.user]
        wide: np.ndarray | float = 1.0 if factor is None else factor[users, None] ** -0.5
        directions = None
        if self.tags is not None and config.reason:
            tags = self.tags.take(rows)
            directions = TagDirections.of(difference, labels, tags)
        order = np.argsort(user, kind="stable")
        labels, weight = labels.take(order), weight[order]
        terms = None
        if directions is not None:
            tags = directions.among(tags.take(order), labels)
            terms = _TagTerms(directions, tags, tag_weights(config, tags, weight))
        loss = _Loss(difference[order], vectors[order], user[order], labels, weight, len(x), config, terms, wide)
        first = np.zeros(loss.size) if start is None else start
        found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 8})
        common, from_graph, own, strength, side = loss.parts(found.x)
        all_own = np.zeros((len(self.state.user_ids), x.shape[1]))
        all_own[users] = loss.deviation("own") * (own * wide)
        took_part = np.zeros(len(all_own), bool)
        took_part[users] = True
        return Shared(
            loss.deviation("common") * common,
            loss.deviation("graph") * from_graph,
            loss.deviation("response") * strength,
            float(side[0]),
            all_own,
            took_part,
            directions,
        )

    def reward(
        self, features: TextFeatures, config: LinearConfig, found: Shared, tags: Tags | None = None
    ) -> LinearReward:
        """The reward, with the numbers of the users whose labels took part in the fit.

        Args:
            tags: of all labels of the graph state.
        """
        state, labels = self.state, self.state.labels
        fitted = found.took_part
        read = None
        if tags is not None and found.directions is not None:
            tags = found.directions.among(tags, labels)
            read = FittedTags(found.directions, tags, np.zeros(len(tags)))
        reward = LinearReward(
            config if read is not None else replace(config, reason=0.0),
            features,
            found.common,
            found.from_graph,
            self.user_mean,
            self.user_scale,
            features(self.phi).astype(np.float16).astype(np.float32),  # as they are stored
            found.strength,
            found.position_bias,
            np.zeros(len(labels)),
            fitted,
            read,
        )
        weight = label_weights(state, labels)
        of_users = list(_by_user(labels.user, np.flatnonzero(fitted[labels.user])))
        order, start, of_tags = np.concatenate(of_users), 0, []
        in_order = None if read is None else read.tags.take(order)
        for rows in of_users:
            expected = reward.expected(state.user_vectors[labels.user[rows[:1]]])[0]
            theirs = None if in_order is None else in_order.between(start, start + len(rows))
            numbers = reward.own_numbers(expected, labels.take(rows), weight[rows], theirs)
            reward.own[rows] = numbers[: len(rows)]
            of_tags.append(numbers[len(rows) :])
            start += len(rows)
        if read is not None:
            read.own[read.tags.found(order)[0]] = np.concatenate(of_tags)
        return reward


class _TagTerms:
    """Σ w log-loss over the tags of labels: one more label along a direction each, which is preferred (M of N labels).

    Margins are taken from a table of labels and directions, since the differences of all tags are M × p.
    """

    def __init__(self, directions: TagDirections, tags: Tags, weight: np.ndarray) -> None:
        self.steps, self.weight = directions.steps, weight
        self.label, self.column = tags.label, directions.columns(tags.key)

    def __call__(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss under the weights (N, p) of the labels' users, and its gradient in these."""
        steps = self.steps.astype(weights.dtype)
        margin = (weights @ steps.T)[self.label, self.column]
        slope = (-self.weight * expit(-margin)).astype(weights.dtype)
        table = csr_array((slope, (self.label, self.column)), shape=(len(weights), len(steps)))
        return float((self.weight * np.logaddexp(0, -margin)).sum()), table @ steps


class _Loss:
    """Σ w log-loss + ½ |v|² and its gradient, for parameters v in units of their prior standard deviations.

    Labels are sorted by user.

    Args:
        wide: factor (U, 1) on the deviation of each user's own part, where labels weigh less (``influence``).
    """

    def __init__(
        self,
        difference: np.ndarray,
        vectors: np.ndarray,
        user: np.ndarray,
        labels: Comparisons,
        weight: np.ndarray,
        n_responses: int,
        config: LinearConfig,
        tags: _TagTerms | None = None,
        wide: np.ndarray | float = 1.0,
    ) -> None:
        self.tags, self.wide = tags, wide
        kind = np.float64 if difference.size < SINGLE else np.float32
        self.x, self.vectors = difference.astype(kind), vectors.astype(kind)
        self.user, self.labels, self.weight, self.config = user, labels, weight, config
        self.starts = np.flatnonzero(np.diff(user, prepend=-1))
        p, q = difference.shape[1], vectors.shape[1]
        self.shapes = (p,), (q if config.graph else 0, p), (len(self.starts), p), (n_responses,), (1,)
        self.ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        self.size = int(self.ends[-1])

    def deviation(self, name: str) -> float:
        """Standard deviation of a prior of the config."""
        return float(np.sqrt(getattr(self.config, name)))

    def parts(self, v: np.ndarray) -> tuple[np.ndarray, ...]:
        """μ, A, δ, θ and γ of v, unscaled; A has no rows where it is not used."""
        pieces = np.split(v, self.ends[:-1])
        parts = [piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]
        if not self.config.graph:
            parts[1] = np.zeros((self.vectors.shape[1], self.x.shape[1]))
        return tuple(parts)

    def __call__(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        common, from_graph, own, strength, side = self.parts(v)
        labels, scale = self.labels, self.deviation
        weights = scale("own") * (own * self.wide)[self.user] + scale("common") * common
        if self.config.graph:
            weights = weights + scale("graph") * (self.vectors @ from_graph)
        margin = (self.x * weights).sum(1)
        margin = margin + scale("response") * (strength[labels.left] - strength[labels.right])
        margin = margin + side[0] * labels.position_known
        loss = (self.weight * (np.logaddexp(0, margin) - labels.outcome * margin)).sum() + 0.5 * (v @ v)
        slope = self.weight * (expit(margin) - labels.outcome)
        pulled = self.x * slope[:, None]  # (N, p)
        if self.tags is not None:
            of_tags, pulled_by_tags = self.tags(weights)
            loss, pulled = loss + of_tags, pulled + pulled_by_tags
        parts = [scale("common") * pulled.sum(0)]
        if self.config.graph:
            parts.append(scale("graph") * (self.vectors.T @ pulled).ravel())
        parts.append(scale("own") * (np.add.reduceat(pulled, self.starts, axis=0) * self.wide).ravel())
        n = self.shapes[3][0]
        parts.append(scale("response") * (np.bincount(labels.left, slope, n) - np.bincount(labels.right, slope, n)))
        parts.append(np.array([(slope * labels.position_known).sum()]))
        return float(loss), np.concatenate(parts).astype(np.float64) + v


def placed_by_other_folds(state: GraphState, rows: np.ndarray, report: Progress | None = None) -> np.ndarray:
    """Vectors (K, q) of the users of labels ``rows`` (K,), each placed by the user's labels in other folds that share
    no response with the labels of its own fold."""
    labels, prior = state.labels, Prior.of(state)
    ids = state.response_ids[labels.left], state.response_ids[labels.right]
    fold = uniform(np.full(len(labels), FOLD_SALT), state.user_ids[labels.user], np.minimum(*ids), np.maximum(*ids))
    fold = np.floor(fold * FOLDS).astype(int)
    out, at = np.zeros((len(rows), state.user_vectors.shape[1])), np.zeros(len(labels), np.int64)
    at[rows] = np.arange(len(rows))
    of_users = list(_by_user(labels.user, rows))
    for done, own in enumerate(of_users):
        if report is not None and done % 500 == 0:
            report(PHASE, 20 * done // len(of_users), 100, None)
        for number in np.unique(fold[own]):
            inside = own[fold[own] == number]
            touched = np.union1d(labels.left[inside], labels.right[inside])
            apart = ~(np.isin(labels.left[own], touched) | np.isin(labels.right[own], touched))
            others = own[apart]
            out[at[inside]] = prior.explain(state, labels.take(others)).vector if len(others) else prior.mean[:-1]
    return out


def _by_user(user: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each user, in turn."""
    order = rows[np.argsort(user[rows], kind="stable")]
    return iter(np.split(order, np.flatnonzero(np.diff(user[order])) + 1))


def some_users(state: GraphState, labels: Comparisons, most_labels: int, width: int = 1) -> np.ndarray:
    """Rows of all labels of users drawn by id, until they have ``most_labels`` labels, or ``MOST_WEIGHTS`` weights of
    this width."""
    count = np.bincount(labels.user, minlength=len(state.user_ids))
    number = uniform(np.full(len(count), USER_SALT), state.user_ids)
    order = np.argsort(number, kind="stable")
    order = order[count[order] > 0]
    before = np.cumsum(count[order]) - count[order]  # labels of the users drawn earlier
    taken = order[(before < most_labels) & (np.arange(len(order)) * width < MOST_WEIGHTS)]
    chosen = np.zeros(len(count), bool)
    chosen[taken] = True
    return np.flatnonzero(chosen[labels.user])
