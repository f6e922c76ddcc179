"""A fit in a terminal over several processes, as torchrun starts them (``distributed``).

The first process carries out the run and publishes.  The others wait until it has a reward model to train, train that
with it, and end when it is done.  If one of them dies, torchrun ends all of them; the run is interrupted, and the next
fit in this home goes on with it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from copl_core.config import Settings

PATIENCE = timedelta(days=7)  # of the others, while the first one reads texts and fits graphs


def size() -> int:
    """How many processes fit together."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """The number of this process; 0 is the one that publishes."""
    return int(os.environ.get("RANK") or 0)


def join(settings: Settings) -> None:
    """Meet the other processes."""
    from accelerate import PartialState

    PartialState(cpu=settings.device == "cpu", timeout=PATIENCE)


def share(work: dict[str, Any] | None, folder: str | None = None) -> None:
    """Hand the arguments of ``fit_reward`` to the other processes, if there are any; None: there is no more to do.

    Args:
        folder: name of the folder of the run's training states.
    """
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list([work, folder], src=0)


def follow(settings: Settings) -> None:
    """Train the reward models of the first process with it, until it has no more to do."""
    import torch.distributed

    from copl_core.install.weights import resolver
    from copl_core.reward.hidden import states_folder
    from copl_core.training.checkpoint import Checkpoint
    from copl_core.training.reward_fit import fit_reward

    while True:
        found: list[Any] = [None, None]
        torch.distributed.broadcast_object_list(found, src=0)
        work, folder = found
        if work is None:
            return
        fit_reward(
            **work,
            weights=resolver(settings.weights),
            device=settings.device,
            checkpoint=Checkpoint(settings.cache / "training" / folder) if folder else None,
            disk=states_folder(settings),
        )


def part() -> None:
    """The first process has no more to do: the others end."""
    import torch.distributed

    share(None)
    torch.distributed.destroy_process_group()
