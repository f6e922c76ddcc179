"""What single experts of a reward model do: the reward of texts with one expert, less the reward without experts.

An expert has its reference weight here, the mean gate weight of the users it serves (``RewardModel.reference``).  In a
model with a gate per layer, one expert of one layer is active at a time and the experts of other layers are off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from copl_core.records import CoplError
from copl_core.reward.model import ATTENTION_CELLS, RewardModel


@torch.no_grad()
def expert_effects(model: RewardModel, texts: Sequence[tuple[str, str]], gate: int = 0, rows: int = 64) -> np.ndarray:
    """What each expert of a gate adds to the reward of each (prompt, response), in log-odds, (M, T).

    Raises:
        CoplError: the model has no experts, or no such gate.
    """
    n_gates, n_experts = model.reference.shape
    if not n_experts or not 0 <= gate < n_gates:
        raise CoplError(
            f"There is no gate {gate}: the model has {n_gates if n_experts else 0}, numbered from 0; "
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
    shared, *by_expert = model._run_passes(states, *model.with_shared(expert, weight), rows)
    return ((torch.stack(by_expert) - shared) / float(model.calibration)).numpy()
