"""A fit of the preference graph in parts: what each rank gets of it, and how the parts become one again.

Training states are those of a single process, whatever the number of ranks: the first rank puts the rows of all users
together before it stores a state, and divides them where a fit resumes.  So a fit goes on with any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from copl_core.preference.config import GraphConfig
from copl_core.preference.gcf import BY_USER, CoplGraph
from copl_core.preference.shard import Rows, Shard
from copl_core.records import Comparisons, TrainingData
from copl_core.training.graph_trainer import Member
from copl_core.training.losses import flip_rate
from copl_core.training.warm_start import STORED_BY_USER, WarmStart


@dataclass(frozen=True)
class GraphPart:
    """What one rank fits: the labels of its users, and all texts as the graph reads them."""

    data: TrainingData
    x: np.ndarray  # (R, p) float32
    config: GraphConfig
    seed: int
    held_out: list[np.ndarray]  # rows of the held-out labels of each member
    apart: list[np.ndarray]  # rows of the labels that a member neither learns from nor is measured on
    warm: WarmStart | None
    saved: bool  # whether the training state is stored
    account: np.ndarray | None = None  # (U,) factor on the labels of each account; None: 1 for all


class GraphRanks(Protocol):
    """Processes that fit a graph together, of which this one is the first."""

    n: int

    def take(self, data: TrainingData) -> bool:
        """Whether they fit a graph of these labels together."""

    def fitting(self, part_of: Callable[[int], GraphPart]) -> AbstractContextManager[tuple[GraphPart, Shard]]:
        """A context in which each fits the part that ``part_of`` gives for it: the part and the shard of this one."""


@dataclass(frozen=True)
class UserBlocks:
    """Users in contiguous blocks of about as many labels each.

    Blocks keep the order of user–response edges, and with it the random draws: a rank's edges are one block of all.
    """

    starts: np.ndarray  # (n + 1,) first user row of each rank, and the number of users
    user: np.ndarray  # (N,) user rows of all labels

    @classmethod
    def of(cls, data: TrainingData, n: int) -> UserBlocks:
        """Over n ranks, each of which gets at least one user of ``data``, which has n users or more."""
        weight = np.bincount(data.labels.user, minlength=data.n_users) + 1.0  # a user without labels has rows, too
        inner = np.searchsorted(np.cumsum(weight), np.arange(1, n) / n * weight.sum())
        least = np.arange(1, n)
        inner = np.maximum.accumulate(np.maximum(inner, least) - least) + least
        return cls(np.array([0, *np.minimum(inner, data.n_users - n + least), data.n_users]), data.labels.user)

    def part(self, whole: GraphPart, rank: int) -> GraphPart:
        """The part of a rank."""
        data, (first, end) = whole.data, self.starts[rank : rank + 2]
        mine = self._labels_of(rank)
        labels = data.labels.take(mine)
        labels = Comparisons.build(
            labels.user - first, *(getattr(labels, name) for name in Comparisons.__slots__ if name != "user")
        )
        user_ids = data.user_ids[first:end]
        own_row = np.cumsum(mine) - 1
        config = whole.config
        if config.priors.loss != "bt" and config.priors.flip is None:
            config = config.with_settings(flip=flip_rate(data.labels))  # of all labels
        return GraphPart(
            TrainingData(user_ids, data.response_ids, np.empty(0, np.int64), (), (), labels, data.watermark),
            whole.x,
            config,
            whole.seed,
            [own_row[held[mine[held]]] for held in whole.held_out],
            [own_row[apart[mine[apart]]] for apart in whole.apart],
            None if whole.warm is None else whole.warm.of_users(user_ids),
            whole.saved,
            None if whole.account is None else whole.account[first:end],
        )

    def in_order(self, values: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Values (H,) of held-out labels, rank after rank, → in the order of their rows ``held`` (H,)."""
        rank = np.searchsorted(self.starts, self.user[held], side="right")
        ordered = np.empty_like(values)
        ordered[np.argsort(rank, kind="stable")] = values
        return ordered

    def _labels_of(self, rank: int) -> np.ndarray:
        return (self.user >= self.starts[rank]) & (self.user < self.starts[rank + 1])


def whole_state(training: Member) -> dict[str, Any]:
    """On the first rank the training state of all users, as one process has it; on the others that of their own."""
    shard, rows = training.shard, training.graph_data.users
    return _by_user(training.state, training.network, lambda table: shard.collect(table, rows))


def divided_state(state: dict[str, Any] | None, training: Member) -> dict[str, Any] | None:
    """Each rank's part of a training state that the first rank has read; None where it has none."""
    if training.shard.alone:
        return state

    def part(rank: int) -> dict[str, Any] | None:
        if state is None:
            return None
        own = _by_user(state, training.network, lambda table: table[training.graph_data.users.of(rank)].clone())
        return own if rank == 0 else {name: value for name, value in own.items() if name not in ("logits", "outputs")}

    return training.shard.hand_out(part if training.shard.rank == 0 else None)


def whole_weights(network: CoplGraph, rows: Rows, shard: Shard) -> dict[str, Tensor]:
    """On the first rank the weights of a network with those of all users, by stored name."""
    return dict(_tables(network.state_dict(), lambda table: shard.collect(table, rows)))


def _by_user(state: dict[str, Any], network: CoplGraph, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """A training state with every table that has a row per user changed."""
    trained = [name for name, weight in network.named_parameters() if weight.requires_grad]
    moments = {
        index: {
            name: change(value) if trained[index] in BY_USER and value.dim() else value
            for name, value in sorted(moment.items())
        }
        for index, moment in sorted(state["optimiser"]["state"].items())
    }
    return state | {
        "network": dict(_tables(state["network"], change)),
        "kept": dict(_tables(state["kept"], change)),
        "optimiser": state["optimiser"] | {"state": moments},
    }


def _tables(weights: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, value in weights.items():
        yield name, change(value) if name in STORED_BY_USER else value
