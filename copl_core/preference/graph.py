"""The signed user–response graph as sparse matrices with their transposes stored.

Labels give A⁺ (user → preferred) and A⁻ (user → rejected); a pair that was bad on both sides gives two edges of A⁻, a
tie none.  Each is normalised within its sign, α_ur = 1/√(deg_u · deg_r) (CoPL, arXiv 2503.01658, eq. 4).  A CSR product
with a stored transpose is 3–5 times a gather-scatter, and its backward pass needs no transposing.  Indices are int32,
which is what the product reads: half the memory, and no conversion at each step.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from copl_core.records import Comparisons

CHUNK = 1 << 14  # labels whose margins are computed at once


class SparsePair(NamedTuple):
    """A sparse matrix (destinations × sources) and its transpose, both CSR."""

    matrix: Tensor
    transpose: Tensor


@dataclass(frozen=True)
class Messages:
    """The two signs in both directions; what a layer propagates over."""

    to_user: tuple[SparsePair, SparsePair]  # (A⁺, A⁻), users × responses
    to_response: tuple[SparsePair, SparsePair]  # their transposes, responses × users

    @cached_property
    def edges(self) -> tuple[Tensor, Tensor]:
        """Edge lists of A⁺ and A⁻, (2, E) of user over response, those that weigh nothing left out."""
        return tuple(_edges(pair.matrix) for pair in self.to_user)


class _Product(torch.autograd.Function):
    """``matrix @ x`` whose backward pass multiplies by the stored transpose."""

    @staticmethod
    def forward(ctx, matrix: Tensor, transpose: Tensor, x: Tensor) -> Tensor:
        ctx.transpose = transpose
        return torch.sparse.mm(matrix, x)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return None, None, torch.sparse.mm(ctx.transpose, grad.contiguous())


def spmm(matrix: Tensor, transpose: Tensor, x: Tensor) -> Tensor:
    """(D, S) sparse times (S, d) dense; only x receives a gradient."""
    return _Product.apply(matrix, transpose, x)


@dataclass(frozen=True)
class _Edges:
    """Edges between users and responses, ordered by user; ``swap`` reorders them by response."""

    user: Tensor  # (E,)
    response: Tensor  # (E,)
    label: Tensor  # (E,) row of the label that made the edge
    swap: Tensor  # (E,)
    user_swapped: Tensor  # (E,) users ordered by response
    user_starts: Tensor  # (U + 1,)
    response_starts: Tensor  # (R + 1,)

    @classmethod
    def build(cls, user: Tensor, response: Tensor, label: Tensor, n_users: int, n_responses: int) -> _Edges:
        order = torch.argsort(user * n_responses + response, stable=True)
        user, response, label = (column[order].int() for column in (user, response, label))
        swap = torch.argsort(response, stable=True).int()
        return cls(user, response, label, swap, user[swap], _starts(user, n_users), _starts(response, n_responses))

    def alpha(self, kept: Tensor | None) -> Tensor:
        """1/√(deg_u · deg_r) over the kept edges, 0 for the others (E,)."""
        weight = torch.ones(len(self.user), device=self.user.device) if kept is None else kept.float()[self.label]
        users = weight.new_zeros(len(self.user_starts) - 1).index_add_(0, self.user, weight)
        responses = weight.new_zeros(len(self.response_starts) - 1).index_add_(0, self.response, weight)
        return weight * users.clamp_(min=1).rsqrt_()[self.user] * responses.clamp_(min=1).rsqrt_()[self.response]

    def matrices(self, values: Tensor) -> SparsePair:
        """Users × responses holding ``values`` (E,), and its transpose."""
        n_users, n_responses = len(self.user_starts) - 1, len(self.response_starts) - 1
        return SparsePair(_csr(self.user_starts, self.response, values, n_users, n_responses),
                          _csr(self.response_starts, self.user_swapped, values[self.swap], n_responses, n_users))


class PreferenceGraph:
    """All edges of a set of labels.  ``messages(kept)`` gives the normalised matrices of a part of the labels."""

    def __init__(self, signs: tuple[_Edges, _Edges], n_users: int, n_responses: int) -> None:
        self.signs = signs
        self.n_users = n_users
        self.n_responses = n_responses

    @classmethod
    def build(cls, labels: Comparisons, n_users: int, n_responses: int, device: str | torch.device = "cpu"):
        """Edges of decided and both-bad labels, with users and responses named by row."""
        user, left, right = (torch.as_tensor(column, device=device)
                             for column in (labels.user, labels.left, labels.right))
        outcome = torch.as_tensor(labels.outcome, device=device)
        row = torch.arange(len(labels), device=device)
        won, lost = (outcome > 0.5).nonzero()[:, 0], (outcome < 0.5).nonzero()[:, 0]
        bad = torch.as_tensor(labels.both_bad, device=device).nonzero()[:, 0]
        decided = torch.cat([won, lost])
        liked = torch.cat([left[won], right[lost]])
        disliked = torch.cat([right[won], left[lost], left[bad], right[bad]])
        blamed = torch.cat([decided, bad, bad])
        return cls((_Edges.build(user[decided], liked, row[decided], n_users, n_responses),
                    _Edges.build(user[blamed], disliked, row[blamed], n_users, n_responses)), n_users, n_responses)

    def messages(self, kept: Tensor | None = None, edge_dropout: float = 0.0,
                 generator: torch.Generator | None = None) -> Messages:
        """Normalised A⁺ and A⁻ both ways, over all labels or those of the mask ``kept`` (N,).

        ``edge_dropout`` zeroes that share of the normalised entries and scales the others up, drawn anew for each sign
        and direction, as the published code does.
        """
        to_user, to_response = [], []
        for sign in self.signs:
            alpha = sign.alpha(kept)
            to_user.append(sign.matrices(_dropped(alpha, edge_dropout, generator)))
            back = to_user[-1] if edge_dropout == 0 else sign.matrices(_dropped(alpha, edge_dropout, generator))
            to_response.append(SparsePair(back.transpose, back.matrix))
        return Messages(tuple(to_user), tuple(to_response))

    def edges(self, kept: Tensor | None = None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The same as edge lists, for the scatter path: for each sign ((2, E) of user over response, α (E,))."""
        return tuple((torch.stack([sign.user, sign.response]).long(), sign.alpha(kept)) for sign in self.signs)


class AskedPairs:
    """The labels as pairs of edges, +1 to the left response and −1 to the right: margins with a fast gradient.

    ``margins(e_u, e_r)_n = e_u(n)·(e_left(n) − e_right(n))``.  Its gradient is two sparse products over these edges, a
    third of the time of adding up gathered rows.
    """

    def __init__(self, user: Tensor, left: Tensor, right: Tensor, n_users: int, n_responses: int) -> None:
        self.user, self.left, self.right = user, left, right
        row = torch.arange(2 * len(user), device=user.device)
        self.edges = _Edges.build(user.repeat(2), torch.cat([left, right]), row, n_users, n_responses)

    def margins(self, users: Tensor, responses: Tensor) -> Tensor:
        """Users (U, d), responses (R, d) → (N,)."""
        return _Margins.apply(users, responses, self)


class _Margins(torch.autograd.Function):
    @staticmethod
    def forward(ctx, users: Tensor, responses: Tensor, asked: AskedPairs) -> Tensor:
        ctx.save_for_backward(users, responses)
        ctx.asked = asked
        margins = users.new_empty(len(asked.user))
        for part in range(0, len(margins), CHUNK):  # in pieces that stay in the cache
            rows = slice(part, part + CHUNK)
            apart = responses.index_select(0, asked.left[rows]).sub_(responses.index_select(0, asked.right[rows]))
            torch.sum(apart.mul_(users.index_select(0, asked.user[rows])), -1, out=margins[rows])
        return margins

    @staticmethod
    def backward(ctx, grad: Tensor):
        users, responses = ctx.saved_tensors
        edges = ctx.asked.edges
        pair = edges.matrices(torch.cat([grad, -grad])[edges.label])
        return torch.sparse.mm(pair.matrix, responses), torch.sparse.mm(pair.transpose, users), None


def _dropped(values: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    if share == 0:
        return values
    kept = torch.rand(values.shape, generator=generator, device=values.device) >= share
    return values * kept / (1 - share)


def _starts(rows: Tensor, n: int) -> Tensor:
    return torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=n).cumsum(0)]).int()


def _edges(matrix: Tensor) -> Tensor:
    starts, columns, values = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    rows = torch.repeat_interleave(torch.arange(len(starts) - 1, device=starts.device), starts.diff().long())
    return torch.stack([rows, columns.long()])[:, values > 0]


def _csr(starts: Tensor, columns: Tensor, values: Tensor, n_rows: int, n_columns: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, (n_rows, n_columns), check_invariants=False)
