"""The signed user–response graph as sparse matrices with their transposes stored.

Labels give A⁺ (user → preferred) and A⁻ (user → rejected); a pair that was bad on both sides gives two edges of A⁻, a
tie none.  Each is normalised within its sign, α_ur = 1/√(deg_u · deg_r) (CoPL, arXiv 2503.01658, eq. 4).  A CSR product
with a stored transpose is 3–5 times a gather-scatter, and its backward pass needs no transposing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from copl_core.records import Comparisons


class SparsePair(NamedTuple):
    """A sparse matrix (destinations × sources) and its transpose, both CSR."""

    matrix: Tensor
    transpose: Tensor


class Messages(NamedTuple):
    """The two signs in both directions; what a layer propagates over."""

    to_user: tuple[SparsePair, SparsePair]  # (A⁺, A⁻), users × responses
    to_response: tuple[SparsePair, SparsePair]  # their transposes, responses × users


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
class _Sign:
    """Edges of one sign, ordered by user; ``swap`` reorders them by response."""

    user: Tensor  # (E,)
    response: Tensor  # (E,)
    label: Tensor  # (E,) row of the label that made the edge
    swap: Tensor  # (E,)
    user_starts: Tensor  # (U + 1,)
    response_starts: Tensor  # (R + 1,)

    @classmethod
    def build(cls, user: Tensor, response: Tensor, label: Tensor, n_users: int, n_responses: int) -> _Sign:
        order = torch.argsort(user * n_responses + response, stable=True)
        user, response, label = user[order], response[order], label[order]
        return cls(user, response, label, torch.argsort(response, stable=True),
                   _starts(user, n_users), _starts(response, n_responses))

    def alpha(self, kept: Tensor | None) -> Tensor:
        """1/√(deg_u · deg_r) over the kept edges, 0 for the others (E,)."""
        weight = torch.ones(len(self.user), device=self.user.device) if kept is None else kept[self.label].float()
        users = weight.new_zeros(len(self.user_starts) - 1).index_add_(0, self.user, weight)
        responses = weight.new_zeros(len(self.response_starts) - 1).index_add_(0, self.response, weight)
        return weight * (users[self.user] * responses[self.response]).clamp(min=1).rsqrt()


class PreferenceGraph:
    """All edges of a set of labels.  ``messages(kept)`` gives the normalised matrices of a part of the labels."""

    def __init__(self, signs: tuple[_Sign, _Sign], n_users: int, n_responses: int) -> None:
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
        return cls((_Sign.build(user[decided], liked, row[decided], n_users, n_responses),
                    _Sign.build(user[blamed], disliked, row[blamed], n_users, n_responses)), n_users, n_responses)

    def messages(self, kept: Tensor | None = None) -> Messages:
        """Normalised A⁺ and A⁻ both ways, over all labels or those of the mask ``kept`` (N,)."""
        to_user, to_response = [], []
        for sign in self.signs:
            alpha = sign.alpha(kept)
            by_user = _csr(sign.user_starts, sign.response, alpha, self.n_users, self.n_responses)
            by_response = _csr(sign.response_starts, sign.user[sign.swap], alpha[sign.swap], self.n_responses,
                               self.n_users)
            to_user.append(SparsePair(by_user, by_response))
            to_response.append(SparsePair(by_response, by_user))
        return Messages(tuple(to_user), tuple(to_response))

    def edges(self, kept: Tensor | None = None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The same as edge lists, for the scatter path: for each sign ((2, E) of user over response, α (E,))."""
        return tuple((torch.stack([sign.user, sign.response]), sign.alpha(kept)) for sign in self.signs)


def _starts(rows: Tensor, n: int) -> Tensor:
    return torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=n).cumsum(0)])


def _csr(starts: Tensor, columns: Tensor, values: Tensor, n_rows: int, n_columns: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, (n_rows, n_columns), check_invariants=False)
