"""What a gate that sees the prompt reads of it: the pooled state of the prompt after the frozen layers.

Preferences differ between topics, so a user may need another expert for another prompt; Preference Orchestrator
(arXiv 2511.10656) routes by the prompt alone.  The frozen states are there already: scoring a text runs these
layers, and they never change, so each prompt is read once.  No second text encoder is needed.

Shapes: Q prompts, d width of the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from copl_core.reward.hidden import HiddenCache

KEPT = 32  # prompts whose vectors a saved model has, for gates of users without a prompt
_AT_ONCE = 64  # prompts whose states are in memory together


def prompt_states(cache: HiddenCache, prompts: Sequence[str]) -> Tensor:
    """Frozen states (Q, d) float32 of prompts with an empty response, on the CPU: that of the last token of a decoder,
    the mean over tokens of an encoder."""
    last, pooled = cache.backbone.causal, []
    for start in range(0, len(prompts), _AT_ONCE):
        states = cache.get([(prompt, "") for prompt in prompts[start : start + _AT_ONCE]])
        pooled += [own[-1].float() if last else own.float().mean(0) for own in states]
    return torch.stack(pooled)


def spread(n: int) -> np.ndarray:
    """Rows (``KEPT``,) spread evenly over ``n``; rows repeat where there are fewer."""
    return np.linspace(0, n - 1, KEPT).round().astype(int)
