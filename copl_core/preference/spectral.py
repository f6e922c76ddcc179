"""The starting ids of a large graph: the leading singular vectors of the signed graph.

Adam moves every id row by the same amount at a step, whatever the number of rows.  The common component of a group in a
random start shrinks as rows become more numerous, so the more users there are, the more steps it takes to separate
groups from chance.  The leading singular vectors contain the structure of the graph at any distance and cost as much as
two to four training steps.  A direction of pure chance has a singular value at the edge of the bulk, which the smallest
value found estimates, and gets a weight near zero.  A graph with fewer directions than requested has no such edge, and
all directions get weight zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from copl_core.preference.graph import Messages, SparsePair, sparse_times
from copl_core.preference.shard import ALONE, Shard

MAX_ROUNDS = 60
TOLERANCE = 1e-3  # relative change of the sum of squared singular values in a round at which the iteration stops

Scales = tuple[Tensor, Tensor]  # √(deg^± / deg), (rows, 1) each


def leading(messages: Messages, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Users (U, k) and responses (R, k) along the k = min(width, U, R) leading directions of the signed graph.

    Block power iteration with orthogonalisation.  Over the rows that have an edge, every column has a mean square of
    ``1 − (σ_k/σ)²``, where σ_k is the smallest singular value found: 0 for chance, near 1 for a strong direction.  In a
    graph with fewer than k directions chance cannot be estimated, and both tables are zero.  A direction has the sign
    under which it is nearer to its random start.
    """
    graph = _Signed.of(messages)
    n_users, n_responses = messages.to_user[0].matrix.shape
    shard = messages.shard
    width = min(width, int(shard.total(n_users)), n_responses)
    start = torch.randn(n_responses, width, generator=generator, device=messages.to_user[0].matrix.device)
    right = start
    found = 0.0
    for _ in range(MAX_ROUNDS):
        before = found
        right, size = torch.linalg.qr(graph.to_responses(graph.to_users(right)))
        found = float(size.diagonal().abs().sum())
        if abs(found - before) <= TOLERANCE * found:
            break
    left, size, turn = _singular(graph.to_users(right), shard)
    right = right @ turn.T
    sign = torch.where((right * start).sum(0) < 0, -1.0, 1.0)  # a decomposition's own signs depend on rounding
    has_edge = size[-1] > 1e-6 * size[0]
    weight = (has_edge * (1 - (size[-1] / size).square().nan_to_num(1.0))).sqrt()
    labelled_users, labelled_responses = (
        (positive > 0).logical_or(negative > 0).sum() for positive, negative in (graph.users, graph.responses)
    )
    labelled_users = shard.add_up(labelled_users)
    return left * (sign * weight) * labelled_users**0.5, right * (sign * weight) * labelled_responses**0.5


def _singular(own: Tensor, shard: Shard) -> tuple[Tensor, Tensor, Tensor]:
    """``U`` (U, k), ``S`` (k,), ``Vᵀ`` (k, k) of the table of which this rank has the rows ``own`` (U, k)."""
    if shard.alone:
        return torch.linalg.svd(own, full_matrices=False)
    exact = own.double()  # squared singular values in double precision are as exact as single ones
    squares, turn = torch.linalg.eigh(shard.add_up(exact.T @ exact))  # ascending
    size, turn = squares.flip(0).clamp(min=torch.finfo(own.dtype).tiny).sqrt(), turn.flip(1)
    return (exact @ turn / size).to(own.dtype), size.to(own.dtype), turn.T.to(own.dtype)


@dataclass(frozen=True)
class _Signed:
    """``D_u^-½ (S⁺ − S⁻) D_r^-½`` with S^± the bare edges of each sign and degrees over both.

    Messages are normalised within their sign, which removes what all users like: a response that nearly all users
    prefer has many edges of small weight, and its one rejection an edge of large weight.
    """

    messages: Messages
    users: Scales
    responses: Scales

    @classmethod
    def of(cls, messages: Messages) -> _Signed:
        return cls(messages, _scales(messages.to_user, ALONE), _scales(messages.to_response, messages.shard))

    def to_users(self, x: Tensor) -> Tensor:
        return _difference(self.messages.to_user, self.users, self.responses, x)

    def to_responses(self, x: Tensor) -> Tensor:
        return self.messages.shard.add_up(_difference(self.messages.to_response, self.responses, self.users, x))


def _scales(signs: tuple[SparsePair, SparsePair], shard: Shard) -> Scales:
    degree = shard.add_up(torch.stack([pair.matrix.crow_indices().diff() for pair in signs])).float()
    positive, negative = (degree / degree.sum(0).clamp(min=1)).sqrt()
    return positive[:, None], negative[:, None]


def _difference(signs: tuple[SparsePair, SparsePair], own: Scales, other: Scales, x: Tensor) -> Tensor:
    positive, negative = (
        sparse_times(pair.matrix, x * source).mul_(target)
        for pair, target, source in zip(signs, own, other, strict=True)
    )
    return positive.sub_(negative)
