"""Hidden states of texts under the frozen lower layers, each computed once.

The lower layers see no user and never change, so a text's states after layer L - k are worth keeping: training and
scoring then run the last k layers alone (4 of 30 layers is 7.5 times faster, 2 is 16 times).  Kept in half precision
where the values fit, in bfloat16 where they do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from copl_core.reward.backbone import Backbone, matrix_products

HALF_MAX = 6e4  # beyond this float16 overflows; residual streams of decoders sometimes come near


class HiddenCache:
    """States (len, d) by text, the oldest forgotten beyond ``limit`` texts.

    Args:
        backbone: whose lower layers; a cache belongs to one backbone and one ``max_tokens``.
        device: where the lower layers run; states are kept in main memory.
        batch: texts a run of the lower layers.
        precision: of matrix products there, as in ``RewardConfig``.
    """

    def __init__(
        self,
        backbone: Backbone,
        max_tokens: int,
        device: torch.device | str = "cpu",
        limit: int = 20_000,
        batch: int = 32,
        precision: str = "auto",
    ) -> None:
        self.backbone, self.max_tokens, self.device, self.limit, self.batch = backbone, max_tokens, device, limit, batch
        self.precision = precision
        self.runs = 0  # texts that the lower layers were run for, since the beginning
        self._states: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._states)

    def get(self, texts: Sequence[tuple[str, str]]) -> list[Tensor]:
        """States (len, d) of each text, in order; float16 or bfloat16."""
        keys = [self._key(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._states}
        fresh = self._compute(missing)
        found = [fresh[key] if key in fresh else self._states[key] for key in keys]
        self._states.update(fresh)
        for key in list(self._states)[: max(0, len(self._states) - self.limit)]:
            del self._states[key]
        return found

    def save(self, file: Path) -> None:
        """Write all states as one safetensors file (aside, then renamed)."""
        aside = file.with_name(file.name + ".partial")
        save_file({key: states.contiguous() for key, states in self._states.items()}, aside, {"of": self._stamp()})
        aside.rename(file)

    def load(self, file: Path) -> int:
        """Take in states saved by the same backbone and ``max_tokens``; a file of another one is ignored.  How many."""
        with safe_open(file, "pt") as kept:
            if (kept.metadata() or {}).get("of") != self._stamp():
                return 0
            self._states.update({key: kept.get_tensor(key) for key in kept.keys()})
        return len(self._states)

    def _compute(self, missing: dict[str, tuple[str, str]]) -> dict[str, Tensor]:
        ids = dict(zip(missing, self.backbone.encode(list(missing.values()), self.max_tokens), strict=True))
        order = sorted(ids, key=lambda key: len(ids[key]))  # alike lengths together: little padding
        fresh: dict[str, Tensor] = {}
        for start in range(0, len(order), self.batch):
            keys = order[start : start + self.batch]
            with matrix_products(self.device, self.precision):
                states = self.backbone.lower_states([ids[key] for key in keys], self.device)
            fresh.update((key, _halve(own)) for key, own in zip(keys, states, strict=True))
        self.runs += len(fresh)
        return fresh

    def _stamp(self) -> str:
        below = self.backbone.depth - self.backbone.last_layers
        return f"{self.backbone.name} {below} {self.max_tokens} {self.precision}"

    def _key(self, text: tuple[str, str]) -> str:
        return hashlib.sha256("\x00".join(text).encode()).hexdigest()


def pad_states(states: Sequence[Tensor], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Right-padded float32 states (B, T, d) and their mask (B, T) int64."""
    width = max(map(len, states))
    padded = torch.zeros(len(states), width, states[0].shape[1])
    mask = torch.zeros(len(states), width, dtype=torch.long)
    for row, own in enumerate(states):
        padded[row, : len(own)] = own
        mask[row, : len(own)] = 1
    return padded.to(device), mask.to(device)


def _halve(states: Tensor) -> Tensor:
    kind = torch.float16 if states.abs().max() < HALF_MAX else torch.bfloat16
    return states.to("cpu", kind).clone()
