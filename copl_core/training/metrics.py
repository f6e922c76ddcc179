"""Metrics of predicted labels, computed from log-odds of left over right.  Numpy only."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

BINS = 10
RESAMPLES = 2000
CHUNK = 100  # resamples computed at once
FEWEST_USERS = 5  # for an interval that generalises to other users


def measures(logits: np.ndarray, outcome: np.ndarray) -> dict[str, float | int]:
    """Accuracy, log-loss (nats), expected calibration error and n of log-odds (N,) for outcomes (N,) in {0, ½, 1}.

    Ties are left out; a logit of exactly zero counts as half correct.
    """
    decided = np.asarray(outcome) != 0.5
    logits, outcome = np.asarray(logits, np.float64)[decided], np.asarray(outcome, np.float64)[decided]
    if not len(logits):
        return {"accuracy": float("nan"), "log_loss": float("nan"), "calibration_error": float("nan"), "n": 0}
    return {
        "accuracy": float(correct(logits, outcome).mean()),
        "log_loss": float(log_losses(logits, outcome).mean()),
        "calibration_error": calibration_error(logits, outcome),
        "n": len(logits),
    }


def correct(logits: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """(N,) 1 where the sign of the logit agrees with the outcome, 0 where it does not, ½ where the logit is zero."""
    return 0.5 + 0.5 * np.sign(logits) * np.sign(outcome - 0.5)


def log_losses(logits: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """(N,) −[y log σ(z) + (1 − y) log σ(−z)], finite for any finite z."""
    return np.logaddexp(0, logits) - outcome * logits


def calibration_error(logits: np.ndarray, outcome: np.ndarray) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015) over ten equal bins of P(left)."""
    p = expit(logits)
    bin_index = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.abs(np.bincount(bin_index, p, BINS) - np.bincount(bin_index, outcome, BINS))
    return float(gaps.sum() / len(p))


def interval(values: np.ndarray, user: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of the mean of values (N,), by a cluster bootstrap over users (N,).

    The labels of one user are correlated, so whole users are drawn with replacement, as many as there are
    (Efron & Tibshirani 1993, percentile interval).  Fewer than ``FEWEST_USERS`` users cannot represent others: then
    single labels are drawn, and the interval is valid for these users only.
    """
    _, rows = np.unique(user, return_inverse=True)
    if len(rows) and rows.max() + 1 < FEWEST_USERS:
        rows = np.arange(len(rows))
    total, count = np.bincount(rows, values), np.bincount(rows)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, RESAMPLES, CHUNK):  # in chunks: thousands of users × thousands of draws need much memory
        draws = rng.integers(len(total), size=(min(CHUNK, RESAMPLES - start), len(total)))
        means.append(total[draws].sum(1) / count[draws].sum(1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)
