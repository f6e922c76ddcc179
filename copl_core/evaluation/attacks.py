"""Attacks on what a fit has learned, as scores, and how well scores tell what was in the training data.  Numpy only.

A *unit* is a label or a person.  An attack gives each unit of each target fit a score; its AUC is the probability that
a unit of the training data scores higher than one that was left out: ½ is chance, 1 tells every one.

Likelihood ratio (Carlini et al., "Membership Inference Attacks From First Principles", arXiv 2112.03570, algorithm 1):
shadow fits know each unit or not.  Of a unit's statistic x, with means μ₁ and μ₀ over the shadows that know it and over
those that do not, and one variance σ² of the unit for both,

    log N(x; μ₁, σ²) − log N(x; μ₀, σ²) = (μ₁ − μ₀) (x − (μ₁ + μ₀)/2) / σ².

With few shadows a unit's own gap is mostly noise.  So all units share the mean gap, as with calibrated difficulty
(Watson et al., arXiv 2111.08440), and half of the variance is that of all units.

Shapes: S shadow fits, T target fits, N units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 500
FALSE_ALARMS = 0.01
CHANCE = 0.5
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Figure:
    """What an attack reaches, with a 95 % interval over people."""

    auc: float
    low: float
    high: float
    found: float  # share of the training data that is found where one in a hundred others is taken for it
    n: int  # scores

    @property
    def above_chance(self) -> bool:
        """Whether the whole interval lies above chance."""
        return self.low > CHANCE


def auc(score: np.ndarray, member: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Area under the ROC curve of scores (N,) for members (N,) bool; equal scores count half, NaN without both."""
    order = _Order.of(score, member)
    return float(order.auc(np.ones((1, len(score))) if weight is None else np.asarray(weight, np.float64)[None])[0])


def found_at(score: np.ndarray, member: np.ndarray, false_alarms: float = FALSE_ALARMS) -> float:
    """Share of the members above a threshold that at most this share of the others exceeds."""
    others = np.sort(score[~member])
    if not len(others) or not member.any():
        return float("nan")
    allowed = int(false_alarms * len(others))  # others that may lie above the threshold
    return float((score[member] > others[len(others) - 1 - allowed]).mean())


def figure(score: np.ndarray, member: np.ndarray, person: np.ndarray, seed: int = 0) -> Figure:
    """AUC of scores (N,) with an interval by a cluster bootstrap over people (N,): whole people are drawn."""
    _, rows = np.unique(person, return_inverse=True)
    order, rng = _Order.of(score, member), np.random.default_rng(seed)
    n = int(rows.max(initial=-1)) + 1
    counts = rng.multinomial(n, np.full(n, 1 / max(n, 1)), RESAMPLES) if n else np.zeros((RESAMPLES, 0))
    drawn = [order.auc(some[:, rows]) for some in np.array_split(counts, 10)]
    low, high = np.nanpercentile(np.concatenate(drawn), [2.5, 97.5])
    return Figure(auc(score, member), float(low), float(high), found_at(score, member), len(score))


def likelihood_ratio(values: np.ndarray, shadows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Log-likelihood ratios (T, N) of "was learned" against "was left out".

    Args:
        values: (T, N) statistics of the targets.
        shadows: (S, N) the same of the shadows.
        known: (S, N) bool, which shadow learned which unit.
    """
    inside, outside = _mean(shadows, known), _mean(shadows, ~known)
    gap = float(np.nanmean(inside - outside))
    both = np.where(np.isnan(inside), outside + gap, np.where(np.isnan(outside), inside - gap, (inside + outside) / 2))
    middle = np.where(np.isnan(inside), outside + gap / 2, np.where(np.isnan(outside), inside - gap / 2, both))
    residual = shadows - np.where(known, middle + gap / 2, middle - gap / 2)
    variance = (residual**2).mean(0)
    variance = np.maximum((variance + variance.mean()) / 2, _LEAST)
    return gap * (values - middle) / variance


def summed(scores: np.ndarray, person: np.ndarray, n_people: int) -> np.ndarray:
    """Scores (T, N) of labels added up by person (T, P)."""
    return np.stack([np.bincount(person, row, n_people) for row in scores])


@dataclass(frozen=True, slots=True)
class _Order:
    """Scores in groups of equal ones, lowest first, so that many weightings share one sort."""

    order: np.ndarray  # (N,)
    starts: np.ndarray  # (G,) where each group of equal scores begins
    member: np.ndarray  # (N,) bool, in this order

    @classmethod
    def of(cls, score: np.ndarray, member: np.ndarray) -> _Order:
        order = np.argsort(score, kind="stable")
        sorted_scores = score[order]
        starts = np.flatnonzero(np.concatenate([[True], sorted_scores[1:] != sorted_scores[:-1]]))
        return cls(order, starts if len(score) else starts[:0], np.asarray(member, bool)[order])

    def auc(self, weight: np.ndarray) -> np.ndarray:
        """(B,) for weightings (B, N)."""
        if not len(self.order):
            return np.full(len(weight), np.nan)
        weight = weight[:, self.order].astype(np.float64)
        inside = np.add.reduceat(weight * self.member, self.starts, axis=1)
        outside = np.add.reduceat(weight * ~self.member, self.starts, axis=1)
        below = np.cumsum(outside, 1) - outside / 2
        total = inside.sum(1) * outside.sum(1)
        return np.where(total > 0, (inside * below).sum(1) / np.where(total > 0, total, 1), np.nan)


def _mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Means (N,) over the rows that a mask (S, N) keeps; NaN where it keeps none."""
    count = mask.sum(0)
    return np.where(count > 0, np.where(mask, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)
