"""One training in any number of processes: the same call on a processor, on one or several graphics cards, or on
several machines, as ``accelerate launch`` starts them (``torchrun`` where several processes share a processor).

Each process draws its own batches, and gradients are averaged before every step.  They are averaged here and not by
DistributedDataParallel: a training step runs parts of the model, each (text, route) once, and not its ``forward``,
where DDP has its hooks.  The trained tensors have a few megabytes, so reducing them after the backward pass costs
little.  With one process every method is the identity, bit for bit.

All processes do the same work between two of these sums, so that one which has not come for ``patience`` seconds is
stopped, cut off or hopelessly late, and the training ends, to be resumed (``preference.shard``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.distributed
from accelerate import Accelerator, PartialState
from torch import Tensor

from copl_core.preference.shard import ALONE, Shard
from copl_core.records import CoplError


class Processes:
    """The processes of this training.

    Args:
        device: of a single process; several processes get their devices, of the same kind, from accelerate.
        patience: seconds that this process waits for another one; None: as long as their group does.

    What it sums or takes from the first process raises ``RankLost`` where another process has ended or does not answer.
    """

    def __init__(self, device: torch.device | str = "cpu", patience: float | None = None) -> None:
        wanted = torch.device(device)
        self._accelerator = Accelerator(cpu=wanted.type == "cpu", mixed_precision="no")  # the model sets its precision
        self.n, self.index = self._accelerator.num_processes, self._accelerator.process_index
        self.device = wanted if self.n == 1 else self._accelerator.device
        self._shard = ALONE if self.n == 1 else torchrun_shard(patience)
        if self.device.type != wanted.type:
            raise CoplError(
                f"the device of this training is {wanted.type}, but accelerate gives {self.device.type}: "
                f"choose {self.device.type}, or launch the training on other devices"
            )

    @property
    def main(self) -> bool:
        return self._accelerator.is_main_process

    def optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        return self._accelerator.prepare_optimizer(optimizer, device_placement=False)

    def backward(self, loss: Tensor, parameters: Iterable[Tensor]) -> None:
        """Compute the gradients of the mean loss of all processes."""
        self._accelerator.backward(loss)
        if self.n > 1:
            for parameter in parameters:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self._shard.add_up(own) / self.n

    def generator(self, seed: int) -> np.random.Generator:
        """Random numbers of this process; the first process draws those of a single process."""
        return np.random.default_rng([seed, self.index] if self.index else seed)

    def agree(self, value: float) -> float:
        """The value of the first process: clocks and sums differ, but all processes must stop at the same step."""
        return value if self.n == 1 else self._shard.total(value if self.main else 0.0)

    def wait(self) -> None:
        """Wait for the other processes."""
        self._shard.total(0.0)

    @torch.no_grad()
    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of the first process."""
        if self.n > 1:
            for tensor in tensors:
                tensor.copy_(self._shard.of_first(tensor.detach().clone()))

    def gather(self, value: Any) -> list[Any]:
        """In the first process the values of all, in their order; nothing in the others."""
        return self._shard.gather(value)

    def hand_out(self, make: Callable[[int], Any]) -> Any:
        """In every process what ``make`` gives for it in the first one."""
        return self._shard.hand_out(make if self.main else None)

    def share(self, order: np.ndarray) -> np.ndarray:
        """The rows of ``order`` (N,) that belong to this process."""
        return np.array_split(order, self.n)[self.index]

    def joined(self, values: np.ndarray) -> np.ndarray:
        """The values (N,) of all processes, each of which filled its share and left the rest at zero."""
        if self.n == 1:
            return values
        return self._shard.add_up(torch.from_numpy(values).to(self.device, copy=True)).cpu().numpy()


def torchrun_shard(patience: float | None = None) -> Shard:
    """This process among those of torchrun, which have met (``ranks.join``); ``patience`` as in ``Shard``."""
    return Shard(torch.distributed.group.WORLD, PartialState().device, patience)
