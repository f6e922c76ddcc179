"""What a user likes, in words: the measured features that their choices lean towards.  Numpy only.

A label that prefers one response is a row of feature differences, preferred − rejected, in units of the *typical
difference* between two responses of this study (root mean square over its pairs).  A user who ignores a feature has a
mean of zero on it.  Labels on one prompt share their texts, so prompts are the independent units: standard errors
are clustered by prompt, and the critical value is the 95 % quantile of the largest |t| of any feature under random sign
flips of whole prompts (E. J. G. Pitman 1937; max-T of Westfall & Young 1993).  An interval therefore holds for all
features at once, and a user without a taste gets a statement in at most five cases of a hundred.  The reported effect,
which also ranks the statements, is shrunk towards zero by empirical Bayes within its interval, since the strongest of
thirty effects is too strong by selection (B. Efron & C. Morris, JASA 70, 1975)::

    m_f ± c se_f      effect m_f τ² / (τ² + se_f²)      τ² = max(0, mean_f (m_f² − se_f²))

The model's counterpart is the same figure over all pairs of the study, with predicted preferences in place of labels:
the slope of the predicted preference, from −1 to 1, on a feature's standardised difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS

MOST = 5  # statements per user
ALIKE = 0.6  # absolute correlation of differences from which two features share one statement
_FLIPS = 2000
_EQUAL = 1e-9  # difference in a feature up to which two responses have as much of it
_CONFIDENCE = 0.95
_RAREST = 0.02  # share of pairs that differ in a feature, below which the feature is excluded


@dataclass(frozen=True, slots=True)
class Effects:
    """One figure per feature, in typical differences; columns follow ``FEATURE_NAMES``."""

    mean: np.ndarray  # (F,)
    low: np.ndarray  # (F,)
    high: np.ndarray  # (F,)
    n: int  # labels, or pairs, behind the figures

    @property
    def certain(self) -> np.ndarray:
        """Mask (F,) of features whose whole interval is on one side of zero."""
        return (self.low > 0) | (self.high < 0)

    @classmethod
    def nothing(cls, n: int = 0) -> Effects:
        """No certain effect: zero with an infinite interval."""
        zero = np.zeros(len(FEATURE_NAMES))
        return cls(zero, zero - np.inf, zero + np.inf, n)


@dataclass(frozen=True, slots=True)
class Leaning:
    """One statement about a user's taste."""

    feature: str
    words: str  # what they like
    source: str  # "labels": their own labels are enough; "model": it follows from users who answer alike
    effect: float  # from that source, in typical differences; above zero: more of the feature
    low: float
    high: float
    n: int  # labels, or pairs with predictions
    by_labels: float
    by_model: float | None
    of_population: float | None  # what the model predicts for the mean user
    votes: tuple[int, int, int]  # labels for, against, and on answers equal in it
    correlated: tuple[str, ...]  # words of features that correlate with it in these texts


def typical(differences: np.ndarray) -> np.ndarray:
    """Scale (F,) of the differences (P, F) between a pair's responses; NaN for a feature that hardly varies."""
    if not len(differences):
        return np.full(differences.shape[1], np.nan)
    size = np.sqrt((differences**2).mean(0))
    rare = (np.abs(differences) > _EQUAL).mean(0) < _RAREST
    return np.where(rare | (size < 1e-9), np.nan, size)


def correlations(differences: np.ndarray) -> np.ndarray:
    """Correlation about zero (F, F) of standardised differences (P, F); 0 for features without a scale."""
    filled = np.nan_to_num(differences)
    size = np.sqrt((filled**2).sum(0))
    size[size == 0] = 1
    return (filled.T @ filled) / np.outer(size, size)


def from_labels(chosen: np.ndarray, prompts: np.ndarray, rng: np.random.Generator) -> Effects:
    """What the labels of one user show.

    Args:
        chosen: (N, F) standardised differences, preferred − rejected; NaN columns are excluded features.
        prompts: (N,) prompt of each label.
        rng: draws the sign flips.
    """
    n = len(chosen)
    units, unit = np.unique(prompts, return_inverse=True)
    if len(units) < 2:
        return Effects.nothing(n)
    excluded = np.isnan(chosen).all(0)
    sums = np.zeros((len(units), chosen.shape[1]))
    np.add.at(sums, unit, np.nan_to_num(chosen))
    counts = np.bincount(unit).astype(float)
    mean, error = _moments(np.ones((1, len(units))), sums, counts)
    flipped = _t(*_moments(rng.choice([-1.0, 1.0], (_FLIPS, len(units))), sums, counts))
    if excluded.all():
        return Effects.nothing(n)
    critical = float(np.quantile(np.abs(flipped[:, ~excluded]).max(1), _CONFIDENCE, method="higher"))
    if not np.isfinite(critical):
        return Effects.nothing(n)
    mean, error = mean[0], error[0]
    spread = max(0.0, float((mean**2 - error**2)[~excluded].mean()))
    half = np.where(excluded, np.inf, critical * error)
    low, high = mean - half, mean + half
    shrunk = mean * spread / np.maximum(spread + error**2, 1e-12)
    return Effects(np.clip(shrunk, low, high), low, high, n)


def from_model(
    expected: np.ndarray, differences: np.ndarray, prompts: np.ndarray, *, draws: np.ndarray | None = None
) -> Effects:
    """What the model predicts for one user.

    The uncertainty has two parts: which prompts the study happens to have, and the user's vector.  The model's prior
    over users already shrinks the predictions, so each interval is a plain 95 % interval.

    Args:
        expected: (P,) P(first is preferred).
        differences: (P, F) standardised, first − second.
        prompts: (P,) prompt of each pair.
        draws: (K, P) the same probabilities for draws of the user's vector from its posterior.
    """
    x = np.nan_to_num(differences)
    excluded = np.isnan(differences).all(0)
    units, unit = np.unique(prompts, return_inverse=True)
    if len(units) < 2 or excluded.all():
        return Effects.nothing(len(x))
    sums = np.zeros((len(units), x.shape[1]))
    np.add.at(sums, unit, (2 * expected - 1)[:, None] * x)
    mean, error = (part[0] for part in _moments(np.ones((1, len(units))), sums, np.bincount(unit).astype(float)))
    variance = error**2
    if draws is not None:
        variance = variance + ((2 * draws - 1) @ x / len(x)).var(0)
    critical = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    half = np.where(excluded, np.inf, critical * np.sqrt(variance))
    return Effects(mean, mean - half, mean + half, len(x))


def leanings(
    labels: Effects,
    chosen: np.ndarray,
    correlation: np.ndarray,
    model: Effects | None = None,
    of_population: np.ndarray | None = None,
) -> tuple[Leaning, ...]:
    """At most five statements: those certain from the labels, strongest first, then those certain from the model alone.

    Correlated features share one statement, that of the strongest of them.  Nothing is stated that the user's own
    labels are even about or speak against, in number or in size; where none of them differs in a feature, the model may
    state what it expects.
    """
    covered: list[int] = []
    found = []
    for source, effects in (("labels", labels), ("model", model)):
        if effects is None:
            continue
        for feature in np.argsort(-np.abs(effects.mean), kind="stable").tolist():
            if len(covered) == MOST or not effects.certain[feature] or _is_covered(feature, covered, correlation):
                continue
            if _contradicted(chosen[:, feature] * np.sign(effects.mean[feature])):
                continue
            covered.append(feature)
            found.append(_leaning(feature, source, effects, chosen, correlation, labels, model, of_population))
    return tuple(found)


def _contradicted(ahead: np.ndarray) -> bool:
    """Whether a user's labels are even about a statement or speak against it.

    Args:
        ahead: (N,) by how much the preferred response has more of what is stated, NaN where it is not known.
    """
    votes = np.sign(np.where(np.abs(np.nan_to_num(ahead)) > _EQUAL, np.nan_to_num(ahead), 0))
    return bool(votes.any()) and (votes.sum() <= 0 or np.nan_to_num(ahead).sum() <= 0)


def _is_covered(feature: int, covered: list[int], correlation: np.ndarray) -> bool:
    return feature in covered or any(abs(correlation[feature, other]) >= ALIKE for other in covered)


def _leaning(
    feature: int,
    source: str,
    effects: Effects,
    chosen: np.ndarray,
    correlation: np.ndarray,
    labels: Effects,
    model: Effects | None,
    of_population: np.ndarray | None,
) -> Leaning:
    sign = 1 if effects.mean[feature] > 0 else -1
    ahead = np.nan_to_num(chosen[:, feature]) * sign
    votes = (int((ahead > _EQUAL).sum()), int((ahead < -_EQUAL).sum()), int((np.abs(ahead) <= _EQUAL).sum()))
    near = [
        other
        for other in np.argsort(-np.abs(correlation[feature])).tolist()
        if other != feature and abs(correlation[feature, other]) >= ALIKE
    ]
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
        None if of_population is None else float(of_population[feature]),
        votes,
        tuple(_words(other, sign * correlation[feature, other]) for other in near[:3]),
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
    """t values; infinite where all units are exactly equal, 0 where nothing differs at all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(mean) < 1e-12, 0.0, mean / np.where(error < 1e-12, 0.0, error))
