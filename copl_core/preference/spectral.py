"""Where ids of a large graph start: the leading singular vectors of the signed graph.

Adam moves every row of the ids by as much at a step, whatever the number of rows, and what a group shares is as small a
part of a random start as rows are many: the more people, the longer it takes until groups are told from chance.  The
leading singular vectors hold what the graph says at any distance, and cost as much as two to four training steps.  A
direction that comes from chance alone has a singular value at the edge of the bulk, estimated by the last one found,
and weighs next to nothing; a graph that has no such edge, since it has fewer directions than were asked for, says
nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from copl_core.preference.graph import Messages, SparsePair, sparse_times

MOST = 60  # rounds
STILL = 1e-3  # relative change of the squared singular values' sum in a round at which they are taken as found

Scales = tuple[Tensor, Tensor]  # √(deg^± / deg), (rows, 1) each


def leading(messages: Messages, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Users (U, k) and responses (R, k) by the k = min(width, U, R) leading directions of the signed graph.

    Block power iteration with orthogonalisation.  Every column has a mean square of ``1 − (σ_k/σ)²``, σ_k being the
    smallest singular value found: none for chance, towards 1 for what stands far out, taken over the rows that have an
    edge.  Where the graph has fewer than k directions, chance cannot be told and all is nought.
    """
    graph = _Signed.of(messages)
    n_users, n_responses = messages.to_user[0].matrix.shape
    width = min(width, n_users, n_responses)
    right = torch.randn(n_responses, width, generator=generator, device=messages.to_user[0].matrix.device)
    found = 0.0
    for _ in range(MOST):
        before = found
        right, size = torch.linalg.qr(graph.to_responses(graph.to_users(right)))
        found = float(size.diagonal().abs().sum())
        if abs(found - before) <= STILL * found:
            break
    left, size, turn = torch.linalg.svd(graph.to_users(right), full_matrices=False)
    told = size[-1] > 1e-6 * size[0]
    weight = (told * (1 - (size[-1] / size).square().nan_to_num(1.0))).sqrt()
    n_users, n_responses = ((side[0] > 0).logical_or(side[1] > 0).sum() for side in (graph.users, graph.responses))
    return left * weight * n_users**0.5, right @ turn.T * weight * n_responses**0.5


@dataclass(frozen=True)
class _Signed:
    """``D_u^-½ (S⁺ − S⁻) D_r^-½`` with S^± the bare edges of each sign and degrees over both.

    Messages are normalised within their sign, which takes away what everybody likes: a response that is preferred by
    all has many light edges, its one rejection a heavy one.
    """

    messages: Messages
    users: Scales
    responses: Scales

    @classmethod
    def of(cls, messages: Messages) -> _Signed:
        return cls(messages, _scales(messages.to_user), _scales(messages.to_response))

    def to_users(self, x: Tensor) -> Tensor:
        return _difference(self.messages.to_user, self.users, self.responses, x)

    def to_responses(self, x: Tensor) -> Tensor:
        return _difference(self.messages.to_response, self.responses, self.users, x)


def _scales(signs: tuple[SparsePair, SparsePair]) -> Scales:
    degree = torch.stack([pair.matrix.crow_indices().diff() for pair in signs]).float()
    liked, disliked = (degree / degree.sum(0).clamp(min=1)).sqrt()
    return liked[:, None], disliked[:, None]


def _difference(signs: tuple[SparsePair, SparsePair], own: Scales, other: Scales, x: Tensor) -> Tensor:
    liked, disliked = (
        sparse_times(pair.matrix, x * there).mul_(here) for pair, here, there in zip(signs, own, other, strict=True)
    )
    return liked.sub_(disliked)
