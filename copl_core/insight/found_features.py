"""Features that are found in the texts of a study, beside those that are counted (``copl_core.features``).

Found features are a sparse code of the difference of a pair's text embeddings, as in WIMHF (Movva et al., arXiv
2510.26202), which trains a sparse autoencoder on such differences.  Here the dictionary is fitted by the method of
optimal directions (Engan et al., ICASSP 1999) with codes by matching pursuit (Mallat & Zhang, 1993): closed-form steps,
deterministic, in seconds on a CPU, and odd in the difference: swapped responses have exactly the negative code::

    x = φ_a − φ_b ≈ Σ_f z_f d_f        at most ``per_pair`` of the M numbers z_f are not zero

A feature has no words.  It is shown by the responses whose pairs have the largest |z_f|.  The trainer finds features
(``training.found_fit``), and a snapshot holds them beside its groups.  Numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from copl_core.logistic import penalised_logistic
from copl_core.records import Comparisons

FEATURES = 16  # M
PER_PAIR = 4  # numbers of a code that are not zero
ROUNDS = 15  # of codes and dictionary in turn
STARTS = 4  # of which the best is kept: a single one may end in a local optimum
PAIRS = 4000  # that the dictionary is fitted to
DIRECTIONS = 64  # principal directions that stand for all of φ
EXAMPLES = 12  # pairs that a snapshot holds of each feature; not every one may be shown
PRECISIONS = (3.0, 10.0, 30.0, 100.0)  # of the priors on weights that ``held_out_log_odds`` chooses from
_SAMPLES = 2000  # of the bootstrap over users
_RIDGE = 1e-6  # relative, of the least squares of the dictionary


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Directions of differences of text embeddings."""

    directions: np.ndarray  # (M, P), unit rows, the one that explains most first
    per_pair: int

    def codes(self, differences: np.ndarray) -> np.ndarray:
        """Signed codes (N, M) of differences (N, P), each with at most ``per_pair`` entries that are not zero.

        A step takes z_f d_f from the rest of a difference, and so z_f times a row of the Gram matrix from its products
        with all directions: the rest itself is never formed.
        """
        along = (differences @ self.directions.T).astype(np.float64)  # (N, M) products of the rests
        gram = self.directions @ self.directions.T
        codes, row = np.zeros_like(along), np.arange(len(along))
        for _ in range(min(self.per_pair, len(self.directions))):
            best = np.abs(along).argmax(1)
            size = along[row, best]
            codes[row, best] += size
            along -= size[:, None] * gram[best]
        return codes

    def explained(self, differences: np.ndarray) -> float:
        """Share of the sum of squares of differences (N, P) that the codes restore."""
        left = differences - self.codes(differences) @ self.directions
        return float(1 - (left**2).sum() / max((differences**2).sum(), 1e-300))


def find(
    differences: np.ndarray, n_features: int = FEATURES, per_pair: int = PER_PAIR, rounds: int = ROUNDS, seed: int = 0
) -> Dictionary:
    """The dictionary that restores most of the differences (N, P), of ``STARTS``; of more than ``PAIRS`` a sample is
    read.

    Raises:
        ValueError: there is no difference, or all are zero.
    """
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(np.any(differences, axis=1))
    if not len(rows):
        raise ValueError("there is no pair whose texts differ in their embeddings: at least one is needed")
    if len(rows) > PAIRS:
        rows = rng.choice(rows, PAIRS, replace=False)
    x = differences[rows].astype(np.float64)
    tried = []
    for _ in range(STARTS):
        one = Dictionary(_spread_rows(x, min(n_features, len(x)), rng), per_pair)
        for _ in range(rounds):
            one = Dictionary(_refitted(x, one), per_pair)
        tried.append(one)
    found = max(tried, key=lambda one: one.explained(x))
    energy = (found.codes(x) ** 2).sum(0)
    return Dictionary(found.directions[np.argsort(-energy, kind="stable")], per_pair)


def _spread_rows(x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Unit rows (n, P) to start from: each drawn by its squared distance from the lines through those before."""
    left, chosen = (x**2).sum(1), []
    for _ in range(n):
        total = left.sum()
        row = rng.choice(len(x), p=left / total) if total > 0 else rng.integers(len(x))
        chosen.append(x[row] / np.linalg.norm(x[row]))
        left = np.minimum(left, np.maximum((x**2).sum(1) - (x @ chosen[-1]) ** 2, 0))
    return np.stack(chosen)


def _refitted(x: np.ndarray, found: Dictionary) -> np.ndarray:
    """The least-squares directions for the present codes; one that nothing uses becomes the worst-explained row."""
    codes = found.codes(x)
    gram = codes.T @ codes
    ridge = _RIDGE * max(np.trace(gram) / len(gram), 1e-300)
    directions = np.linalg.solve(gram + ridge * np.eye(len(gram)), codes.T @ x)
    size = np.linalg.norm(directions, axis=1)
    unused = np.flatnonzero((size < 1e-9) | ~codes.any(0)).tolist()
    if unused:
        worst = np.argsort(-((x - codes @ found.directions) ** 2).sum(1), kind="stable")
        for number, feature in enumerate(unused):
            directions[feature] = x[worst[number % len(worst)]]
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def principal(differences: np.ndarray, most: int = DIRECTIONS) -> np.ndarray:
    """The leading principal directions (P, q) of differences (N, P)."""
    _, axes = np.linalg.eigh(differences.T @ differences)
    return axes[:, ::-1][:, :most]


# ---- what they predict


@dataclass(frozen=True, slots=True)
class Gain:
    """What features add to others on held-out labels."""

    before: float  # accuracy
    after: float
    low: float  # 95 % interval of after − before, over users
    high: float
    n: int  # held-out labels

    @property
    def certain(self) -> bool:
        return self.low > 0


@dataclass(frozen=True, slots=True)
class Split:
    """Masks (N,) of decided labels; learned and test ones share no (user, response), on both levels."""

    learned: np.ndarray
    test: np.ndarray
    inner_learned: np.ndarray  # within the learned ones, to choose precisions
    inner_test: np.ndarray


def held_out_log_odds(design: np.ndarray, labels: Comparisons, n_users: int, split: Split) -> np.ndarray:
    """Log-odds of left for the test labels, by logistic regression with weights of all users and of each user.

    The precision of the prior on weights, and on each user's own, is the best of ``PRECISIONS`` on the inner split.

    Args:
        design: (N, F) differences left − right of each label's features, on one scale.
        labels: N decided labels.
    Returns:
        (test,) log-odds.
    """
    x = on_one_scale(design)

    def loss(precisions: tuple[float, float]) -> float:
        m = _log_odds(x, labels, n_users, split.inner_learned, split.inner_test, precisions)
        y = labels.outcome[split.inner_test]
        return float((np.logaddexp(0, m) - y * m).mean())

    common = min(PRECISIONS, key=lambda one: loss((one, np.inf)))
    own = min((*PRECISIONS, np.inf), key=lambda one: loss((common, one)))
    return _log_odds(x, labels, n_users, split.learned, split.test, (common, own))


def _log_odds(
    x: np.ndarray,
    labels: Comparisons,
    n_users: int,
    learned: np.ndarray,
    test: np.ndarray,
    precisions: tuple[float, float],
) -> np.ndarray:
    """Log-odds of the test labels; an infinite second precision gives all users the same weights."""
    zero, eye = np.zeros(x.shape[1]), np.eye(x.shape[1])
    common = penalised_logistic(x[learned], 0.0, labels.outcome[learned], 1.0, zero, 0.1 * precisions[0] * eye).mode
    weights = np.tile(common, (n_users, 1))
    if np.isfinite(precisions[1]):
        for user in np.unique(labels.user[test]).tolist():
            own = learned & (labels.user == user)
            if own.any():
                weights[user] = penalised_logistic(
                    x[own], 0.0, labels.outcome[own], 1.0, common, 0.1 * precisions[1] * eye
                ).mode
    return (x[test] * weights[labels.user[test]]).sum(1)


def on_one_scale(*parts: np.ndarray) -> np.ndarray:
    """Designs (N, ·) side by side, each with rows of mean squared length 1."""
    return np.hstack([part / max(np.sqrt((part**2).sum(1).mean()), 1e-300) for part in parts])


def find_in(encoder: np.ndarray, labels: Comparisons, mask: np.ndarray, n_features: int = FEATURES) -> Dictionary:
    """The dictionary of the distinct pairs of the masked labels, from the encoder's coordinates (R, P)."""
    pairs = np.unique(np.stack([labels.left, labels.right], 1)[mask], axis=0)
    return find(encoder[pairs[:, 0]] - encoder[pairs[:, 1]], n_features)


def gain_over_counted(
    counted: np.ndarray,
    encoder: np.ndarray,
    labels: Comparisons,
    n_users: int,
    splits: Sequence[Split],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Gain:
    """What found features add to the counted ones.

    Args:
        counted: (R, F) standardised features of the responses.
        encoder: (R, P) coordinates of their text embeddings.
        labels: decided labels, by row of the users and responses.
        progress: called with (splits done, splits); what it raises ends the work.
    """
    before, after, rows = [], [], []
    style = counted[labels.left] - counted[labels.right]
    apart = encoder[labels.left] - encoder[labels.right]
    for done, split in enumerate(splits):
        progress(done, len(splits))
        found = find_in(encoder, labels, split.learned)
        both = on_one_scale(style, found.codes(apart))
        before.append(held_out_log_odds(style, labels, n_users, split))
        after.append(held_out_log_odds(both, labels, n_users, split))
        rows.append(np.flatnonzero(split.test))
    return gain(np.concatenate(before), np.concatenate(after), labels.take(np.concatenate(rows)))


def gain(before: np.ndarray, after: np.ndarray, labels: Comparisons, seed: int = 0) -> Gain:
    """What log-odds ``after`` (N,) hit more than ``before`` (N,) of the labels, with a bootstrap over users."""
    hits = np.stack([(one > 0) == (labels.outcome > 0.5) for one in (before, after)]).astype(float)
    user = np.unique(labels.user, return_inverse=True)[1]
    change, counts = np.bincount(user, hits[1] - hits[0]), np.bincount(user)
    times = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), _SAMPLES)
    drawn = (times @ change) / np.maximum(times @ counts, 1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Gain(float(hits[0].mean()), float(hits[1].mean()), float(low), float(high), len(labels))


# ---- what they are, shown by texts


def examples(codes: np.ndarray, pairs: np.ndarray, prompt: np.ndarray, most: int = EXAMPLES) -> np.ndarray:
    """For each feature the pairs in which it is largest, of different prompts, strongest first.

    Args:
        codes: (N, M) of the pairs, first − second.
        pairs: (N, 2) rows of responses.
        prompt: (R,) prompt of each response.
    Returns:
        (M, most, 2) rows of responses, the one with more of the feature first; −1 where there are no more pairs.
    """
    found = np.full((codes.shape[1], most, 2), -1)
    for z, own in zip(codes.T, found, strict=True):
        order = np.argsort(-np.abs(z), kind="stable")
        order = order[np.sort(np.unique(prompt[pairs[order, 0]], return_index=True)[1])]  # the first of each prompt
        order = order[z[order] != 0][:most]
        own[: len(order)] = np.where(z[order, None] > 0, pairs[order], pairs[order][:, ::-1])
    return found


@dataclass(frozen=True, slots=True)
class FoundFeatures:
    """What a snapshot holds: the gain, and M features with their examples and their groups unless it is uncertain."""

    gain: Gain  # over the counted features, on held-out labels
    n_texts: int
    n_labels: int
    dictionary: Dictionary
    examples: np.ndarray  # (M, ``EXAMPLES``, 2) ids of responses, the one with more of the feature first; −1 for none
    groups: Mapping[int, tuple[tuple[int, float], ...]]  # group → (feature, signed d), certain ones, strongest first

    def tables(self) -> dict[str, np.ndarray]:
        return {"directions": self.dictionary.directions.astype(np.float32), "examples": self.examples}

    def facts(self) -> dict[str, Any]:
        """All that is no table, as JSON."""
        return {
            "gain": asdict(self.gain),
            "n_texts": self.n_texts,
            "n_labels": self.n_labels,
            "per_pair": self.dictionary.per_pair,
            "groups": {str(group): own for group, own in self.groups.items()},
        }

    @classmethod
    def read(cls, facts: Mapping[str, Any], tables: Mapping[str, np.ndarray]) -> FoundFeatures:
        groups = {int(group): tuple((int(f), float(d)) for f, d in own) for group, own in facts["groups"].items()}
        return cls(
            Gain(**facts["gain"]),
            facts["n_texts"],
            facts["n_labels"],
            Dictionary(tables["directions"], facts["per_pair"]),
            tables["examples"],
            groups,
        )
