"""What a person likes, in words: which measured features their choices lean towards.  Numpy only.

A label that prefers one response is a row of feature differences, preferred − rejected, in units of the *typical
difference* between two answers of this study (root mean square over its pairs).  Somebody who does not look at a
feature has a mean of zero on it.  Labels on one prompt share their texts, so prompts are the independent units:
standard errors are clustered by prompt, and the critical value is the 95 % quantile of the largest |t| of any feature
when each prompt's signs are flipped by coins (E. J. G. Pitman 1937; max-T of Westfall & Young 1993).  An interval
therefore holds for all features at once, and a person without a taste is told of one in at most five cases of a
hundred.  The effect that is told, and by which statements are ranked, is shrunk towards zero by empirical Bayes within
its interval, since the strongest of thirty is too strong by selection (B. Efron & C. Morris, JASA 70, 1975)::

    m_f ± c se_f      effect m_f τ² / (τ² + se_f²)      τ² = max(0, mean_f (m_f² − se_f²))

What the model believes is the same figure for all pairs of the study, each counted with the preference it expects: the
slope of the expected preference, from −1 to 1, on a feature's standardised difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS

MOST = 5  # statements, however much there is to say
ALIKE = 0.6  # correlation of differences from which two features are told as one
_FLIPS = 2000
_CONFIDENCE = 0.95
_RAREST = 0.02  # share of pairs that must differ in a feature before it is spoken of


@dataclass(frozen=True, slots=True)
class Effects:
    """One figure a feature, in typical differences; columns follow ``FEATURE_NAMES``."""

    mean: np.ndarray  # (F,)
    low: np.ndarray  # (F,)
    high: np.ndarray  # (F,)
    n: int  # labels, or pairs, behind it

    @property
    def certain(self) -> np.ndarray:
        """Mask (F,) of features whose whole interval is on one side of zero."""
        return (self.low > 0) | (self.high < 0)

    @classmethod
    def nothing(cls, n: int = 0) -> Effects:
        zero = np.zeros(len(FEATURE_NAMES))
        return cls(zero, zero - np.inf, zero + np.inf, n)


@dataclass(frozen=True, slots=True)
class Leaning:
    """One statement about a person's taste."""

    feature: str
    words: str  # what they like
    source: str  # "labels": their own labels settle it; "model": only people who answer alike do
    effect: float  # of that source, in typical differences; above zero: more of the feature
    low: float
    high: float
    n: int  # labels, or pairs looked at by the model
    by_labels: float
    by_model: float | None
    of_most: float | None  # what the model expects of the mean person
    votes: tuple[int, int, int]  # labels for, against, and on answers equal in it
    along: tuple[str, ...]  # words of features that go along with it in these texts


def typical(differences: np.ndarray) -> np.ndarray:
    """Scale (F,) of the differences (P, F) between the two answers of a pair; NaN for a feature that hardly varies."""
    if not len(differences):
        return np.full(differences.shape[1], np.nan)
    size = np.sqrt((differences**2).mean(0))
    rare = (np.abs(differences) > 1e-9).mean(0) < _RAREST
    return np.where(rare | (size < 1e-9), np.nan, size)


def alike(differences: np.ndarray) -> np.ndarray:
    """Correlation about zero (F, F) of standardised differences (P, F); 0 for features without a scale."""
    filled = np.nan_to_num(differences)
    size = np.sqrt((filled**2).sum(0))
    size[size == 0] = 1
    return (filled.T @ filled) / np.outer(size, size)


def from_labels(chosen: np.ndarray, prompts: np.ndarray, rng: np.random.Generator) -> Effects:
    """What the labels of one person say.

    Args:
        chosen: (N, F) standardised differences, preferred − rejected; NaN columns are not spoken of.
        prompts: (N,) prompt of each label.
        rng: draws the flips.
    """
    n = len(chosen)
    units, place = np.unique(prompts, return_inverse=True)
    if len(units) < 2:
        return Effects.nothing(n)
    silent = np.isnan(chosen).all(0)
    sums = np.zeros((len(units), chosen.shape[1]))
    np.add.at(sums, place, np.nan_to_num(chosen))
    counts = np.bincount(place).astype(float)
    mean, error = _moments(np.ones((1, len(units))), sums, counts)
    flipped = _t(*_moments(rng.choice([-1.0, 1.0], (_FLIPS, len(units))), sums, counts))
    if silent.all():
        return Effects.nothing(n)
    critical = float(np.quantile(np.abs(flipped[:, ~silent]).max(1), _CONFIDENCE, method="higher"))
    if not np.isfinite(critical):
        return Effects.nothing(n)
    mean, error = mean[0], error[0]
    spread = max(0.0, float((mean**2 - error**2)[~silent].mean()))
    half = np.where(silent, np.inf, critical * error)
    low, high = mean - half, mean + half
    drawn_in = mean * spread / np.maximum(spread + error**2, 1e-12)
    return Effects(np.clip(drawn_in, low, high), low, high, n)


def from_model(
    expected: np.ndarray, differences: np.ndarray, prompts: np.ndarray, *, draws: np.ndarray | None = None
) -> Effects:
    """What the model believes of one person.

    The doubt has two parts: which prompts a study happens to have, and where the person stands.  Both are drawn in by
    the model's prior over people already, so each interval is a plain 95 % one.

    Args:
        expected: (P,) P(first is preferred).
        differences: (P, F) standardised, first − second.
        prompts: (P,) prompt of each pair.
        draws: (K, P) the same probabilities for places where the person might stand as well.
    """
    x = np.nan_to_num(differences)
    silent = np.isnan(differences).all(0)
    units, place = np.unique(prompts, return_inverse=True)
    if len(units) < 2 or silent.all():
        return Effects.nothing(len(x))
    sums = np.zeros((len(units), x.shape[1]))
    np.add.at(sums, place, (2 * expected - 1)[:, None] * x)
    mean, error = (part[0] for part in _moments(np.ones((1, len(units))), sums, np.bincount(place).astype(float)))
    variance = error**2
    if draws is not None:
        variance = variance + ((2 * draws - 1) @ x / len(x)).var(0)
    critical = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    half = np.where(silent, np.inf, critical * np.sqrt(variance))
    return Effects(mean, mean - half, mean + half, len(x))


def leanings(
    labels: Effects,
    chosen: np.ndarray,
    correlation: np.ndarray,
    model: Effects | None = None,
    of_most: np.ndarray | None = None,
) -> tuple[Leaning, ...]:
    """At most five statements: what the labels settle, strongest first, then what only the model believes.

    Features that go together in these texts are told once, by the strongest of them.
    """
    told: list[int] = []
    found = []
    for source, effects in (("labels", labels), ("model", model)):
        if effects is None:
            continue
        for feature in np.argsort(-np.abs(effects.mean), kind="stable").tolist():
            if len(told) == MOST or not effects.certain[feature] or _said(feature, told, correlation):
                continue
            told.append(feature)
            found.append(_leaning(feature, source, effects, chosen, correlation, labels, model, of_most))
    return tuple(found)


def _said(feature: int, told: list[int], correlation: np.ndarray) -> bool:
    return feature in told or any(abs(correlation[feature, other]) >= ALIKE for other in told)


def _leaning(
    feature: int,
    source: str,
    effects: Effects,
    chosen: np.ndarray,
    correlation: np.ndarray,
    labels: Effects,
    model: Effects | None,
    of_most: np.ndarray | None,
) -> Leaning:
    sign = 1 if effects.mean[feature] > 0 else -1
    mine = np.nan_to_num(chosen[:, feature]) * sign
    votes = (int((mine > 1e-9).sum()), int((mine < -1e-9).sum()), int((np.abs(mine) <= 1e-9).sum()))
    near = [
        other
        for other in np.argsort(-np.abs(correlation[feature])).tolist()
        if other != feature and abs(correlation[feature, other]) >= ALIKE
    ]
    along = tuple(_words(other, sign * correlation[feature, other]) for other in near[:3])
    return Leaning(
        FEATURE_NAMES[feature],
        _words(feature, sign),
        source,
        float(effects.mean[feature]),
        float(effects.low[feature]),
        float(effects.high[feature]),
        effects.n,
        float(labels.mean[feature]),
        None if model is None else float(model.mean[feature]),
        None if of_most is None else float(of_most[feature]),
        votes,
        along,
    )


def _words(feature: int, direction: float) -> str:
    return FEATURE_WORDS[FEATURE_NAMES[feature]][0 if direction > 0 else 1]


def _moments(signs: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and clustered standard error, each (S, F), for signs (S, G) of the units' sums (G, F) and counts (G,)."""
    n, units = counts.sum(), len(counts)
    mean = signs @ sums / n
    residual = (sums**2).sum(0) - 2 * mean * (signs @ (counts[:, None] * sums)) + mean**2 * (counts**2).sum()
    return mean, np.sqrt(np.maximum(residual, 0) * units / (units - 1)) / n


def _t(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """t values; infinite where every unit says the same to the last digit, 0 where nothing differs at all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(mean) < 1e-12, 0.0, mean / np.where(error < 1e-12, 0.0, error))
