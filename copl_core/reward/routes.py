"""Which experts serve a user, and the passes through the model that any number of users need together.

The gate gives each user a probability of each expert.  Three ways to route by it:

    top1   the expert with the largest probability, at this probability: CoPL (arXiv 2503.01658)
    top2   the two largest, divided by their sum, as GShard (arXiv 2006.16668) and Mixtral (arXiv 2401.04088) do
    soft   all experts at their probabilities (arXiv 1701.06538, eq. 1, without its selection)

With top1 the probability itself must stay: divided by their sum it would be 1 for everybody, and the gate would learn
nothing.  With top2 the sum says how sure the gate is, which the ratio of the two already says; divided by it, the
experts change everybody by the same amount in total, and top2 of two experts is soft.

This is how few passes score any number of users.  With f(t; 0) the reward of text t through the shared LoRA alone and
f_e(t) the one with expert e at its reference weight w_e (see ``reward.model``), the served reward is

    r_u(t) = f(t; 0) + sum_e s(w_ue) / s(w_e) (f_e(t) - f(t; 0)),     s(w) = w, or w squared as in the published code,

over the experts that serve the user: a pass for each expert in use and one more, M + 1 at most.  For one expert it is
the line through two points of the exact reward.  For several it also leaves out what they do to each other inside the
model.  Training uses the same sum, so serving matches training.

Shapes: N users, G gates, M experts, S experts of a user at a gate, K passes, L = S or, with several gates, G S passes
of a user.  With a gate per layer, top1 keeps the layers together: K distinct routes of one expert per layer, L = 1.
Top2 and soft have one pass for each expert of each layer, G M + 1 at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Routes:
    """The distinct passes of some users beside the one through the shared LoRA, and each user's part in them."""

    expert: Tensor  # (K, G) int64
    strength: Tensor  # (K, G), zero at gates whose experts are off
    of_user: Tensor  # (N, L) int64, rows in ``expert``
    ratio: Tensor  # (N, L), strength of the user's weight divided by that of the reference weight


def chosen(p: Tensor, routing: str) -> tuple[Tensor, Tensor]:
    """Weights and experts (N, G, S) that serve each user, from gate probabilities ``p`` (N, G, M)."""
    if routing == "top1":
        return p.max(-1, keepdim=True)
    if routing == "soft":
        return p, torch.arange(p.shape[-1], device=p.device).expand(p.shape)
    weight, expert = p.topk(min(2, p.shape[-1]), -1)
    return weight / weight.sum(-1, keepdim=True), expert


def routes_of(p: Tensor, reference: Tensor, routing: str, strength: Callable[[Tensor], Tensor]) -> Routes:
    """The routes of users with gate probabilities ``p`` (N, G, M); ``ratio`` keeps their gradient.

    Args:
        reference: (G, M) weights w_e.
        strength: the factor of an expert by its weight.
    """
    weight, expert = chosen(p, routing)
    if routing == "top1":
        return _joint_routes(weight[..., 0], expert[..., 0], reference, strength)
    n_gates, n_experts = reference.shape
    first = n_experts * torch.arange(n_gates, device=p.device)[:, None]
    number = (expert + first).flatten(1)  # (N, G S) of an expert among those of all gates
    distinct, of_user = number.unique(return_inverse=True)
    full, row = strength(reference).flatten(), torch.arange(len(distinct), device=p.device)
    own = (row, distinct // n_experts)
    passes = torch.zeros(len(distinct), n_gates, dtype=torch.long, device=p.device)
    passes[own] = distinct % n_experts
    at = full.new_zeros(len(distinct), n_gates)
    at[own] = full[distinct]
    return Routes(passes, at, of_user, strength(weight).flatten(1) / full[number])


def _joint_routes(weight: Tensor, expert: Tensor, reference: Tensor, strength: Callable[[Tensor], Tensor]) -> Routes:
    """Routes of one expert (N, G) per gate: one pass serves all gates of a user."""
    passes, of_user = torch.unique(expert, dim=0, return_inverse=True)
    base = strength(reference.gather(1, expert.T).T)
    ratio = (strength(weight) / base).mean(1, keepdim=True)
    return Routes(passes, strength(reference.gather(1, passes.T).T), of_user[:, None], ratio)
