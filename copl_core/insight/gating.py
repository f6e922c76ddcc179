"""Who is served by which expert: gate weights, load, entropy and dead experts.  Numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Load:
    """How users spread over experts under one gate."""

    users: np.ndarray  # (M,) users whose top expert this is
    share: np.ndarray  # (M,) the same, sums to 1
    entropy: float  # of ``share``, in bits; log2(M) when perfectly even
    dead: int  # experts that are nobody's top expert


def load(gates: np.ndarray) -> Load:
    """Load from gate weights (N, M)."""
    counts = np.bincount(gates.argmax(1), minlength=gates.shape[1]) if len(gates) else np.zeros(gates.shape[1], int)
    share = counts / max(1, counts.sum())
    positive = share[share > 0]
    return Load(counts, share, float(-(positive * np.log2(positive)).sum()) + 0.0, int((counts == 0).sum()))


def reading_order(gates: np.ndarray) -> np.ndarray:
    """Order (N,) that puts users of one expert together, the surest first."""
    return np.lexsort((-gates.max(1), gates.argmax(1)))
