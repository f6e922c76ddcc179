"""The gate of a saved reward model in numpy: which expert serves a user, without loading a language model.

It reads the file of ``RewardModel.load`` and returns the values of ``RewardModel.gates``; see ``experts.Gate`` for the
formula.  A gate that sees the prompt is shown without one as the mean over the prompts that its model kept.

Shapes: N users of width d, Q prompts (1 for a gate that reads the user alone), G gates, H hidden units, M experts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

Layer = tuple[np.ndarray, np.ndarray]  # weight (out, in), bias (out,), or (Q, out): a prompt only shifts the bias


@dataclass(frozen=True, slots=True)
class SavedGate:
    """Gate probabilities of any user vectors."""

    centre: np.ndarray  # (d,) of the training users
    scale: np.ndarray  # ()
    nets: tuple[tuple[Layer, Layer], ...]  # G of them: d -> H -> M; none without experts
    temperature: float
    per_layer: bool  # one gate per layer
    routing: str = "top1"
    sees_prompt: bool = False

    @classmethod
    def load(cls, folder: Path) -> SavedGate:
        """The gate from the folder of a reward model; the other tensors are not read."""
        config = json.loads((folder / "reward.json").read_text())["config"]
        with safe_open(folder / "reward.safetensors", framework="numpy") as tensors:
            count = len({name.split(".")[2] for name in tensors.keys() if name.startswith("gate.nets.")})
            centre, scale = tensors.get_tensor("user_mean"), tensors.get_tensor("user_scale")
            prompts = _prompts(tensors, len(centre))
            nets = tuple((_first(tensors, net, len(centre), prompts), _layer(tensors, net, 2)) for net in range(count))
        per_layer, routing = config["gate"] == "layer", config.get("routing", "top1")  # absent in earlier versions
        return cls(centre, scale, nets, config["temperature"], per_layer, routing, prompts is not None)

    def __call__(self, user_vectors: np.ndarray) -> np.ndarray:
        """Gate probabilities (N, G, M) float32; (N, 1, 0) for a model without experts."""
        if not self.nets:
            return np.zeros((len(user_vectors), 1, 0), np.float32)
        users = (np.asarray(user_vectors, np.float32) - self.centre) / self.scale
        return np.stack([self._net(users, net) for net in self.nets], 1)

    def weights(self, user_vectors: np.ndarray) -> np.ndarray:
        """Weights (N, G, M) of the experts by the routing of the model (``routes.chosen``), zero where one is off."""
        p = self(user_vectors)
        if self.routing == "soft" or not p.size:
            return p
        n_used = 1 if self.routing == "top1" else min(2, p.shape[-1])
        used = np.argsort(-p, axis=-1, kind="stable")[..., :n_used]
        kept = np.zeros_like(p)
        np.put_along_axis(kept, used, np.take_along_axis(p, used, -1), -1)
        return kept if self.routing == "top1" else kept / kept.sum(-1, keepdims=True)

    def _net(self, users: np.ndarray, net: tuple[Layer, Layer]) -> np.ndarray:
        """Probabilities (N, M) of one gate, the mean over its prompts."""
        (first, biases), (second, offset) = net
        hidden, p = users @ first.T, np.zeros((len(users), len(offset)), np.float32)
        for bias in biases:
            logits = (np.maximum(hidden + bias, 0) @ second.T + offset) / self.temperature
            powers = np.exp(logits - logits.max(-1, keepdims=True))
            p = p + powers / powers.sum(-1, keepdims=True)
        return p / len(biases)


def _prompts(tensors: Any, d_user: int) -> np.ndarray | None:
    """What the gate reads of the kept prompts, (Q, d), as ``RewardModel`` scales it; None if it sees no prompt."""
    if "prompts" not in tensors.keys():
        return None
    centred = tensors.get_tensor("prompts") - tensors.get_tensor("prompt_mean")
    return centred / tensors.get_tensor("prompt_scale") * np.float32((d_user / centred.shape[1]) ** 0.5)


def _first(tensors: Any, net: int, d_user: int, prompts: np.ndarray | None) -> Layer:
    """The first layer as it reads users: (H, d), and a bias (Q, H) that has read the prompts."""
    weight, bias = _layer(tensors, net, 0)
    shift = bias[None] if prompts is None else bias + prompts @ weight[:, d_user:].T
    return weight[:, :d_user], shift


def _layer(tensors: Any, net: int, layer: int) -> Layer:
    name = f"gate.nets.{net}.{layer}"
    return tensors.get_tensor(f"{name}.weight"), tensors.get_tensor(f"{name}.bias")
