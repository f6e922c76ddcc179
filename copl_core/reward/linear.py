"""The linear text reward: each user weighs the features of a text, and learns from their own labels in milliseconds.

    logit P(a ≻ b | u) = w_u · (x_a − x_b) + θ_a − θ_b + γ,     w_u = μ + A ê_u + δ_u,     δ_u ~ N(0, c I)

x are features of a text: its embedding and its style features.  μ is what all users like.  A reads the user's vector
ê_u of the preference graph, so that a user with few labels leans on others who answer alike; δ_u is the user's own
part, so that a user with many labels leans on these.  θ is what a known response has beyond its features, and γ the
position bias of the left side; both serve the fit only, and no reward contains them.

All priors are Gaussian, so the fit is a penalised logistic regression: convex, with one solution.  Given μ and A, the
own part of a user is a sum over their labelled texts (the representer theorem): δ_u = c Σ_i a_i (x_left − x_right) over
their labels i, with a_i = w_i (y_i − p_i) at the solution.  So a fit stores one number per label, and a new user is a
system of as many equations as they have labels.  Both ways give the same weights.

Linear weights of users on shared features: Reward Feature Models (arXiv 2503.17338).  numpy only.

Shapes: N labels and M tags of labels, n labels and m tags of one user, U users, R responses of the fit, T texts, p
features, q the width of user vectors.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.special import expit

from copl_core.features import FEATURE_NAMES
from copl_core.logistic import MAX_STEPS, TOLERANCE, fraction, penalised_logistic
from copl_core.records import Comparisons, CoplError
from copl_core.reward.tag_directions import FittedTags
from copl_core.tags import Tags

FORMAT, FORMAT_WITH_TAGS = 1, 2
FILE = "linear"  # .safetensors and .json
STYLE_LIMIT = 4.0  # standard deviations: a text of an odd style counts as at most so odd
N_STYLE = len(FEATURE_NAMES)


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """Prior variances of the linear text reward, and what tags weigh; ``training.linear_fit`` chooses."""

    common: float = 0.3  # of each weight in μ
    graph: float = 0.03  # of each weight in A; 0: no A
    own: float = 0.3  # c, of each weight in δ_u; 0: no δ_u
    response: float = 1.0  # of each θ
    style: float = 0.0  # standard deviation of all style features together, where the embedding has 1
    reason: float = 0.0  # weight of all tags of a label, where the label has 1; 0: tags are not read

    def stored(self) -> dict[str, float]:
        """As files have it; a weight of tags is in those of fits that read tags."""
        return {name: value for name, value in asdict(self).items() if name != "reason" or value}


@dataclass(frozen=True)
class TextFeatures:
    """x of texts: the embedding and the style features of φ, centred and scaled by the responses of a fit."""

    mean: np.ndarray  # (p,)
    scale: np.ndarray  # (p,), 0 for a feature that is not used
    limit: np.ndarray  # (p,), largest absolute value
    version: int  # of the style features in φ

    @classmethod
    def of(cls, phi: np.ndarray, style: float, version: int) -> TextFeatures:
        """From φ (R, p), whose last columns are the style features."""
        mean, deviation = phi.mean(0, dtype=np.float64), phi.std(0, dtype=np.float64)
        scale, limit = np.zeros(len(mean)), np.full(len(mean), np.inf)
        length = np.sqrt((deviation[:-N_STYLE] ** 2).sum())
        scale[:-N_STYLE] = 1 / length if length > 0 else 0.0
        varies = deviation[-N_STYLE:] > 1e-6
        share = style / np.sqrt(max(varies.sum(), 1))  # standard deviation of each style feature
        scale[-N_STYLE:][varies] = share / deviation[-N_STYLE:][varies]
        limit[-N_STYLE:] = STYLE_LIMIT * share
        return cls(mean, scale, limit, version)

    def __call__(self, phi: np.ndarray) -> np.ndarray:
        """x (T, p) of texts by φ (T, p).

        Raises:
            CoplError: φ has another width than in the fit.
        """
        if phi.shape[1] != len(self.mean):
            raise CoplError(
                f"The text embedding has {phi.shape[1]} numbers and the text reward was fitted on {len(self.mean)}: "
                "embed with the encoder the snapshot was made with."
            )
        return np.clip((phi - self.mean) * self.scale, -self.limit, self.limit)


@dataclass(frozen=True)
class LinearReward:
    """A fitted linear text reward.  Its rewards are log-odds, up to a constant of each prompt.

    Users and responses are rows of the graph state it was fitted beside; labels are those of that state.
    """

    config: LinearConfig
    features: TextFeatures
    common: np.ndarray  # (p,) μ
    from_graph: np.ndarray  # (q, p) A, transposed
    user_mean: np.ndarray  # (q,) of the users of the fit
    user_scale: float  # root mean square length of centred user vectors
    responses: np.ndarray  # (R, p) x of the responses of the fit
    response_strength: np.ndarray  # (R,) θ
    position_bias: float  # γ
    own: np.ndarray  # (N,) a of each label of the fit
    fitted: np.ndarray  # (U,) bool, whether ``own`` covers the labels of a user
    read: FittedTags | None = None  # None: the fit has not read tags

    def belongs_to(self, n_users: int, n_responses: int, n_labels: int) -> bool:
        """Whether the tables are those of a fit with so many users, responses and labels."""
        p, q = len(self.common), len(self.user_mean)
        shapes = {
            "from_graph": (q, p),
            "responses": (n_responses, p),
            "response_strength": (n_responses,),
            "own": (n_labels,),
            "fitted": (n_users,),
        }
        scaling = {getattr(self.features, name).shape for name in ("mean", "scale", "limit")}
        tables = scaling == {(p,)} and all(getattr(self, name).shape == shape for name, shape in shapes.items())
        return tables and (self.read is None or self.read.belong_to(n_labels, p))

    def rewards(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Rewards (N, T) of texts with φ (T, p) under users' weights (N, p)."""
        return weights @ self.features(phi).T

    def expected(self, vectors: np.ndarray) -> np.ndarray:
        """μ + A ê_u, the weights (U, p) of users before their own labels, from user vectors (U, q)."""
        return self.common + self._standardise(vectors) @ self.from_graph

    def of_fit(self, rows: np.ndarray, vectors: np.ndarray, labels: Comparisons, weight: np.ndarray) -> np.ndarray:
        """Weights (K, p) of users of the fit, as ``of_labels`` finds them.

        Args:
            rows: (K,) of the users.
            vectors: (K, q) their vectors in the graph.
            labels: of the fit, (N,).
            weight: (N,) of the labels, see ``preference.adapt.label_weights``.
        """
        found = self.expected(vectors)
        at = np.full(len(self.fitted), -1)
        at[rows] = np.arange(len(rows))
        stored = np.flatnonzero((at[labels.user] >= 0) & self.fitted[labels.user])
        x = self._differences(labels.take(stored)) * self.own[stored, None]
        np.add.at(found, at[labels.user[stored]], self.config.own * x)
        if self.read is not None:
            user = labels.user[self.read.tags.label]
            stored = np.flatnonzero((at[user] >= 0) & self.fitted[user])
            key, numbers = self.read.tags.key[stored], self.read.own[stored]
            found += self.config.own * self.read.directions.sums(at[user[stored]], key, numbers, len(rows))
        others = np.flatnonzero(~self.fitted[rows])
        if len(others):
            order = np.argsort(labels.user, kind="stable")
            tags = None if self.read is None else self.read.tags.take(order)
            ends = np.searchsorted(labels.user[order], [rows[others], rows[others] + 1])
            for k, start, end in zip(others, *ends, strict=True):
                theirs, reasons = order[start:end], None if tags is None else tags.between(start, end)
                found[k] = self.of_labels(vectors[k], labels.take(theirs), weight[theirs], reasons)
        return found

    def of_labels(
        self, vector: np.ndarray, labels: Comparisons, weight: np.ndarray, tags: Tags | None = None
    ) -> np.ndarray:
        """The most probable weights (p,) of any user, given their labels.

        Args:
            vector: (q,) the user's vector.
            labels: (n,) with responses as rows of the fit.
            weight: (n,) of the labels.
            tags: of the labels.
        """
        expected = self.expected(vector[None])[0]
        evidence = self._evidence(labels, weight, tags)
        return expected + self.config.own * (self._numbers(expected, evidence) @ evidence.x)

    def own_numbers(
        self, expected: np.ndarray, labels: Comparisons, weight: np.ndarray, tags: Tags | None = None
    ) -> np.ndarray:
        """a (n + m,) of a user's labels and then of their tags with a direction, given the user's ``expected`` weights
        (p,)."""
        evidence = self._evidence(labels, weight, tags)
        numbers = self._numbers(expected, evidence)
        if tags is None or self.read is None:
            return numbers
        tags = self.read.directions.among(tags, labels)
        given = tag_weights(self.config, tags, weight)
        _, joined = np.unique(tags.key, return_inverse=True)
        own, total = (table[len(labels) :][joined] for table in (numbers, evidence.weight))
        share = np.divide(given, total, out=np.zeros(len(tags)), where=total > 0)
        return np.concatenate([numbers[: len(labels)], own * share])

    def _numbers(self, expected: np.ndarray, evidence: _Evidence) -> np.ndarray:
        x, offset, outcome, weight = evidence
        if not len(x) or not self.config.own:
            return np.zeros(len(x))
        return own_numbers(x, offset + x @ expected, outcome, weight, self.config.own)

    def _evidence(self, labels: Comparisons, weight: np.ndarray, tags: Tags | None) -> _Evidence:
        """What a user's labels say, and then their tags with a direction: equal tags of labels are one term, with the
        sum of their weights, so there are at most as many as directions."""
        own = _Evidence(self._differences(labels), self._offset(labels), labels.outcome, weight)
        if tags is None or self.read is None:
            return own
        tags = self.read.directions.among(tags, labels)
        keys, joined = np.unique(tags.key, return_inverse=True)
        x = self.read.directions.steps[self.read.directions.columns(keys)].astype(np.float64)
        weights = np.bincount(joined, tag_weights(self.config, tags, weight), len(keys))
        of_tags = _Evidence(x, np.zeros(len(keys)), np.ones(len(keys), np.float32), weights)
        return _Evidence(*map(np.concatenate, zip(own, of_tags, strict=True)))

    def draws(
        self,
        vector: np.ndarray,
        labels: Comparisons,
        weight: np.ndarray,
        count: int,
        seed: int = 0,
        tags: Tags | None = None,
    ) -> np.ndarray:
        """Draws (count, p) from the Laplace posterior around ``of_labels``; the same arguments give the same draws.

        Draws from the prior are moved to the posterior by the labels (Matheron's rule), which needs systems of as many
        equations as there are labels and tags.
        """
        mode, c = self.of_labels(vector, labels, weight, tags), self.config.own
        rng = np.random.default_rng(seed)
        prior = np.sqrt(c) * rng.standard_normal((count, len(mode)))
        if not len(labels) or not c:
            return mode + prior
        x, offset, _, weight = self._evidence(labels, weight, tags)
        p = expit(offset + x @ mode)
        curve = np.maximum(weight * p * (1 - p), 1e-9)
        seen = prior @ x.T + rng.standard_normal((count, len(x))) / np.sqrt(curve)  # (count, n)
        return mode + prior - c * np.linalg.solve(c * x @ x.T + np.diag(1 / curve), seen.T).T @ x

    def _differences(self, labels: Comparisons) -> np.ndarray:
        return (self.responses[labels.left] - self.responses[labels.right]).astype(np.float64)

    def _offset(self, labels: Comparisons) -> np.ndarray:
        strength = self.response_strength[labels.left] - self.response_strength[labels.right]
        return strength + self.position_bias * labels.position_known

    def _standardise(self, vectors: np.ndarray) -> np.ndarray:
        return (np.asarray(vectors, np.float64) - self.user_mean) / self.user_scale

    def save(self, folder: Path) -> None:
        """Write linear.safetensors and linear.json into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        half = {"responses": self.responses.astype(np.float16)}
        single = ("common", "from_graph", "user_mean", "response_strength", "own")
        tables = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in single}
        scaling = {f"features.{name}": getattr(self.features, name) for name in ("mean", "scale", "limit")}
        read = {} if self.read is None else {f"tags.{name}": table for name, table in self.read.tables().items()}
        save_file(half | tables | scaling | {"fitted": self.fitted} | read, folder / f"{FILE}.safetensors")
        facts = {
            "format": FORMAT if self.read is None else FORMAT_WITH_TAGS,
            "config": self.config.stored(),
            "features": self.features.version,
            "user_scale": self.user_scale,
            "position_bias": self.position_bias,
        }
        (folder / f"{FILE}.json").write_text(json.dumps(facts, indent=1))

    @classmethod
    def load(cls, folder: Path) -> LinearReward:
        """What ``save`` wrote.

        Raises:
            CoplError: the folder has no readable linear reward, or one of another format.
        """
        try:
            facts = json.loads((folder / f"{FILE}.json").read_text())
            tables = load_file(folder / f"{FILE}.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise CoplError(f"No linear text reward can be read from {folder} ({error}): fit it again.") from error
        if facts["format"] not in (FORMAT, FORMAT_WITH_TAGS):
            raise CoplError(
                f"{folder} has a linear text reward of format {facts['format']}, this version reads {FORMAT} and "
                f"{FORMAT_WITH_TAGS}: fit it again."
            )
        scaling = {name: tables.pop(f"features.{name}") for name in ("mean", "scale", "limit")}
        tables["responses"] = tables["responses"].astype(np.float32)
        of_tags = {name: tables.pop(name) for name in tuple(tables) if name.startswith("tags.")}
        read = {name.removeprefix("tags."): table for name, table in of_tags.items()}
        return cls(
            LinearConfig(**facts["config"]),
            TextFeatures(**scaling, version=facts["features"]),
            user_scale=facts["user_scale"],
            position_bias=facts["position_bias"],
            read=FittedTags.of_tables(read) if read else None,
            **tables,
        )


class _Evidence(NamedTuple):
    """Labels of one user as terms w (log(1 + exp m) − y m) with margins m = offset + x · w_u; k tags follow."""

    x: np.ndarray  # (n + k, p)
    offset: np.ndarray  # (n + k,)
    outcome: np.ndarray  # (n + k,) y
    weight: np.ndarray  # (n + k,)


def tag_weights(config: LinearConfig, tags: Tags, weight: np.ndarray) -> np.ndarray:
    """Weights (M,) of tags with a direction, from the weights (N,) of the labels; the tags of a label share one."""
    return config.reason * weight[tags.label] * tags.share


def of_differences(x: np.ndarray, labels: Comparisons, weights: np.ndarray) -> np.ndarray:
    """Log-odds (N,) of left over right, from features x (T, p) and the weights (N, p) of the labels' users."""
    return np.einsum("np,np->n", x[labels.left] - x[labels.right], weights)


def own_numbers(
    x: np.ndarray, offset: np.ndarray, outcome: np.ndarray, weight: np.ndarray, variance: float
) -> np.ndarray:
    """a (n,) of the own part δ = variance xᵀ a that minimises Σ w (log(1 + exp m) − y m) + |δ|² / (2 variance) over
    margins m = offset + x δ.

    Newton steps on a, under the kernel variance x xᵀ; with more labels than features on δ itself.

    Args:
        x: (n, p) differences of features.
        offset, outcome, weight: (n,).
    """
    n, p = x.shape
    if n > p:
        own = penalised_logistic(x, offset, outcome, weight, np.zeros(p), np.eye(p) / variance).mode
        return weight * (outcome - expit(offset + x @ own))
    kernel = variance * (x @ x.T)
    a, margin = np.zeros(n), np.array(offset, np.float64)
    for _ in range(MAX_STEPS):
        chance = expit(margin)
        curve = weight * np.maximum(chance * (1 - chance), 1e-12)
        move = np.linalg.solve(np.eye(n) + curve[:, None] * kernel, weight * (outcome - chance) - a)
        along = kernel @ move
        done = np.abs(along).max() < TOLERANCE
        size = 1.0 if done else fraction(margin, along, outcome, weight, float(a @ along), float(move @ along))
        a, margin = a + size * move, margin + size * along
        if done or size == 0:
            break
    return a
