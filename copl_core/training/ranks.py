"""A fit in a terminal over several processes, as torchrun starts them (``graph_ranks``, ``distributed``).

The first process carries out the run and publishes.  The others wait until it has a graph or a reward model to fit, fit
that with it, and end when it is done.  If one of them dies, or does not hear the first one any more (``heartbeat``),
torchrun ends all of them; the run is interrupted, and the next fit in this home goes on with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from copl_core.config import Settings
from copl_core.records import CoplError, RankLost
from copl_core.training.heartbeat import START_SECONDS, Heartbeat, Watch

if TYPE_CHECKING:
    from torch.distributed import Store

    from copl_core.preference.shard import Shard

PATIENCE = timedelta(days=7)  # of a message to the others: while the first one reads texts, its heartbeat is the limit

Kind = Literal["graph", "reward"]


def size() -> int:
    """How many processes fit together."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """The number of this process; 0 is the one that publishes."""
    return int(os.environ.get("RANK") or 0)


@contextmanager
def together(settings: Settings) -> Iterator[None]:
    """Meet the other processes, if there are any, and stay with them until the first one ends."""
    if size() == 1:
        yield
        return
    watch, store = _meet(settings)
    if rank() > 0:
        watch.listen(store)
        try:
            yield
        finally:
            watch.end()
        return
    watch.end()
    heartbeat = Heartbeat(store, settings.rank_seconds)
    try:
        yield
        _part(settings)
    finally:
        heartbeat.end()


def _meet(settings: Settings) -> tuple[Watch, Store]:
    """The watch over the other processes, and a connection to their store beside that of the process group."""
    watch = Watch(max(settings.rank_seconds, START_SECONDS))
    from accelerate import PartialState
    from torch.distributed import rendezvous

    PartialState(cpu=settings.device == "cpu", timeout=PATIENCE)
    store, *_ = next(rendezvous("env://", timeout=PATIENCE))
    return watch, store


def share(kind: Kind | None, patience: float, work: dict[str, Any] | None = None) -> None:
    """Say to the other processes, if there are any, what they fit next; None: there is no more to do.

    Args:
        patience: seconds that this process waits for one of them.
        work: the arguments of ``fit_reward``; each process gets its part of a graph afterwards.

    Raises:
        RankLost: if another process has ended or does not answer.
    """
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from copl_core.training.distributed import torchrun_shard

        torchrun_shard(patience).hand_out(lambda rank: (kind, work))


def follow(settings: Settings) -> None:
    """Fit graphs and reward models with the first process, until it has no more to do.

    Raises:
        RankLost: if another process has ended.
    """
    from copl_core.install.weights import resolver
    from copl_core.reward.hidden import states_folder
    from copl_core.training.distributed import torchrun_shard
    from copl_core.training.reward_fit import fit_reward

    while True:
        kind, work = torchrun_shard().hand_out()
        if kind is None:
            return
        if kind == "graph":
            follow_graph(torchrun_shard())
            continue
        fit_reward(
            **work,
            weights=resolver(settings.weights),
            device=settings.device,
            disk=states_folder(settings),
        )


def follow_graph(shard: Shard) -> None:
    """Fit this process's part of the graph that the first one fits.

    Raises:
        RankLost: if another process has ended.
    """
    from copl_core.training.graph_fit import fit_part

    own = shard.hand_out()
    try:
        fit_part(own, shard)
    except RankLost:
        raise
    except CoplError:
        pass  # the first process raises the same, and may go on with another graph


def _part(settings: Settings) -> None:
    """The first process has no more to do: the others end."""
    import torch.distributed

    with suppress(RankLost):  # they have ended, and nothing is missing
        share(None, settings.rank_seconds)
    torch.distributed.destroy_process_group()
