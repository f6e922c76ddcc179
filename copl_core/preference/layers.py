"""Layers over the signed graph, all of one form: users and responses in, users and responses out.

CoPL, arXiv 2503.01658, section 4.1.  Layer ℓ, for a user (responses likewise)::

    m_u^± = Σ_{r ∈ N_u^±} α_ur (W₁^± e_r + W₂^± (e_r ⊙ e_u))          α_ur = 1/√(deg_u^± · deg_r^±)
    e_u'  = ψ(W_s e_u + m_u⁺ + m_u⁻)

Since e_u is the same in every term of its sum, the messages are summed first and multiplied after:
``m_u^± = W₁^± (A^± E)_u + W₂^± ((A^± E)_u ⊙ e_u)``, one sparse product a sign whatever the number of weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from copl_core.preference.graph import Messages, SparsePair, sparse_times, spmm
from copl_core.preference.state import GraphConfig

ROWS = 1 << 13  # of the tables that are multiplied at once


class SignedSum(MessagePassing):
    """``A x`` for one sign: by CSR product where a sparse matrix is given, by gather and scatter for an edge list.

    Shapes:
        x (S, d); CSR (D, S) with its transpose (S, D), or edge_index (2, E) of source over destination with alpha (E,).
        Returns (D, d).
    """

    def __init__(self) -> None:
        super().__init__(aggr="sum")

    def forward(
        self,
        x: Tensor,
        edges: Tensor,
        transpose: Tensor | None = None,
        alpha: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        return self.propagate(edges, x=(x, None), transpose=transpose, alpha=alpha, size=size)

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        return alpha.unsqueeze(-1) * x_j

    def message_and_aggregate(self, adj_t: Tensor, x: tuple[Tensor, None], transpose: Tensor) -> Tensor:
        return spmm(adj_t, transpose, x[0])


class Layer(nn.Module):
    """What every layer is to the network.

    ``forward`` takes users (U, d), responses (R, d), the messages and ``heard`` (R, 1), which is 0 where a response
    gets no message (None: all are heard), and returns both tables.  A response without messages may depend on itself
    alone: ``state.alone`` says the same in numpy, for texts that are placed later.
    """

    def __init__(self, config: GraphConfig, first: bool) -> None:
        super().__init__()
        self.slope = config.slope

    def start(self, generator: torch.Generator) -> None:
        """Move every weight a little off its start, so that nothing is symmetric; the global seed is not read."""
        with torch.no_grad():
            for weight in self.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1 * weight.shape[-1] ** -0.5)


class SignedLayer(Layer):
    """CoPL's layer, weights of its own for each side and sign.

    W_s and W₂ start at zero and W₁^± at ± ``message_start`` times the identity, and a Gaussian prior keeps all of them
    near there: an unfitted layer already says "near what you preferred, away from what you rejected", and a fit on a
    few thousand labels moves it only as far as they warrant.  Free matrices cost two points on real annotators.
    With ``mixing="diagonal"`` the five maps are vectors: no coordinate speaks for another, and a step on a large graph
    costs little more than its sparse products.
    """

    def __init__(self, config: GraphConfig, first: bool) -> None:
        super().__init__(config, first)
        dim, start = config.dim, config.message_start
        start_at = diagonal if config.mixing == "full" else Scale
        self.sum = SignedSum()
        self.self_user, self.self_response = start_at(dim, 0.0), start_at(dim, 0.0)
        self.to_user = nn.ModuleList(_Message(start_at, dim, sign * start) for sign in (1.0, -1.0))
        self.to_response = nn.ModuleList(_Message(start_at, dim, sign * start) for sign in (1.0, -1.0))

    def forward(
        self, users: Tensor, responses: Tensor, messages: Messages, heard: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return (
            self._side(users, responses, messages.to_user, self.self_user, self.to_user, None),
            self._side(responses, users, messages.to_response, self.self_response, self.to_response, heard),
        )

    def _side(
        self,
        own: Tensor,
        others: Tensor,
        signs: tuple[SparsePair, SparsePair],
        keep: nn.Module,
        told: nn.ModuleList,
        heard: Tensor | None,
    ) -> Tensor:
        if isinstance(keep, Scale):
            weights = [keep.weight] + [part.weight for message in told for part in (message.plain, message.product)]
            return _DiagonalSide.apply(own, others, torch.stack(weights), signs, heard, self.slope)
        now = keep(own)
        for pair, message in zip(signs, told, strict=True):
            summed = self.sum(others, pair.matrix, transpose=pair.transpose)
            now = now + message(summed if heard is None else summed * heard, own)
        return leaky(now, self.slope)


class _Message(nn.Module):
    """``W₁ s + W₂ (s ⊙ e)`` of summed neighbours s (D, d) and own embeddings e (D, d)."""

    def __init__(self, start_at, dim: int, start: float) -> None:
        super().__init__()
        self.plain = start_at(dim, start)
        self.product = start_at(dim, 0.0)

    def forward(self, summed: Tensor, own: Tensor) -> Tensor:
        return self.plain(summed) + self.product(summed * own)


class _DiagonalSide(torch.autograd.Function):
    """``ψ(w_s ⊙ e + Σ_± s^± ⊙ (w₁^± + w₂^± ⊙ e))`` of own rows e (D, d) with s^± = A^± of the other side's (S, d).

    The five weights are the rows of ``weights`` (5, d): w_s, w₁⁺, w₂⁺, w₁⁻, w₂⁻.  All but the sparse products is done a
    few thousand rows at a time, and what is made on the way stays in the cache and is never kept.
    """

    @staticmethod
    def forward(
        ctx,
        own: Tensor,
        others: Tensor,
        weights: Tensor,
        signs: tuple[SparsePair, SparsePair],
        heard: Tensor | None,
        slope: float,
    ) -> Tensor:
        sums = [sparse_times(pair.matrix, others) for pair in signs]
        for summed in sums if heard is not None else ():
            summed.mul_(heard)
        out = torch.empty_like(own)
        for rows in _pieces(len(own)):
            now = weights[0] * own[rows]
            for summed, plain, paired in zip(sums, weights[1::2], weights[2::2], strict=True):
                now.addcmul_(torch.addcmul(plain, paired, own[rows]), summed[rows])
            out[rows] = leaky(now, slope)
        ctx.save_for_backward(own, weights, out, *sums)
        ctx.signs, ctx.heard, ctx.slope = signs, heard, slope
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
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
                told = pull * summed[rows]
                here.addcmul_(told, paired)
                to_weights[1 + 2 * sign] += told.sum(0)
                to_weights[2 + 2 * sign] += told.mul_(own[rows]).sum(0)
        for to_sum in to_sums if ctx.heard is not None else ():
            to_sum.mul_(ctx.heard)
        liked, disliked = (
            sparse_times(pair.transpose, to_sum) for pair, to_sum in zip(ctx.signs, to_sums, strict=True)
        )
        return to_own, liked.add_(disliked), to_weights, None, None, None


def _pieces(n: int) -> Iterator[slice]:
    return (slice(start, start + ROWS) for start in range(0, n, ROWS))


class Scale(nn.Module):
    """A diagonal map: every coordinate times a weight of its own, ``value`` at the start."""

    def __init__(self, dim: int, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class PublishedLayer(Layer):
    """The layer as the authors' code has it: ``e' = ψ(W_s e + s⁺ + W₂⁺(s⁺ ⊙ e) − s⁻ − W₂⁻(s⁻ ⊙ e))``.

    W₁ is the identity, the negative message is subtracted, and W_s, W₂^± with their biases are tied between users and
    responses; all four differ from the paper's equation 3.
    """

    def __init__(self, config: GraphConfig, first: bool) -> None:
        super().__init__(config, first)
        self.sum = SignedSum()
        self.self_response = nn.Linear(config.dim, config.dim)
        self.product = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in range(2))

    def start(self, generator: torch.Generator) -> None:
        for weight in self.parameters():  # torch's own start of a Linear, from this generator
            nn.init.uniform_(
                weight,
                -(self.self_response.in_features**-0.5),
                self.self_response.in_features**-0.5,
                generator=generator,
            )

    def forward(
        self, users: Tensor, responses: Tensor, messages: Messages, heard: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return (
            self._side(users, responses, messages.to_user, None),
            self._side(responses, users, messages.to_response, heard),
        )

    def _side(self, own: Tensor, others: Tensor, signs, heard: Tensor | None) -> Tensor:
        now = self.self_response(own)
        for pair, product, sign in zip(signs, self.product, (1.0, -1.0), strict=True):
            summed = self.sum(others, pair.matrix, transpose=pair.transpose)
            summed = summed if heard is None else summed * heard
            now = now + sign * (summed + product(summed * own))
        return leaky(now, self.slope)


def leaky(x: Tensor, slope: float) -> Tensor:
    """ψ: the identity above zero, ``slope`` times x below."""
    return nn.functional.leaky_relu(x, slope)


def diagonal(dim: int, value: float) -> nn.Linear:
    """A square map without bias that starts at ``value`` times the identity."""
    layer = nn.Linear(dim, dim, bias=False)
    with torch.no_grad():
        layer.weight.copy_(value * torch.eye(dim))
    return layer
