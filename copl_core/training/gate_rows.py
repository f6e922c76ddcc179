"""The rows that the gate reads in a training: the users, or users beside prompts where the gate sees the prompt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from copl_core.records import Comparisons, TrainingData
from copl_core.reward.model import RewardModel

MOST_SERVED = 4096  # (user, prompt) pairs that stand for all of them


class GateRows:
    """Rows of the gate for labels of ``data``.

    ``served`` (S, width) are the rows that the balance loss and the reference weights are means over: all users, or
    the (user, prompt) pairs of the labels, ``MOST_SERVED`` of them at most.
    """

    def __init__(self, model: RewardModel, user_vectors: np.ndarray, data: TrainingData) -> None:
        self.users = self.served = model.standardise(user_vectors)
        self.prompt_of, self.prompts = data.response_prompt, None
        if not model.sees_prompt:
            return
        labelled = labelled_prompts(data)
        vectors = model.prompt_vectors([data.prompts[row] for row in labelled])
        self.prompts = vectors.new_zeros(len(data.prompts), vectors.shape[1])
        self.prompts[torch.from_numpy(labelled).to(vectors.device)] = vectors
        pairs = np.unique(self._pairs(data.labels))
        self.served = self._rows(pairs[np.unique(np.linspace(0, len(pairs) - 1, MOST_SERVED).astype(int))])

    def of(self, labels: Comparisons) -> tuple[Tensor, Comparisons]:
        """Rows (R, width) for labels, and the labels with the row of each as its user."""
        if self.prompts is None:
            return self.users, labels
        pairs, row = np.unique(self._pairs(labels), return_inverse=True)
        return self._rows(pairs), replace(labels, user=row)

    def _pairs(self, labels: Comparisons) -> np.ndarray:
        """Number (N,) of the (user, prompt) of each label."""
        return labels.user * (self.prompt_of.max() + 1) + self.prompt_of[labels.left]

    def _rows(self, pairs: np.ndarray) -> Tensor:
        assert self.prompts is not None
        user, prompt = np.divmod(pairs, self.prompt_of.max() + 1)
        device = self.users.device
        beside = self.prompts[torch.from_numpy(prompt).to(device)]
        return torch.cat([self.users[torch.from_numpy(user).to(device)], beside], 1)


def labelled_prompts(data: TrainingData) -> np.ndarray:
    """Rows of the prompts that have labels."""
    return np.unique(data.response_prompt[data.labels.left])
