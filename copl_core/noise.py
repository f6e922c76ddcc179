"""Noise for counts that others see, so that nobody reads from them what one person answered.

Whole numbers from the two-sided geometric distribution, P(k) ∝ α^|k| with α = exp(−ε/Δ), where one person changes all
counts together by Δ at most (Ghosh, Roughgarden, Sundararajan, arXiv 0811.2841; the discrete form of Laplace noise:
Dwork, McSherry, Nissim, Smith, TCC 2006).  Counts with it are ε-differentially private: what anybody sees is at most
exp(ε) times as likely with the person as without.  Whole numbers leave no trace in the last digits, as floating-point
noise does (Mironov, CCS 2012), and the random numbers are the operating system's, which no seed repeats.
"""

from __future__ import annotations

import math
from random import Random, SystemRandom

_SYSTEM = SystemRandom()


def two_sided_geometric(n: int, epsilon: float, sensitivity: float, random: Random | None = None) -> list[int]:
    """``n`` numbers.

    Args:
        sensitivity: Δ > 0, by how much one person changes all counts together at most.
        random: of tests; None: the operating system's.
    """
    log_alpha = -epsilon / sensitivity
    source = random or _SYSTEM

    def geometric() -> int:
        return int(math.log(1 - source.random()) / log_alpha)  # P(k or more) = α^k

    return [geometric() - geometric() for _ in range(n)]


def deviation(epsilon: float, sensitivity: float) -> float:
    """Standard deviation of one such number: √(2α) / (1 − α)."""
    alpha = math.exp(-epsilon / sensitivity)
    return math.sqrt(2 * alpha) / (1 - alpha)


def best_auc(epsilon: float) -> float:
    """The largest AUC of any attack that tells whether somebody is in data that is ε-differentially private.

    Its ROC lies below min(e^ε x, 1 − e^−ε (1 − x)) (Kairouz, Oh, Viswanath, arXiv 1311.0776), whose area is 1 / (1 +
    e^−ε).
    """
    return 1 / (1 + math.exp(-epsilon))
