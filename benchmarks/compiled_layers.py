"""The layer of the preference graph with its dense passes compiled into one kernel each (``torch.compile``).

A trial: the product does not use it, since it needs a C++ compiler on the machine of the trainer and half a minute in
each process.  ``graph_speed --compiled`` measures what it would save.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from copl_core.preference import layers
from copl_core.preference.graph import SparsePair, sparse_times
from copl_core.preference.shard import Shard


def _forward(own: Tensor, positive: Tensor, negative: Tensor, weights: Tensor, slope: float) -> Tensor:
    now = weights[0] * own + (weights[1] + weights[2] * own) * positive + (weights[3] + weights[4] * own) * negative
    return torch.where(now > 0, now, slope * now)


def _backward(
    grad: Tensor, out: Tensor, own: Tensor, positive: Tensor, negative: Tensor, weights: Tensor, slope: float
) -> tuple[Tensor, ...]:
    """Gradients of the own rows and of both sums, and the five of the weights."""
    pull = torch.where(out > 0, grad, slope * grad)
    to_own = pull * (weights[0] + weights[2] * positive + weights[4] * negative)
    to_positive = pull * (weights[1] + weights[2] * own)
    to_negative = pull * (weights[3] + weights[4] * own)
    by_positive, by_negative = pull * positive, pull * negative
    sums = (pull * own).sum(0), by_positive.sum(0), (by_positive * own).sum(0), by_negative.sum(0)
    return to_own, to_positive, to_negative, *sums, (by_negative * own).sum(0)


class CompiledUpdate(torch.autograd.Function):
    """As ``layers._DiagonalUpdate``."""

    _forward = staticmethod(torch.compile(_forward, dynamic=False))
    _backward = staticmethod(torch.compile(_backward, dynamic=False))

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
        sums = [sparse_times(pair.matrix, others) for pair in signs]
        if mask is not None:
            for summed in sums:
                summed.mul_(mask)
        out = CompiledUpdate._forward(own, *sums, weights, slope)
        ctx.save_for_backward(own, weights, out, *sums)
        ctx.signs, ctx.mask, ctx.slope = signs, mask, slope
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        own, weights, out, *sums = ctx.saved_tensors
        found = CompiledUpdate._backward(grad, out, own, *sums, weights, ctx.slope)
        to_own, to_sums, to_weights = found[0], found[1:3], torch.stack(found[3:])
        if ctx.mask is not None:
            for to_sum in to_sums:
                to_sum.mul_(ctx.mask)
        positive, negative = (
            sparse_times(pair.transpose, to_sum) for pair, to_sum in zip(ctx.signs, to_sums, strict=True)
        )
        return to_own, positive.add_(negative), to_weights, None, None, None, None


@contextmanager
def compiled() -> Iterator[None]:
    """Meanwhile the layers compute with these kernels."""
    before = layers._DiagonalUpdate
    layers._DiagonalUpdate = CompiledUpdate  # type: ignore
    try:
        yield
    finally:
        layers._DiagonalUpdate = before  # type: ignore
