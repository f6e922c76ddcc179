"""Losses on log-odds.  A label is Bradley–Terry: P(left preferred) = σ(logit); a tie trains towards one half."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from copl_core.training.metrics import measures, right

__all__ = ["bradley_terry", "measures", "rdpo", "right", "temperature_of", "torch_generator"]


def bradley_terry(logits: Tensor, outcome: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy (N,) of outcomes in [0, 1] under log-odds, by ``logsigmoid``: finite at any margin.

    ``smoothing`` ε moves every outcome towards one half: of the labels, ε are taken to be slips of the hand.
    """
    outcome = outcome * (1 - smoothing) + smoothing / 2
    return -(outcome * logsigmoid(logits) + (1 - outcome) * logsigmoid(-logits))


def rdpo(logits: Tensor, outcome: Tensor, flip: float) -> Tensor:
    """Unbiased loss (N,) under known label noise: ((1−ε) ℓ(y) − ε ℓ(1−y)) / (1−2ε)  (arXiv 2403.00409, eq. 12)."""
    return ((1 - flip) * bradley_terry(logits, outcome) - flip * bradley_terry(logits, 1 - outcome)) / (1 - 2 * flip)


def temperature_of(logits: np.ndarray, outcome: np.ndarray) -> float:
    """The temperature whose division gives these log-odds the least log-loss; 1 where nothing can be told.

    One label more of each outcome is imagined (Platt's correction): a world without an error on n labels may still err
    on the next.
    """
    decided = outcome != 0.5
    if decided.sum() < 20:
        return 1.0
    signed = np.where(outcome > 0.5, logits, -logits)[decided].astype(np.float64)
    grid = np.exp(np.linspace(np.log(0.2), np.log(5), 97))
    slip = 1 / (len(signed) + 2)
    losses = [(1 - slip) * np.logaddexp(0, -signed / temperature).mean()
              + slip * np.logaddexp(0, signed / temperature).mean() for temperature in grid]
    return float(grid[int(np.argmin(losses))])


def torch_generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
