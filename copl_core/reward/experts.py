"""A mixture of LoRA experts in a linear layer, and the gate that selects one by the user's embedding.

CoPL (arXiv 2503.01658), the mixture-of-LoRA-experts reward model: in every target layer

    y = W x + s B_g A_g x + w s B_e A_e x,     w = softmax(gate(e_u) / tau)_e,   e = argmax

with one shared LoRA (A_g, B_g), M experts (A_e, B_e) of rank r, s = alpha / r, and a gate that is a two-layer MLP with
noise on its logits in training.  A row may also use several experts, whose changes add up (``routes``).  The published
code applies w twice (w^2); here that is an option, ``published``.  It also has no load balancing, and its authors
report dead experts; see ``balance_loss``.

The layer is a peft ``Linear`` with two more stacked tensors; the shared LoRA and the injection are peft's.
Shapes: B rows, T tokens, M experts, G gates (one for all layers, or one per layer), S experts of a row, r rank, U
users.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(slots=True)
class Routing:
    """The route of each row of the current call; one object per model, which all its layers read."""

    expert: Tensor | None = None  # (B, G) or (B, G, S) int64
    weight: Tensor | None = None  # of the same shape, zero where a row uses only the shared LoRA


class ExpertLinear(PeftLinear):
    """base(x) + shared LoRA(x) + weight times the LoRA of the row's expert; created by ``put_experts``."""

    adapter_layer_names = (*PeftLinear.adapter_layer_names, "lora_expert_A", "lora_expert_B")
    n_experts = 0  # set together with routing in the subclass of one model
    routing: Routing
    in_features: int
    out_features: int
    gate_row = 0  # index of the gate that this layer uses

    def update_layer(self, adapter_name: str, r: int, *args: Any, **kwargs: Any) -> None:
        """peft's hook for a new adapter: experts start as the identity (B is zero)."""
        if not hasattr(self, "lora_expert_A"):
            self.lora_expert_A, self.lora_expert_B = nn.ParameterDict(), nn.ParameterDict()
        down = torch.empty(self.n_experts, r, self.in_features)
        bound = 1 / math.sqrt(self.in_features)  # equals kaiming_uniform(a=sqrt 5), as for the shared LoRA
        self.lora_expert_A[adapter_name] = nn.Parameter(nn.init.uniform_(down, -bound, bound))
        self.lora_expert_B[adapter_name] = nn.Parameter(torch.zeros(self.n_experts, self.out_features, r))
        super().update_layer(adapter_name, r, *args, **kwargs)

    def merge(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("rows of one batch use different experts, so they cannot be merged into one weight")

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = super().forward(x, *args, **kwargs)
        if self.disable_adapters or self.routing.expert is None or self.routing.weight is None:
            return y
        name = self.active_adapters[0]
        expert, weight = self.routing.expert[:, self.gate_row], self.routing.weight[:, self.gate_row]
        down = self.lora_expert_A[name][expert].flatten(1, -2)  # (B, S r, in): several experts are one of higher rank
        up = self.lora_expert_B[name][expert] * (self.scaling[name] * weight)[..., None, None]  # (B, [S,] out, r)
        up = up.transpose(-1, -2).flatten(1, -2)  # (B, S r, out)
        inner = torch.bmm(self.lora_dropout[name](x).to(down.dtype), down.transpose(1, 2))  # (B, T, S r)
        return torch.baddbmm(y.to(inner.dtype), inner, up.to(inner.dtype)).to(y.dtype)


def put_experts(
    model: nn.Module,
    targets: tuple[str, ...],
    n_experts: int,
    rank: int,
    alpha: float,
    dropout: float,
    gate_per_layer: bool,
) -> Routing:
    """Insert a shared LoRA and experts into every target layer of ``model``, in place; 0 experts give plain LoRA."""
    routing = Routing()
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets))
    if n_experts:
        layer_class = type("ExpertLinear", (ExpertLinear,), {"n_experts": n_experts, "routing": routing})
        config._register_custom_module({nn.Linear: layer_class})
    inject_adapter_in_model(config, model)
    if gate_per_layer:
        layers = [module for module in model.modules() if isinstance(module, ExpertLinear)]
        for index, layer in enumerate(layers):  # the targets of one block are consecutive
            layer.gate_row = index // len(targets)
    return routing


class Gate(nn.Module):
    """Probabilities of the experts given a user, or a user beside a prompt: (U, d) -> (U, G, M), rows sum to 1."""

    def __init__(self, d: int, n_experts: int, n_gates: int, hidden: int, noise: float, tau: float) -> None:
        super().__init__()
        self.noise, self.tau, self.shape = noise, tau, (n_gates, n_experts)
        self.generator: torch.Generator | None = None  # of the noise; None: torch's own
        self.nets = (
            nn.ModuleList(
                nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, n_experts)) for _ in range(n_gates)
            )
            if n_experts
            else nn.ModuleList()
        )

    def forward(self, users: Tensor) -> Tensor:
        if not len(self.nets):
            return users.new_zeros(len(users), *self.shape)
        logits = torch.stack([net(users) for net in self.nets], 1)
        if self.training and self.noise:
            noise = torch.randn(logits.shape, generator=self.generator, device=logits.device, dtype=logits.dtype)
            logits = logits + self.noise * noise
        return F.softmax(logits / self.tau, -1)


def balance_loss(p: Tensor) -> Tensor:
    """M sum_e f_e P_e over users, mean over gates; 1 for equal loads (Switch Transformer, arXiv 2101.03961, eq. 4).

    f_e is the share of users routed to e (a constant), P_e its mean probability, from ``p`` (U, G, M).  A penalty on P
    alone leaves experts dead, since routing follows the maximum and not the mean.
    """
    n_experts = p.shape[-1]
    share = F.one_hot(p.argmax(-1), n_experts).to(p.dtype).mean(0)  # (G, M)
    return n_experts * (share * p.mean(0)).sum(-1).mean()


def load_report(p: Tensor) -> dict:
    """Loads from ``p`` (U, G, M): share of users per expert (mean over gates), its entropy in nats, dead experts."""
    p = p.detach()
    share = F.one_hot(p.argmax(-1), p.shape[-1]).float().mean((0, 1))  # (M,)
    return {
        "load": [round(float(value), 4) for value in share],
        "load_entropy": float(torch.special.entr(share).sum()),
        "gate_entropy": float(torch.special.entr(p).sum(-1).mean()),
        "dead_experts": int((share == 0).sum()),
    }
