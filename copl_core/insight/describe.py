"""What a group prefers compared with the rest, as measured text features with effect sizes and intervals.

Each user has one figure per feature: the mean difference preferred − rejected over their decided labels, in typical
differences of the study (``insight.taste``), or the model's counterpart, the slope of the predicted preference.  A
group's *effect* is the mean of its users less the mean of the others, and *d* is the effect in standard deviations
between users (J. Cohen 1988).  Users are the independent units, so the bootstrap resamples users (B. Efron 1979; each
user counts Poisson(1) times).  The interval's factor is the 95 % quantile of the largest deviation of any feature, in
standard errors, so an interval holds for all features at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS, measure_many
from copl_core.insight.taste import ALIKE
from copl_core.preference.state import GraphState

MOST = 5  # statements
TEXTS = 4000  # responses whose features are measured; in a larger study, those with most labels
_SAMPLES = 400  # of the bootstrap
_FEWEST = 3  # users on either side
_NEARLY = 0.8  # of the strongest d, from which a plainer correlated feature replaces the strongest
_MANY = 2000  # users from which a mean is treated as normal


@dataclass(frozen=True, slots=True)
class Contrast:
    """A group against the rest; columns follow ``FEATURE_NAMES``, NaN for excluded features."""

    effect: np.ndarray  # (F,) typical differences
    low: np.ndarray  # (F,)
    high: np.ndarray  # (F,)
    d: np.ndarray  # (F,) standard deviations between users
    people: int  # users of the group
    others: int
    n: int  # labels of the group, or pairs with predictions

    @property
    def certain(self) -> np.ndarray:
        """Mask (F,) of features whose whole interval is on one side of zero."""
        return (self.low > 0) | (self.high < 0)


@dataclass(frozen=True, slots=True)
class Statement:
    """One feature that a group prefers more, or less, than the rest."""

    feature: str
    words: str
    effect: float
    low: float
    high: float
    d: float
    correlated: tuple[str, ...]  # words of features that correlate with it in these texts


def user_means(user: np.ndarray, chosen: np.ndarray, n_users: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean difference of each user (U, F), labels behind it (U,)); NaN for users without labels.

    Args:
        user: (N,) row of the user of each decided label.
        chosen: (N, F) standardised differences, preferred − rejected; NaN columns are excluded features.
    """
    counts = np.bincount(user, minlength=n_users)
    sums = np.stack([np.bincount(user, column, minlength=n_users) for column in chosen.T], 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums / counts[:, None], counts


def most_labelled(state: GraphState) -> np.ndarray:
    """Rows of the responses to measure, in order."""
    n = len(state.response_ids)
    labels = np.bincount(np.concatenate([state.labels.left, state.labels.right]), minlength=n)
    return np.sort(np.argsort(-labels, kind="stable")[:TEXTS])


def styles(state: GraphState, texts: Mapping[int, str]) -> np.ndarray:
    """Features (R, F) of the most labelled responses of a graph; NaN for all others.

    Args:
        texts: response id → text; a text that is missing is not measured.
    """
    found = np.full((len(state.response_ids), len(FEATURE_NAMES)), np.nan)
    rows = [row for row in most_labelled(state).tolist() if int(state.response_ids[row]) in texts]
    found[rows] = measure_many([texts[int(state.response_ids[row])] for row in rows])
    return found


def label_leanings(
    state: GraphState, measured: np.ndarray, scale: np.ndarray, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(mean standardised difference of each user's decided labels (U, F), labels behind it (U,)).

    Args:
        measured: (R, F) features of the graph's responses, NaN for those that were not measured.
        scale: (F,) typical differences.
        rows: user rows of the graph, which the result then follows; None: all.
    """
    place = np.arange(len(state.user_ids))
    if rows is not None:
        place = np.full(len(state.user_ids), -1)
        place[rows] = np.arange(len(rows))
    labels = state.labels.take(state.labels.decided & (place[state.labels.user] >= 0))
    right = labels.outcome < 0.5
    preferred, rejected = np.where(right, labels.right, labels.left), np.where(right, labels.left, labels.right)
    known = np.isfinite(measured[preferred]).all(1) & np.isfinite(measured[rejected]).all(1)
    chosen = (measured[preferred[known]] - measured[rejected[known]]) / scale
    return user_means(place[labels.user[known]], chosen, len(place) if rows is None else len(rows))


def model_leanings(
    state: GraphState, pairs: np.ndarray, differences: np.ndarray, rows: np.ndarray | None = None
) -> np.ndarray:
    """Slope (U, F) of each user's predicted preference on each feature; NaN without pairs.

    Args:
        pairs: (P, 2) response rows.
        differences: (P, F) standardised, first − second.
        rows: as in ``label_leanings``.
    """
    vectors = state.user_vectors if rows is None else state.user_vectors[rows]
    if not len(pairs):
        return np.full((len(vectors), differences.shape[1]), np.nan)
    expected = expit(state.log_odds(vectors, pairs[:, 0], pairs[:, 1]))  # (U, P)
    return (2 * expected - 1) @ differences / len(pairs)


def contrast(leaning: np.ndarray, inside: np.ndarray, n: int, rng: np.random.Generator) -> Contrast | None:
    """A group against all others; None where either side has fewer than three users.

    Args:
        leaning: (U, F) one figure per user and feature; users with NaN in every feature are skipped.
        inside: (U,) mask of the group.
        n: number of labels, or pairs, behind the figures.
    """
    known = np.isfinite(leaning).any(1)
    leaning, inside = leaning[known], inside[known]
    if min(inside.sum(), (~inside).sum()) < _FEWEST:
        return None
    excluded = np.isnan(leaning).any(0)
    x = np.nan_to_num(leaning)
    drawn_in, drawn_out = _resampled(x[inside], rng), _resampled(x[~inside], rng)
    effect = x[inside].mean(0) - x[~inside].mean(0)
    drawn = drawn_in - drawn_out  # (S, F)
    error = drawn.std(0)
    away = np.abs(drawn - effect) / np.maximum(error, 1e-12)
    half = float(np.quantile(away[:, ~excluded].max(1, initial=0), 0.95)) * error
    squares = x[inside].var(0) * inside.sum() + x[~inside].var(0) * (~inside).sum()
    spread = np.sqrt(squares / max(1, len(x) - 2))
    d = np.divide(effect, spread, out=np.zeros_like(effect), where=spread > 1e-12)
    figures = (np.where(excluded, np.nan, value) for value in (effect, effect - half, effect + half, d))
    effect, low, high, d = figures
    return Contrast(effect, low, high, d, int(inside.sum()), int((~inside).sum()), n)


def statements(
    found: Contrast, correlation: np.ndarray, most: int = MOST, *, against: Contrast | None = None
) -> tuple[Statement, ...]:
    """What is certain, largest d first.

    Correlated features share one statement: that of the plainest (``FEATURE_NAMES`` begins with the plain ones) among
    those that are nearly as strong as the strongest.

    Args:
        against: the same group by its own labels; what they are even about, or speak against, is left out.
    """
    size = np.where(found.certain, np.abs(np.nan_to_num(found.d)), 0.0)
    if against is not None:
        size = np.where(np.nan_to_num(against.effect) * np.nan_to_num(found.effect) > 0, size, 0.0)
    covered: list[int] = []
    for strongest in np.argsort(-size, kind="stable").tolist():
        like = np.abs(correlation[strongest]) >= ALIKE
        like[strongest] = True
        feature = int(np.flatnonzero(like & (size >= _NEARLY * size[strongest]))[0])
        near = any(
            abs(correlation[one, other]) >= ALIKE or one == other for one in (feature, strongest) for other in covered
        )
        if len(covered) < most and size[strongest] > 0 and not near:
            covered.append(feature)
    return tuple(_statement(feature, found, correlation) for feature in covered)


def _statement(feature: int, found: Contrast, correlation: np.ndarray) -> Statement:
    sign = 1 if found.effect[feature] > 0 else -1
    correlated = tuple(
        _words(other, sign * correlation[feature, other])
        for other in np.argsort(-np.abs(correlation[feature])).tolist()
        if other != feature and abs(correlation[feature, other]) >= ALIKE
    )
    return Statement(
        FEATURE_NAMES[feature],
        _words(feature, sign),
        float(found.effect[feature]),
        float(found.low[feature]),
        float(found.high[feature]),
        float(found.d[feature]),
        correlated[:3],
    )


def _words(feature: int, direction: float) -> str:
    return FEATURE_WORDS[FEATURE_NAMES[feature]][0 if direction > 0 else 1]


def _resampled(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap means (S, F) over users; for many users, draws from the normal distribution of their mean."""
    if len(x) > _MANY:
        return rng.multivariate_normal(x.mean(0), np.cov(x.T) / len(x), _SAMPLES, check_valid="ignore", method="eigh")
    times = rng.poisson(1.0, (_SAMPLES, len(x)))
    return times @ x / np.maximum(times.sum(1, keepdims=True), 1)


def typical_users(vectors: np.ndarray, known: np.ndarray, most: int = 3) -> np.ndarray:
    """Rows of the users nearest to the mean of a group's vectors (n, q), among the ``known`` ones (n,)."""
    away = np.square(vectors - vectors.mean(0)).sum(1)
    return np.argsort(np.where(known, away, np.inf), kind="stable")[: min(most, int(known.sum()))]
