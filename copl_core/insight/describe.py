"""What a group prefers against the rest, as measured text features with effect sizes and intervals.  Numpy only.

Each person has one figure a feature: the mean difference preferred − rejected over their decided labels, in typical
differences of the study (``insight.taste``); or, as the model expects them to answer, the slope of the expected
preference.  A group's *effect* is the mean of its people less the mean of the others, and *d* the same in standard
deviations between people (J. Cohen 1988).  People are the independent units, so they are what is drawn again (B. Efron
1979; each person counted Poisson(1) times), and the interval's factor is the 95 % quantile of the largest deviation of
any feature, in standard errors: it holds for all features at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS
from copl_core.insight.taste import ALIKE

MOST = 5  # statements
_SAMPLES = 400  # of the bootstrap
_FEWEST = 3  # people on either side
_NEARLY = 0.8  # of the strongest, for a plainer word that goes with it
_MANY = 2000  # people from which a mean is normal


@dataclass(frozen=True, slots=True)
class Contrast:
    """A group against the rest; columns follow ``FEATURE_NAMES``, NaN where a feature is not spoken of."""

    effect: np.ndarray  # (F,) typical differences
    low: np.ndarray  # (F,)
    high: np.ndarray  # (F,)
    d: np.ndarray  # (F,) standard deviations between people
    people: int  # of the group
    others: int
    n: int  # labels of the group, or pairs looked at by the model

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
    along: tuple[str, ...]  # words of features that go along with it in these texts


def per_person(user: np.ndarray, chosen: np.ndarray, n_users: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean difference of each person (U, F), labels behind it (U,)); NaN for people without labels.

    Args:
        user: (N,) row of the person of each decided label.
        chosen: (N, F) standardised differences, preferred − rejected; NaN columns are not spoken of.
    """
    counts = np.bincount(user, minlength=n_users)
    sums = np.stack([np.bincount(user, column, minlength=n_users) for column in chosen.T], 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums / counts[:, None], counts


def contrast(leaning: np.ndarray, inside: np.ndarray, n: int, rng: np.random.Generator) -> Contrast | None:
    """A group against everybody else; None where either side has fewer than three people.

    Args:
        leaning: (U, F) one figure a person and feature; people with NaN in every feature are left out.
        inside: (U,) mask of the group.
        n: labels, or pairs, behind it, to be told.
    """
    there = np.isfinite(leaning).any(1)
    leaning, inside = leaning[there], inside[there]
    if min(inside.sum(), (~inside).sum()) < _FEWEST:
        return None
    silent = np.isnan(leaning).any(0)
    x = np.nan_to_num(leaning)
    drawn_in, drawn_out = _resampled(x[inside], rng), _resampled(x[~inside], rng)
    effect = x[inside].mean(0) - x[~inside].mean(0)
    drawn = drawn_in - drawn_out  # (S, F)
    error = drawn.std(0)
    away = np.abs(drawn - effect) / np.maximum(error, 1e-12)
    half = float(np.quantile(away[:, ~silent].max(1, initial=0), 0.95)) * error
    squares = x[inside].var(0) * inside.sum() + x[~inside].var(0) * (~inside).sum()
    spread = np.sqrt(squares / max(1, len(x) - 2))
    d = np.divide(effect, spread, out=np.zeros_like(effect), where=spread > 1e-12)
    values = [np.where(silent, np.nan, value) for value in (effect, effect - half, effect + half, d)]
    return Contrast(*values, int(inside.sum()), int((~inside).sum()), n)


def statements(found: Contrast, correlation: np.ndarray, most: int = MOST) -> tuple[Statement, ...]:
    """What is certain, largest d first.

    Features that go together in these texts are told once: by the plainest (``FEATURE_NAMES`` begins with the plain
    ones) of those that are nearly as strong as the strongest.
    """
    size = np.where(found.certain, np.abs(np.nan_to_num(found.d)), 0.0)
    told: list[int] = []
    for strongest in np.argsort(-size, kind="stable").tolist():
        like = np.abs(correlation[strongest]) >= ALIKE
        like[strongest] = True
        feature = int(np.flatnonzero(like & (size >= _NEARLY * size[strongest]))[0])
        near = any(
            abs(correlation[one, other]) >= ALIKE or one == other for one in (feature, strongest) for other in told
        )
        if len(told) < most and size[strongest] > 0 and not near:
            told.append(feature)
    return tuple(_statement(feature, found, correlation) for feature in told)


def _statement(feature: int, found: Contrast, correlation: np.ndarray) -> Statement:
    sign = 1 if found.effect[feature] > 0 else -1
    along = tuple(
        _words(other, sign * correlation[feature, other])
        for other in np.argsort(-np.abs(correlation[feature])).tolist()
        if other != feature and abs(correlation[feature, other]) >= ALIKE
    )
    return Statement(
        FEATURE_NAMES[feature],
        _words(feature, sign),
        *(float(getattr(found, name)[feature]) for name in ("effect", "low", "high", "d")),
        along[:3],
    )


def _words(feature: int, direction: float) -> str:
    return FEATURE_WORDS[FEATURE_NAMES[feature]][0 if direction > 0 else 1]


def _resampled(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means (S, F) of people drawn again; of many, from the normal law that their mean then follows."""
    if len(x) > _MANY:
        return rng.multivariate_normal(x.mean(0), np.cov(x.T) / len(x), _SAMPLES, check_valid="ignore", method="eigh")
    times = rng.poisson(1.0, (_SAMPLES, len(x)))
    return times @ x / np.maximum(times.sum(1, keepdims=True), 1)


def typical_people(vectors: np.ndarray, known: np.ndarray, most: int = 3) -> np.ndarray:
    """Rows of the people nearest to the middle of a group's vectors (n, q), among those who are well ``known`` (n,)."""
    away = np.square(vectors - vectors.mean(0)).sum(1)
    return np.argsort(np.where(known, away, np.inf), kind="stable")[: min(most, int(known.sum()))]
