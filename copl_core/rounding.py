"""Numbers that are handed on less finely than they are known.  Numpy only."""

from __future__ import annotations

import numpy as np

_DIGITS = 9  # after the point, so that a multiple of a step is written with the digits of the step


def rounded(values: np.ndarray, step: float) -> np.ndarray:
    """Values to the nearest multiple of a step, and no −0; a step of 0 leaves them."""
    return np.round(np.round(values / step) * step, _DIGITS) + 0.0 if step else values
