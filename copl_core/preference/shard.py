"""One rank's part of a graph that several processes fit: its own users, and what it sums with the others.

Users are divided over the ranks in contiguous blocks, and each rank holds their labels, their rows of every table and
the optimiser's state of these rows.  Responses and shared weights are the same on all ranks.  Two operations, each the
other's gradient, keep them so (Megatron's g and f: Shoeybi et al., arXiv 1909.08053, section 3)::

    sum      Σ over the ranks; its gradient is the identity      where users send messages to responses
    shared   the identity; its gradient is Σ over the ranks      where users read responses and shared weights

With both in place each rank has the whole gradient of everything that is shared, and that of its own users.  Sums over
ranks change the order of additions and nothing else.  Alone every operation is the identity, bit for bit.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor

from copl_core.records import RankLost

_SCRATCH = 1 << 20  # random numbers of other ranks that are drawn at once


@dataclass(frozen=True)
class Rows:
    """The own rows of a table whose rows are divided over the ranks in blocks."""

    counts: tuple[int, ...]  # rows of each rank
    rank: int

    @property
    def total(self) -> int:
        return sum(self.counts)

    def of(self, rank: int) -> slice:
        """The rows of a rank in the whole table."""
        first = sum(self.counts[:rank])
        return slice(first, first + self.counts[rank])

    def rand(self, generator: torch.Generator, device: torch.device | str) -> Tensor:
        """Uniform numbers (own rows,): the own part of those that one process draws for the whole table.

        Every rank advances its generator by the whole table, so that all generators stay equal.
        """
        own = self.of(self.rank)
        if len(self.counts) == 1 or torch.device(device).type != "cpu":  # a GPU's numbers depend on the size of a draw
            return torch.rand(self.total, generator=generator, device=device)[own]
        _skip(own.start, generator)
        drawn = torch.rand(own.stop - own.start, generator=generator)
        _skip(self.total - own.stop, generator)
        return drawn


class Shard:
    """This process among the ranks of a fit.

    Args:
        group: a process group of ``torch.distributed``; None: this process is alone.
        device: of the tensors that are summed.
        patience: seconds that this rank waits for another one; None: as long as the group does.

    Every method of a group raises ``RankLost`` where another rank has ended or does not answer, and must be called on
    all ranks in the same order.
    """

    def __init__(self, group: Any = None, device: torch.device | str = "cpu", patience: float | None = None) -> None:
        self.group, self.device, self.patience = group, torch.device(device), patience
        self.rank: int = 0 if group is None else group.rank()
        self.n: int = 1 if group is None else group.size()
        self.bytes_summed = 0  # by this rank, since it was made

    @property
    def alone(self) -> bool:
        return self.group is None

    def sum(self, x: Tensor) -> Tensor:
        """Σ of x over the ranks, for a result that all ranks use alike."""
        return x if self.alone else _Sum.apply(x, self)

    def shared(self, x: Tensor) -> Tensor:
        """x, which is the same on all ranks, where each rank uses it for its own users."""
        return x if self.alone else _Shared.apply(x, self)

    def add_up(self, x: Tensor) -> Tensor:
        """Σ of x over the ranks, written into x where its memory is contiguous; without a gradient."""
        if self.alone:
            return x
        x = x.contiguous()
        self.bytes_summed += x.numel() * x.element_size()
        with self._noticing_loss():
            self._wait_for_sum(x)
        return x

    def total(self, value: float) -> float:
        """Σ of a number over the ranks."""
        if self.alone:
            return value
        return float(self.add_up(torch.tensor([value], dtype=torch.float64, device=self.device)))

    def mean(self, values: Any, n: int) -> Any:
        """The own part of the mean of the n values of all ranks: the parts of the ranks add up to it."""
        return values.mean() if self.alone else values.sum() / n

    def agree(self, value: bool) -> bool:
        """What the first rank says."""
        return bool(self.total(float(value and self.rank == 0)))

    def of_first(self, x: Tensor) -> Tensor:
        """The first rank's x, written into x where its memory is contiguous; without a gradient."""
        return x if self.alone else self.add_up(x if self.rank == 0 else x.zero_())

    def rows(self, n_own: int) -> Rows:
        """The division of a table of which this rank holds ``n_own`` rows."""
        counts = torch.zeros(self.n, dtype=torch.float64, device=self.device)
        counts[self.rank] = n_own
        return Rows(tuple(int(count) for count in self.add_up(counts)), self.rank)

    def collect(self, own: Tensor, rows: Rows) -> Tensor:
        """On the first rank the whole table; on the others their own rows."""
        if self.alone:
            return own
        own = own.detach().contiguous()
        with self._noticing_loss():
            if self.rank > 0:
                if len(own):
                    self._wait(self.group.send([own], 0, 0))
                return own
            whole = own.new_empty(rows.total, *own.shape[1:])
            whole[rows.of(0)] = own
            for rank in range(1, self.n):
                if rows.counts[rank]:
                    self._wait(self.group.recv([whole[rows.of(rank)]], rank, 0))
            return whole

    def hand_out(self, make: Callable[[int], Any] | None = None) -> Any:
        """On every rank what ``make`` gives for it on the first one; the others give no ``make``."""
        if self.alone or self.rank == 0:
            assert make is not None  # the first rank has something to give
            for rank in range(1, self.n):
                self._send(make(rank), rank)
            return make(0)
        return self._receive(0)

    def gather(self, value: Any) -> list[Any]:
        """On the first rank the values of all ranks, in their order; nothing on the others."""
        if self.rank > 0:
            self._send(value, 0)
            return []
        return [value, *(self._receive(rank) for rank in range(1, self.n))]

    def _send(self, value: Any, rank: int) -> None:
        written = io.BytesIO()
        torch.save(value, written)
        content = torch.from_numpy(np.frombuffer(written.getbuffer(), np.uint8)).to(self.device)
        with self._noticing_loss():
            self._wait(self.group.send([torch.tensor([len(content)], device=self.device)], rank, 0))
            self._wait(self.group.send([content], rank, 0))

    def _receive(self, rank: int) -> Any:
        size = torch.empty(1, dtype=torch.int64, device=self.device)
        with self._noticing_loss():
            self._wait(self.group.recv([size], rank, 0))
            content = torch.empty(int(size), dtype=torch.uint8, device=self.device)
            self._wait(self.group.recv([content], rank, 0))
        # Another process of this fit has written it, so it may be any object.
        return torch.load(io.BytesIO(content.cpu().numpy().data), map_location="cpu", weights_only=False)

    def _wait_for_sum(self, x: Tensor) -> None:
        """Sums have a limit of their own: one that only ``wait`` gives up goes on in a thread of gloo, and this process
        does not end before that does."""
        if self.patience is None or self.device.type != "cpu":
            self._wait(self.group.allreduce([x]))
            return
        options = torch.distributed.AllreduceOptions()
        options.timeout = timedelta(seconds=self.patience)
        self.group.allreduce([x], options).wait()

    def _wait(self, work: Any) -> None:
        if self.patience is None:
            work.wait()
        else:
            work.wait(timedelta(seconds=self.patience))

    @contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0].rpartition("] ")[2].partition(". ")[0]  # the rest guesses
            raise RankLost(f"{self._loss(reason)}; what was fitted until the last saved state is kept.") from error

    def _loss(self, reason: str) -> str:
        if self.patience is not None and re.search("timed? ?out", reason, re.IGNORECASE):
            return (
                f"A process that fits together with this one has not answered for {self.patience:g} s: it is stopped, "
                "cut off, or its machine is too busy (COPL_RANK_SECONDS waits longer)"
            )
        return f"A process that fits together with this one has ended, perhaps for lack of memory ({reason})"


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shard: Shard) -> Tensor:
        return shard.add_up(x.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shard: Shard) -> Tensor:
        ctx.shard = shard
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.shard.add_up(grad.clone()), None


def _skip(n: int, generator: torch.Generator) -> None:
    """Advance a CPU's generator by n uniform numbers."""
    scratch = torch.empty(min(n, _SCRATCH))
    for start in range(0, n, _SCRATCH):
        scratch[: n - start].uniform_(generator=generator)


ALONE = Shard()
