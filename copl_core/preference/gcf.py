"""Graph collaborative filtering over signed labels: the network that gives every user and response an embedding.

CoPL, arXiv 2503.01658, section 4.1.  Layer ℓ, for a user (responses likewise, with weights of their own)::

    m_u^± = Σ_{r ∈ N_u^±} α_ur (W₁^± e_r + W₂^± (e_r ⊙ e_u))          α_ur = 1/√(deg_u^± · deg_r^±)
    e_u'  = ψ(W_s e_u + m_u⁺ + m_u⁻)

Since e_u is the same in every term of its sum, the messages are summed first and multiplied after:
``m_u^± = W₁^± (A^± E)_u + W₂^± ((A^± E)_u ⊙ e_u)``, one sparse product a sign whatever the number of weights.

Where this differs from the paper, and why (all measured on held-out labels of real annotators): the output is the start
plus every layer instead of the last layer alone, W_s and W₂ start at zero and W₁^± at ± a tenth of the identity, and a
Gaussian prior keeps all of them near there.  So an unfitted layer already says "near what you preferred, away from what
you rejected", and a fit on a few thousand labels moves it only as far as they warrant; free matrices cost two points of
accuracy.  The sum of the negative messages keeps its own weights and so may be subtracted, as the published code does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from copl_core.preference.graph import Messages, spmm
from copl_core.preference.state import GraphConfig

START = 0.3  # standard deviation of the map from text at the start


class SignedSum(MessagePassing):
    """``A x`` for one sign: by CSR product where a sparse matrix is given, by gather and scatter for an edge list.

    Shapes:
        x (S, d); CSR (D, S) with its transpose (S, D), or edge_index (2, E) of source over destination with alpha (E,).
        Returns (D, d).
    """

    def __init__(self) -> None:
        super().__init__(aggr="sum")

    def forward(self, x: Tensor, edges: Tensor, transpose: Tensor | None = None, alpha: Tensor | None = None,
                size: tuple[int, int] | None = None) -> Tensor:
        return self.propagate(edges, x=(x, None), transpose=transpose, alpha=alpha, size=size)

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        return alpha.unsqueeze(-1) * x_j

    def message_and_aggregate(self, adj_t: Tensor, x: tuple[Tensor, None], transpose: Tensor) -> Tensor:
        return spmm(adj_t, transpose, x[0])


class SignedLayer(nn.Module):
    """One layer for both sides of the graph.

    ``rule="published"`` is the layer of the published code: weights tied between users and responses, W₁ the identity,
    the negative message subtracted.

    Shapes:
        users (U, d), responses (R, d) → the same; ``heard`` (R, 1) is 0 where a response gets no message.
    """

    def __init__(self, config: GraphConfig) -> None:
        super().__init__()
        dim, start = config.dim, config.message_start
        self.slope = config.slope
        self.sum = SignedSum()
        tied = config.rule == "published"
        self.self_user = _linear(dim, 1.0 if tied else 0.0)
        self.self_response = self.self_user if tied else _linear(dim, 0.0)
        self.to_user = nn.ModuleList(_Message(dim, sign, start, tied) for sign in (1.0, -1.0))
        self.to_response = self.to_user if tied else nn.ModuleList(
            _Message(dim, sign, start, tied) for sign in (1.0, -1.0))

    def forward(self, users: Tensor, responses: Tensor, messages: Messages,
                heard: Tensor | None = None) -> tuple[Tensor, Tensor]:
        to_users, to_responses = self.self_user(users), self.self_response(responses)
        for sign in range(2):
            pair = messages.to_user[sign]
            to_users = to_users + self.to_user[sign](self.sum(responses, pair.matrix, transpose=pair.transpose), users)
            pair = messages.to_response[sign]
            said = self.to_response[sign](self.sum(users, pair.matrix, transpose=pair.transpose), responses)
            to_responses = to_responses + (said if heard is None else said * heard)
        return leaky(to_users, self.slope), leaky(to_responses, self.slope)


class _Message(nn.Module):
    """``W₁ s + W₂ (s ⊙ e)`` of summed neighbours s (D, d) and own embeddings e (D, d)."""

    def __init__(self, dim: int, sign: float, start: float, published: bool) -> None:
        super().__init__()
        self.sign = sign
        self.plain = None if published else _linear(dim, start * sign)
        self.product = _linear(dim, 0.0)

    def forward(self, summed: Tensor, own: Tensor) -> Tensor:
        if self.plain is None:
            return self.sign * (summed + self.product(summed * own))
        return self.plain(summed) + self.product(summed * own)


class CoplGraph(nn.Module):
    """The whole network: text- and id-started responses, users, ``layers`` propagations, bias and side nuisance.

    Start: e_r⁰ = W_t φ(prompt, r) + δ_r, with δ_r dropped at random in training so that a response nobody has labelled
    has a place; e_u⁰ = μ + δ_u.  Residuals δ start at zero: a row without labels moves nothing.  The output is the sum
    of the start and all layers, so that a fit may fall back on plain factorisation; the published rule takes the last.
    """

    def __init__(self, n_users: int, n_responses: int, n_phi: int, config: GraphConfig,
                 generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.text = nn.Linear(n_phi, dim, bias=False)
        self.user_mean = nn.Parameter(torch.zeros(dim))
        self.user_residual = nn.Parameter(torch.zeros(n_users, dim))
        self.response_residual = nn.Parameter(torch.zeros(n_responses, dim))
        self.response_bias = nn.Parameter(torch.zeros(n_responses))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.text_bias = nn.Parameter(torch.zeros(n_phi))
        self.side = nn.Parameter(torch.zeros(()))
        self.user_side = nn.Parameter(torch.zeros(n_users))
        self.convs = nn.ModuleList(SignedLayer(config) for _ in range(config.layers))
        self._start(generator)
        for i, weight in enumerate(self.convs.parameters()):  # where the priors on layers are centred
            self.register_buffer(f"anchor_{i}", weight.detach().clone(), persistent=False)

    @torch.no_grad()
    def _start(self, generator: torch.Generator) -> None:
        n_phi, dim = self.text.in_features, self.config.dim
        self.text.weight.copy_(torch.randn(dim, n_phi, generator=generator) * START)
        self.user_mean.copy_(torch.randn(dim, generator=generator) * START * dim ** -0.5)
        for layer in self.convs:
            for weight in layer.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1 * dim ** -0.5)

    def forward(self, phi: Tensor, messages: Messages, keep: Tensor | None = None,
                keep_user: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """φ (R, P) → ê_u (U, d), ê_r (R, d), b (R,).

        ``keep`` (R, 1) and ``keep_user`` (U, 1) are 0 where a row is to be treated as one that nobody has met: a
        response is then its text alone, without residual or messages; a user its messages alone.
        """
        residual, own_bias, user_residual = self.response_residual, self.response_bias, self.user_residual
        if keep is not None:
            residual, own_bias = residual * keep, own_bias * keep[:, 0]
        if keep_user is not None:
            user_residual = user_residual * keep_user
        responses = self.text(phi) + residual
        users = self.user_mean + user_residual
        all_users, all_responses = users, responses
        for layer in self.convs:
            users, responses = layer(users, responses, messages, keep)
            if self.config.rule == "published":
                all_users, all_responses = users, responses
            else:
                all_users, all_responses = all_users + users, all_responses + responses
        return all_users, all_responses, all_responses @ self.bias + phi @ self.text_bias + own_bias


    def layer_drift(self) -> Tensor:
        """Squared distance of the layers' weights from where they started, summed."""
        weights = list(self.convs.parameters())
        moved = ((weight - getattr(self, f"anchor_{i}")).square().sum() for i, weight in enumerate(weights))
        return sum(moved, start=self.side.new_zeros(()))


def leaky(x: Tensor, slope: float) -> Tensor:
    """ψ: the identity above zero, ``slope`` times x below."""
    return nn.functional.leaky_relu(x, slope)


def _linear(dim: int, diagonal: float) -> nn.Linear:
    layer = nn.Linear(dim, dim, bias=False)
    with torch.no_grad():
        layer.weight.copy_(diagonal * torch.eye(dim))
    return layer
