"""What single experts of a reward model say: the reward of texts through each of them, against the shared part alone.

An expert speaks here at its reference weight, the mean weight of the people it serves (``RewardModel.reference``).
Where each layer has a gate of its own, one expert of one layer speaks at a time and the other layers' keep silent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from copl_core.records import CoplError
from copl_core.reward.model import ATTENTION_CELLS, RewardModel


@torch.no_grad()
def voices(model: RewardModel, texts: Sequence[tuple[str, str]], gate: int = 0, rows: int = 64) -> np.ndarray:
    """What each expert of a gate adds, (M, T), to the reward (prompt, response) have by the shared part, in log-odds.

    Raises:
        CoplError: the model has no experts, or no such gate.
    """
    n_gates, n_experts = model.reference.shape
    if not n_experts or not 0 <= gate < n_gates:
        raise CoplError(
            f"Gate {gate} was asked for, and the model has {n_gates if n_experts else 0}, numbered from 0; "
            "choose one of them."
        )
    if not len(texts):
        return np.zeros((n_experts, 0), np.float32)
    states = model.cache.get(texts)
    expert = torch.zeros(n_experts, n_gates, dtype=torch.long, device=model.device)
    weight = torch.zeros(n_experts, n_gates, device=model.device)
    expert[:, gate] = torch.arange(n_experts, device=model.device)
    weight[:, gate] = model.strength(model.reference[gate])
    rows = max(1, min(rows, ATTENTION_CELLS // max(len(one) for one in states) ** 2))
    shared, *spoken = model._passes(states, *model.with_shared(expert, weight), rows)
    return ((torch.stack(spoken) - shared) / float(model.calibration)).numpy()
