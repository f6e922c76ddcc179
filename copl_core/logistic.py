"""Penalised logistic regression by Newton's method.  Numpy and scipy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

TOLERANCE = 1e-5  # length of a Newton step at which the iteration stops; the remaining error is about its square
MAX_STEPS = 40  # fewer than ten are enough unless margins are large
MIN_FRACTION = 1e-6  # smallest fraction of a step that is tried; below it only rounding errors remain


@dataclass(frozen=True)
class Posterior:
    """Gaussian approximation of a posterior (Laplace)."""

    mode: np.ndarray  # (d,)
    precision: np.ndarray  # (d, d) Hessian of the loss where the last step starts


def penalised_logistic(
    design: np.ndarray,
    offset: np.ndarray | float,
    outcome: np.ndarray,
    weight: np.ndarray | float,
    mean: np.ndarray,
    precision: np.ndarray,
    *,
    start: np.ndarray | None = None,
    nonnegative: bool = False,
    steps: int = MAX_STEPS,
) -> Posterior:
    """The posterior of w under P(outcome) = σ(offset + design w) and the prior w ~ N(mean, precision⁻¹).

    Minimises Σ weight (log(1 + exp m) − outcome m) + ½ (w − mean)ᵀ precision (w − mean) over the margins
    m = offset + design w.  A step that would raise the loss is halved.

    Args:
        design: (n, d).
        offset: (n,) or a number.
        outcome: (n,) in [0, 1].
        weight: (n,) or a number.
        mean: (d,).
        precision: (d, d), positive definite.
        start: (d,) where the iteration starts; the mean by default.
        nonnegative: whether the minimum over w ≥ 0 is wanted.
        steps: most Newton steps.
    """
    w = np.array(mean if start is None else start, np.float64)
    hessian = precision
    for _ in range(steps):
        margin = offset + design @ w
        gradient, hessian = _derivatives(design, margin, outcome, weight, w - mean, precision)
        if not gradient.any():
            break
        move = _newton_move(hessian, gradient, w if nonnegative else None)
        if np.abs(move).max(initial=0) < TOLERANCE:
            w = w + move
            break
        pulled = precision @ move
        slope, square = float((w - mean) @ pulled), float(move @ pulled)
        size = fraction(margin, design @ move, outcome, weight, slope, square)
        if size == 0:
            break
        w = w + size * move
    return Posterior(np.maximum(w, 0.0) if nonnegative else w, hessian)


def fraction(
    margin: np.ndarray, along: np.ndarray, outcome: np.ndarray, weight: np.ndarray | float, slope: float, square: float
) -> float:
    """The fraction of a Newton step to take: 1, or the first of ½, ¼, … that does not raise the loss; 0 if none.

    Where margins are large, a full step overshoots the minimum, and the next one overshoots further.

    Args:
        along: change (n,) of the margins by the full step.
        slope: (w − mean)ᵀ precision step.
        square: stepᵀ precision step.
    """
    before, size = np.logaddexp(0, margin), 1.0
    while size > MIN_FRACTION:
        change = size * along
        rise = (weight * (np.logaddexp(0, margin + change) - before - outcome * change)).sum()
        if rise + size * (slope + size * square / 2) <= 0:
            return size
        size /= 2
    return 0.0


def _derivatives(
    design: np.ndarray,
    margin: np.ndarray,
    outcome: np.ndarray,
    weight: np.ndarray | float,
    deviation: np.ndarray,
    precision: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (d,) and Hessian (d, d) of the loss."""
    p = expit(margin)
    root = design * np.sqrt(weight * np.maximum(p * (1 - p), 1e-12))[:, None]
    gradient = design.T @ (weight * (p - outcome)) + precision @ deviation
    return gradient, precision + root.T @ root  # a symmetric product costs half


def _newton_move(hessian: np.ndarray, gradient: np.ndarray, w: np.ndarray | None) -> np.ndarray:
    """The Newton step (d,); with ``w``, the step to the minimum of the quadratic model over w + step ≥ 0.

    With H = L Lᵀ and v = w + step, the model is ½ |Lᵀ v − L⁻¹ (H w − gradient)|² up to a constant.
    """
    if w is None:
        return -np.linalg.solve(hessian, gradient)
    from scipy.optimize import nnls

    root = np.linalg.cholesky(hessian)
    return nnls(root.T, np.linalg.solve(root, hessian @ w - gradient))[0] - w
