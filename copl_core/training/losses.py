"""Losses on log-odds.  Labels follow Bradley–Terry: P(left preferred) = σ(logit); the target of a tie is one half."""

from __future__ import annotations

from threading import Lock

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from copl_core.records import Comparisons

MAX_LABELS = 50_000  # a temperature is fitted on at most about this many labels
PRIOR_AGREEMENTS = 10  # added to the observed agreements of repeated labels
MAX_FLIP = 0.45  # share of labels; at one half labels carry no information, and rDPO divides by zero


def bradley_terry(logits: Tensor, outcome: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy (N,) of outcomes in [0, 1] under log-odds, by ``logsigmoid``: finite at any margin.

    ``smoothing`` moves every outcome towards one half: it is the share of labels that are taken to be random.
    """
    if smoothing:
        outcome = outcome * (1 - smoothing) + smoothing / 2
    return -(outcome * logits + logsigmoid(-logits))


def rdpo(logits: Tensor, outcome: Tensor, flip: float) -> Tensor:
    """Unbiased loss (N,) under known label noise: ((1−ε) ℓ(y) − ε ℓ(1−y)) / (1−2ε)  (arXiv 2403.00409, eq. 12).

    Not bounded below: on a memorised label the loss falls without limit as the margin grows.
    """
    return ((1 - flip) * bradley_terry(logits, outcome) - flip * bradley_terry(logits, 1 - outcome)) / (1 - 2 * flip)


def preference_loss(logits: Tensor, outcome: Tensor, loss: str, flip: float, smoothing: float = 0.0) -> Tensor:
    """The ``loss`` (N,) of that name if a share ε = ``flip`` of the labels is flipped.

    "bt" expects clean labels, "smoothing" has the target 1 − ε (conservative DPO, arXiv 2403.00409, eq. 10), and "rdpo"
    estimates the loss on clean labels without bias.
    """
    if loss == "rdpo":
        return rdpo(logits, outcome, flip)
    return bradley_terry(logits, outcome, smoothing=2 * flip if loss == "smoothing" else smoothing)


def flip_rate(labels: Comparisons) -> float:
    """The share ε of flipped labels, estimated from pairs that a user labelled more than once.

    Two labels of one user on one pair agree with probability c = (1−ε)² + ε², so ε = (1 − √(2c − 1)) / 2.  Ten
    agreements are added, so that a few repeats hardly move ε from 0, its value without repeats.  ε is at most 0.45:
    even many repeats do not prove that labels are pure noise.
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
    consistent = (agree.sum() + PRIOR_AGREEMENTS) / (len(agree) + PRIOR_AGREEMENTS)
    return min(float((1 - np.sqrt(max(2 * consistent - 1, 0.0))) / 2), MAX_FLIP)


def temperature_of(logits: np.ndarray, outcome: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The divisor of these log-odds with the lowest log-loss; 1 with fewer than 20 decided labels.

    Targets are smoothed as if one more label of each outcome were observed (Platt's correction): a model without an
    error on n labels may still err on the next.

    Args:
        weight: (N,) of each label; None: all weigh the same.
    """
    decided = outcome != 0.5
    if decided.sum() < 20:
        return 1.0
    signed = np.where(outcome > 0.5, logits, -logits)[decided].astype(np.float64)
    step = max(1, len(signed) // MAX_LABELS)
    signed = signed[::step]
    weight = None if weight is None else weight[decided][::step]
    grid = np.exp(np.linspace(np.log(0.2), np.log(5), 97))
    noise = 1 / (len(signed) + 2)
    losses = [
        (1 - noise) * np.average(np.logaddexp(0, -signed / temperature), weights=weight)
        + noise * np.average(np.logaddexp(0, signed / temperature), weights=weight)
        for temperature in grid
    ]
    return float(grid[int(np.argmin(losses))])


# Held while modules are made: their first weights come from torch's own generator, which all threads share.
MAKING_MODULES = Lock()


def torch_generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
