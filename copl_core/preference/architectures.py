"""Other layers over the same signed graph, which CoPL's authors name as open work, and the table of all layers.

Each is a ``layers.Layer``; ``Architecture.layer`` chooses one by name.  Everything else (start from text, losses,
leaving the query labels out of the graph, ensembles) is the same for all.  The layers that PyG has are its own; it is
imported where one is made, since that takes three seconds and CoPL's layer needs none of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from copl_core.preference.config import Architecture
from copl_core.preference.graph import Messages, SparsePair, spmm
from copl_core.preference.layers import Layer, PublishedLayer, SignedLayer, diagonal, leaky


class LightLayer(Layer):
    """LightGCN (He et al., arXiv 2002.02126, eq. 3) with signs: ``e_u' = (A⁺ E)_u − (A⁻ E)_u``, without weights.

    No transforms, no rectifier, no self-connection; the output is the mean of the start and all layers.
    """

    def forward(
        self, users: Tensor, responses: Tensor, messages: Messages, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        to_users, to_responses = (
            self._difference(others, signs)
            for others, signs in ((responses, messages.to_user), (users, messages.to_response))
        )
        return to_users, to_responses if mask is None else to_responses * mask

    def _difference(self, others: Tensor, signs: tuple[SparsePair, SparsePair]) -> Tensor:
        plus, minus = (spmm(pair.matrix, pair.transpose, others) for pair in signs)
        return plus - minus


class SignedConvLayer(Layer):
    """PyG's ``SignedConv`` (Derr et al., arXiv 1808.06354) over all nodes at once, users first.

    Half the width follows balanced paths (friends, enemies of enemies), half unbalanced ones; neighbours are averaged
    within their sign, and the weights are the same for users and responses.
    """

    def __init__(self, architecture: Architecture, first: bool) -> None:
        from torch_geometric.nn import SignedConv

        super().__init__(architecture, first)
        self.first, self.half_dim = first, architecture.dim // 2
        self.conv = SignedConv(architecture.dim if first else self.half_dim, self.half_dim, first_aggr=first)

    def start(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            for weight in self.parameters():
                size = weight.shape[-1] ** -0.5 if weight.ndim == 2 else 0.01
                weight.copy_(torch.randn(weight.shape, generator=generator) * size)

    def forward(
        self, users: Tensor, responses: Tensor, messages: Messages, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        nodes = torch.cat([users, responses])
        both_ways = []
        for edges in messages.edges:
            forward = edges + edges.new_tensor([[0], [len(users)]])
            both_ways.append(torch.cat([forward, forward.flip(0)], 1))
        out = leaky(self.conv(nodes, *both_ways), self.slope)
        to_users, to_responses = out[: len(users)], out[len(users) :]
        if mask is not None:
            to_responses = to_responses * mask + self.without_messages(responses) * (1 - mask)
        return to_users, to_responses

    def without_messages(self, x: Tensor) -> Tensor:
        """The layer's output (N, d) for nodes without neighbours."""
        plus, minus = (x, x) if self.first else (x[:, : self.half_dim], x[:, self.half_dim :])
        return leaky(torch.cat([self.conv.lin_pos_r(plus), self.conv.lin_neg_r(minus)], 1), self.slope)


class AttentionLayer(Layer):
    """CoPL's sum with attention for degrees: ``e_u' = ψ(W_s e_u + Σ_± Σ_r a_ur^± W^± e_r)``, a softmax within N_u^±.

    One ``GATv2Conv`` (Brody et al., arXiv 2105.14491) per sign and direction, initialised like ``SignedLayer``.
    """

    def __init__(self, architecture: Architecture, first: bool) -> None:
        super().__init__(architecture, first)
        dim = architecture.dim
        self.self_user, self.self_response = diagonal(dim, 0.0), diagonal(dim, 0.0)
        self.to_user = nn.ModuleList(_attention(dim, sign * architecture.message_start) for sign in (1.0, -1.0))
        self.to_response = nn.ModuleList(_attention(dim, sign * architecture.message_start) for sign in (1.0, -1.0))

    def forward(
        self, users: Tensor, responses: Tensor, messages: Messages, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        to_users, to_responses = self.self_user(users), self.self_response(responses)
        for edges, from_response, from_user in zip(messages.edges, self.to_user, self.to_response, strict=True):
            to_users = to_users + from_response((responses, users), edges.flip(0))
            received = from_user((users, responses), edges)
            to_responses = to_responses + (received if mask is None else received * mask)
        return leaky(to_users, self.slope), leaky(to_responses, self.slope)


def _attention(dim: int, start: float) -> nn.Module:
    from torch_geometric.nn import GATv2Conv

    conv = GATv2Conv((dim, dim), dim, add_self_loops=False, bias=False)
    with torch.no_grad():
        conv.lin_l.weight.copy_(start * torch.eye(dim))
        conv.lin_r.weight.copy_(abs(start) * torch.eye(dim))
        conv.att.zero_()
    return conv


LAYERS: dict[str, type[Layer]] = {
    "copl": SignedLayer,
    "published": PublishedLayer,
    "lightgcn": LightLayer,
    "signed-conv": SignedConvLayer,
    "attention": AttentionLayer,
}
