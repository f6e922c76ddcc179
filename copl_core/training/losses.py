"""Losses on log-odds.  A label is Bradley–Terry: P(left preferred) = σ(logit); a tie trains towards one half."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from copl_core.records import Comparisons

ENOUGH = 50_000  # labels that settle a temperature
TRUST = 10  # agreements imagined beside those that repeats tell of
MOST_FLIPPED = 0.45  # share of labels; at one half they say nothing, and rDPO divides by zero


def bradley_terry(logits: Tensor, outcome: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy (N,) of outcomes in [0, 1] under log-odds, by ``logsigmoid``: finite at any margin.

    ``smoothing`` moves every outcome towards one half: that share of the labels is taken to be drawn by a coin.
    """
    if smoothing:
        outcome = outcome * (1 - smoothing) + smoothing / 2
    return -(outcome * logits + logsigmoid(-logits))


def rdpo(logits: Tensor, outcome: Tensor, flip: float) -> Tensor:
    """Unbiased loss (N,) under known label noise: ((1−ε) ℓ(y) − ε ℓ(1−y)) / (1−2ε)  (arXiv 2403.00409, eq. 12).

    Not bounded below: a label that can be memorised pays for ever larger margins.
    """
    return ((1 - flip) * bradley_terry(logits, outcome) - flip * bradley_terry(logits, 1 - outcome)) / (1 - 2 * flip)


def preference_loss(logits: Tensor, outcome: Tensor, loss: str, flip: float, smoothing: float = 0.0) -> Tensor:
    """The loss (N,) of that name where a share ``flip`` of the labels is turned round.

    "bt" takes labels at their word, "smoothing" trains towards 1 − ε (conservative DPO, arXiv 2403.00409, eq. 10),
    "rdpo" towards the loss that clean labels would have.
    """
    if loss == "rdpo":
        return rdpo(logits, outcome, flip)
    return bradley_terry(logits, outcome, smoothing=2 * flip if loss == "smoothing" else smoothing)


def flip_rate(labels: Comparisons) -> float:
    """The share ε of labels that are turned round, told by pairs that a user was asked more than once.

    Two labels of one user on one pair agree with probability c = (1−ε)² + ε², so ε = (1 − √(2c − 1)) / 2.  Ten
    agreements more are counted, so that a few repeats hardly move ε from the 0 that stands without any, and ε is at
    most 0.45: even many repeats never say that labels are pure noise.
    """
    decided = labels.take(labels.decided)
    low, high = np.minimum(decided.left, decided.right), np.maximum(decided.left, decided.right)
    prefers_low = (decided.outcome > 0.5) == (decided.left == low)
    order = np.lexsort((high, low, decided.user))  # stable: repeats stay in their order
    key = np.stack([decided.user, low, high])[:, order]
    again = (key[:, 1:] == key[:, :-1]).all(0)
    if not again.any():
        return 0.0
    agree = (prefers_low[order][1:] == prefers_low[order][:-1])[again]
    consistent = (agree.sum() + TRUST) / (len(agree) + TRUST)
    return min(float((1 - np.sqrt(max(2 * consistent - 1, 0.0))) / 2), MOST_FLIPPED)


def temperature_of(logits: np.ndarray, outcome: np.ndarray) -> float:
    """The temperature whose division gives these log-odds the least log-loss; 1 where nothing can be told.

    One label more of each outcome is imagined (Platt's correction): a world without an error on n labels may still err
    on the next.
    """
    decided = outcome != 0.5
    if decided.sum() < 20:
        return 1.0
    signed = np.where(outcome > 0.5, logits, -logits)[decided].astype(np.float64)
    signed = signed[:: max(1, len(signed) // ENOUGH)]
    grid = np.exp(np.linspace(np.log(0.2), np.log(5), 97))
    slip = 1 / (len(signed) + 2)
    losses = [
        (1 - slip) * np.logaddexp(0, -signed / temperature).mean() + slip * np.logaddexp(0, signed / temperature).mean()
        for temperature in grid
    ]
    return float(grid[int(np.argmin(losses))])


def torch_generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
