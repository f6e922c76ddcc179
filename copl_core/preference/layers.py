"""Layers over the signed graph, all of one form: users and responses in, users and responses out.

CoPL, arXiv 2503.01658, section 4.1.  Layer ℓ, for a user (responses likewise)::

    m_u^± = Σ_{r ∈ N_u^±} α_ur (W₁^± e_r + W₂^± (e_r ⊙ e_u))          α_ur = 1/√(deg_u^± · deg_r^±)
    e_u'  = ψ(W_s e_u + m_u⁺ + m_u⁻)

Since e_u is the same in every term of its sum, the messages are summed first and multiplied after:
``m_u^± = W₁^± (A^± E)_u + W₂^± ((A^± E)_u ⊙ e_u)``, one sparse product per sign whatever the number of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from copl_core.preference.config import Architecture
from copl_core.preference.graph import Messages, SparsePair, sparse_times, spmm
from copl_core.preference.shard import ALONE, Shard

ROWS = 1 << 13  # table rows processed at once


class Layer(nn.Module):
    """The interface of a layer.

    ``forward`` takes users (U, d), responses (R, d), the messages and ``mask`` (R, 1), which is 0 where a response
    receives no message (None: all receive theirs), and returns both tables.  The output of a response without messages
    depends on its own row alone: ``state.without_messages`` mirrors it in numpy, for texts that are embedded later.
    """

    def __init__(self, architecture: Architecture, first: bool) -> None:
        super().__init__()
        self.slope = architecture.slope

    def start(self, generator: torch.Generator) -> None:
        """Add a little noise to every weight, to break symmetry; draws from ``generator`` alone."""
        with torch.no_grad():
            for weight in self.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1 * weight.shape[-1] ** -0.5)


class SignedLayer(Layer):
    """CoPL's layer, with separate weights for users, responses and each sign.

    W_s and W₂ start at zero and W₁^± at ± ``message_start`` times the identity, and a Gaussian prior keeps all of them
    near these values: an unfitted layer already moves a user towards what they preferred and away from what they
    rejected, and a fit on a few thousand labels changes it only as far as the labels support.  Without the prior,
    accuracy on real annotators is two points lower.
    With ``mixing="diagonal"`` the five maps are vectors: coordinates do not mix, and a step on a large graph costs
    little more than its sparse products.
    """

    def __init__(self, architecture: Architecture, first: bool) -> None:
        super().__init__(architecture, first)
        dim, start = architecture.dim, architecture.message_start
        start_at: Callable[[int, float], nn.Module] = diagonal if architecture.mixing == "full" else Scale
        self.self_user, self.self_response = start_at(dim, 0.0), start_at(dim, 0.0)
        self.to_user = nn.ModuleList(_Message(start_at, dim, sign * start) for sign in (1.0, -1.0))
        self.to_response = nn.ModuleList(_Message(start_at, dim, sign * start) for sign in (1.0, -1.0))

    def forward(
        self, users: Tensor, responses: Tensor, messages: Messages, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        shard = messages.shard
        for_users, for_responses = (
            _weights(*maps) for maps in ((self.self_user, self.to_user), (self.self_response, self.to_response))
        )
        read = shard.shared(responses)
        return (
            self._update(users, read, messages.to_user, shard.shared(for_users), None, ALONE),
            self._update(responses, users, messages.to_response, for_responses, mask, shard),
        )

    def _update(
        self,
        own: Tensor,
        others: Tensor,
        signs: tuple[SparsePair, SparsePair],
        weights: Tensor,
        mask: Tensor | None,
        shard: Shard,
    ) -> Tensor:
        """The new rows of users or of responses, from their ``own`` rows (D, d) and those of the ``others`` (S, d).

        Args:
            weights: W_s, W₁⁺, W₂⁺, W₁⁻, W₂⁻: matrices (5, d, d), or diagonals (5, d).
            shard: over whose ranks the messages are summed.
        """
        if weights.dim() == 2:
            return _DiagonalUpdate.apply(own, others, weights, signs, mask, self.slope, shard)
        now = linear(own, weights[0])
        for pair, plain, product in zip(signs, weights[1::2], weights[2::2], strict=True):
            summed = shard.sum(spmm(pair.matrix, pair.transpose, others))
            summed = summed if mask is None else summed * mask
            now = now + (linear(summed, plain) + linear(summed * own, product))
        return leaky(now, self.slope)


class _Message(nn.Module):
    """The maps of one sign: ``W₁ s + W₂ (s ⊙ e)`` of summed neighbours s (D, d) and own embeddings e (D, d)."""

    def __init__(self, start_at: Callable[[int, float], nn.Module], dim: int, start: float) -> None:
        super().__init__()
        self.plain = start_at(dim, start)
        self.product = start_at(dim, 0.0)


def _weights(self_map: nn.Module, messages: nn.ModuleList) -> Tensor:
    """W_s, W₁⁺, W₂⁺, W₁⁻, W₂⁻ of users or of responses, (5, d, d) or (5, d)."""
    maps: list[Any] = [self_map]
    for message in messages:
        maps += [message.plain, message.product]
    return torch.stack([part.weight for part in maps])


class _DiagonalUpdate(torch.autograd.Function):
    """``ψ(w_s ⊙ e + Σ_± s^± ⊙ (w₁^± + w₂^± ⊙ e))`` of own rows e (D, d) with s^± = A^± of the other side's (S, d).

    The five weights are the rows of ``weights`` (5, d): w_s, w₁⁺, w₂⁺, w₁⁻, w₂⁻.  Everything except the sparse products
    is computed a few thousand rows at a time, so that intermediate results stay in the cache and are never stored.
    """

    @staticmethod
    def forward(
        ctx: Any,
        own: Tensor,
        others: Tensor,
        weights: Tensor,
        signs: tuple[SparsePair, SparsePair],
        mask: Tensor | None,
        slope: float,
        shard: Shard,
    ) -> Tensor:
        sums = [shard.add_up(sparse_times(pair.matrix, others)) for pair in signs]
        if mask is not None:
            for summed in sums:
                summed.mul_(mask)
        out = torch.empty_like(own)
        for rows in _pieces(len(own)):
            now = weights[0] * own[rows]
            for summed, plain, paired in zip(sums, weights[1::2], weights[2::2], strict=True):
                now.addcmul_(torch.addcmul(plain, paired, own[rows]), summed[rows])
            out[rows] = leaky(now, slope)
        ctx.save_for_backward(own, weights, out, *sums)
        ctx.signs, ctx.mask, ctx.slope = signs, mask, slope
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        own, weights, out, *sums = ctx.saved_tensors
        to_own, to_sums, to_weights = (
            torch.empty_like(own),
            [torch.empty_like(own) for _ in sums],
            torch.zeros_like(weights),
        )
        for rows in _pieces(len(own)):
            pull = torch.ops.aten.leaky_relu_backward(grad[rows], out[rows], ctx.slope, True)
            to_weights[0] += (pull * own[rows]).sum(0)
            here = torch.mul(pull, weights[0], out=to_own[rows])
            for sign, (summed, to_sum) in enumerate(zip(sums, to_sums, strict=True)):
                plain, paired = weights[1 + 2 * sign], weights[2 + 2 * sign]
                torch.addcmul(plain, paired, own[rows], out=to_sum[rows]).mul_(pull)
                pulled = pull * summed[rows]
                here.addcmul_(pulled, paired)
                to_weights[1 + 2 * sign] += pulled.sum(0)
                to_weights[2 + 2 * sign] += pulled.mul_(own[rows]).sum(0)
        if ctx.mask is not None:
            for to_sum in to_sums:
                to_sum.mul_(ctx.mask)
        positive, negative = (
            sparse_times(pair.transpose, to_sum) for pair, to_sum in zip(ctx.signs, to_sums, strict=True)
        )
        return to_own, positive.add_(negative), to_weights, None, None, None, None


def _pieces(n: int) -> Iterator[slice]:
    return (slice(start, start + ROWS) for start in range(0, n, ROWS))


class Scale(nn.Module):
    """A diagonal map: one weight per coordinate, which starts at ``value``."""

    def __init__(self, dim: int, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class PublishedLayer(Layer):
    """The layer of the authors' code: ``e' = ψ(W_s e + s⁺ + W₂⁺(s⁺ ⊙ e) − s⁻ − W₂⁻(s⁻ ⊙ e))``.

    W₁ is the identity, the negative message is subtracted, and W_s, W₂^± with their biases are tied between users and
    responses; all four differ from the paper's equation 3.
    """

    def __init__(self, architecture: Architecture, first: bool) -> None:
        super().__init__(architecture, first)
        dim = architecture.dim
        self.self_response = nn.Linear(dim, dim)
        self.product = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))

    def start(self, generator: torch.Generator) -> None:
        for weight in self.parameters():  # torch's own start of a Linear, from this generator
            nn.init.uniform_(
                weight,
                -(self.self_response.in_features**-0.5),
                self.self_response.in_features**-0.5,
                generator=generator,
            )

    def forward(
        self, users: Tensor, responses: Tensor, messages: Messages, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return (
            self._update(users, responses, messages.to_user, None),
            self._update(responses, users, messages.to_response, mask),
        )

    def _update(self, own: Tensor, others: Tensor, signs: tuple[SparsePair, SparsePair], mask: Tensor | None) -> Tensor:
        now = self.self_response(own)
        for pair, product, sign in zip(signs, self.product, (1.0, -1.0), strict=True):
            summed = spmm(pair.matrix, pair.transpose, others)
            summed = summed if mask is None else summed * mask
            now = now + sign * (summed + product(summed * own))
        return leaky(now, self.slope)


class CyclicHead(nn.Module):
    """What a preference has beyond scores: a skew-symmetric term, under which a ≻ b ≻ c ≻ a is possible.

    General Preference Model (Zhang et al., arXiv 2410.02197): ``v_aᵀ R v_b`` with R block-diagonal, one rotation by 90°
    per plane k, here scaled by a weight w_k that is a linear function of the user::

        v_r = P ê_r                     w(u) = w⁰ + C ê_u
        m(u, a, b) = Σ_k w_k(u) (v_a,k¹ v_b,k² − v_a,k² v_b,k¹) = −m(u, b, a)

    The paper's scales depend on the prompt and are positive; a weight with a sign lets users turn the other way round.
    The term is linear in ê_u, as a score is, so a user is placed from labels by the same convex problem
    (``adapt.Prior.explain``).  w⁰ and C start at zero: an unfitted head is Bradley–Terry.
    """

    def __init__(self, dim: int, planes: int) -> None:
        super().__init__()
        self.plane = nn.Parameter(torch.zeros(2, planes, dim))  # P: both axes of every plane
        self.by_user = nn.Parameter(torch.zeros(planes, dim))  # C
        self.by_all = nn.Parameter(torch.zeros(planes))  # w⁰

    def start(self, size: float, generator: torch.Generator) -> None:
        """Draw the planes, for responses whose coordinates have standard deviation ``size``."""
        with torch.no_grad():
            scale = self.plane.shape[-1] ** -0.5 / size
            self.plane.copy_(torch.randn(self.plane.shape, generator=generator) * scale)

    def forward(self, users: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Users, left and right responses of labels, each (B, d), → log-odds (B,) to be added to the scores'."""
        (left_1, left_2), (right_1, right_2) = (side @ self.plane.mT for side in (left, right))  # (B, planes) each
        area = left_1 * right_2 - left_2 * right_1
        return (area * (self.by_all + users @ self.by_user.T)).sum(-1)


def leaky(x: Tensor, slope: float) -> Tensor:
    """ψ: the identity above zero, ``slope`` times x below."""
    return nn.functional.leaky_relu(x, slope)


def diagonal(dim: int, value: float) -> nn.Linear:
    """A square map without bias that starts at ``value`` times the identity."""
    layer = nn.Linear(dim, dim, bias=False)
    with torch.no_grad():
        layer.weight.copy_(value * torch.eye(dim))
    return layer
