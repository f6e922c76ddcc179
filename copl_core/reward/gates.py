"""The gate of a saved reward model in numpy: which expert serves a user, without loading a language model.

It reads the file of ``RewardModel.load`` and returns the values of ``RewardModel.gates``; see ``experts.Gate`` for the
formula.  Shapes: N users of width d, G gates, H hidden units, M experts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

Layer = tuple[np.ndarray, np.ndarray]  # weight (out, in), bias (out,)


@dataclass(frozen=True, slots=True)
class SavedGate:
    """Gate probabilities of any user vectors."""

    centre: np.ndarray  # (d,) of the training users
    scale: np.ndarray  # ()
    nets: tuple[tuple[Layer, Layer], ...]  # G of them: d -> H -> M; none without experts
    temperature: float
    per_layer: bool  # one gate per layer

    @classmethod
    def load(cls, folder: Path) -> SavedGate:
        """The gate from the folder of a reward model; the other tensors are not read."""
        config = json.loads((folder / "reward.json").read_text())["config"]
        with safe_open(folder / "reward.safetensors", framework="numpy") as tensors:
            count = len({name.split(".")[2] for name in tensors.keys() if name.startswith("gate.nets.")})
            nets = tuple((_layer(tensors, net, 0), _layer(tensors, net, 2)) for net in range(count))
            centre, scale = tensors.get_tensor("user_mean"), tensors.get_tensor("user_scale")
        return cls(centre, scale, nets, config["temperature"], config["gate"] == "layer")

    def __call__(self, user_vectors: np.ndarray) -> np.ndarray:
        """Gate probabilities (N, G, M) float32; (N, 1, 0) for a model without experts."""
        if not self.nets:
            return np.zeros((len(user_vectors), 1, 0), np.float32)
        users = (np.asarray(user_vectors, np.float32) - self.centre) / self.scale
        logits = np.stack([_net(users, net) for net in self.nets], 1) / self.temperature
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)


def _layer(tensors: Any, net: int, layer: int) -> Layer:
    name = f"gate.nets.{net}.{layer}"
    return tensors.get_tensor(f"{name}.weight"), tensors.get_tensor(f"{name}.bias")


def _net(x: np.ndarray, net: tuple[Layer, Layer]) -> np.ndarray:
    (first, bias), (second, offset) = net
    return np.maximum(x @ first.T + bias, 0) @ second.T + offset
