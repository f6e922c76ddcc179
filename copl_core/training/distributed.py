"""One training over however many processes: the same call on a processor, a graphics card, several of them, or several
machines, as ``accelerate launch`` starts them (``torchrun`` where several processes share a processor).

Each process draws batches of its own, and gradients are averaged before every step.  They are averaged here and not
by DistributedDataParallel: a training step runs parts of the model, each (text, route) once, and never its one
``forward``, which is where DDP has its hooks.  What is trained is a few megabytes, so that little is lost by reducing
it at the end.  With one process every method is the identity, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from copl_core.records import CoplError


class Processes:
    """The processes of this training.

    Args:
        device: where one process computes; of several, each has the device that accelerate gives it, of that kind.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        wanted = torch.device(device)
        self._accelerator = Accelerator(cpu=wanted.type == "cpu", mixed_precision="no")  # precision is the model's own
        self.n, self.index = self._accelerator.num_processes, self._accelerator.process_index
        self.device = wanted if self.n == 1 else self._accelerator.device
        if self.device.type != wanted.type:
            raise CoplError(
                f"training was asked for on {wanted.type}, but accelerate gives {self.device.type}: "
                f"name {self.device.type}, or launch it elsewhere"
            )

    @property
    def main(self) -> bool:
        return self._accelerator.is_main_process

    def optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        return self._accelerator.prepare_optimizer(optimizer, device_placement=False)

    def backward(self, loss: Tensor, parameters: Iterable[Tensor]) -> None:
        """Gradients of the mean of all processes' losses."""
        self._accelerator.backward(loss)
        if self.n > 1:
            for parameter in parameters:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self._accelerator.reduce(own, "mean")

    def generator(self, seed: int) -> np.random.Generator:
        """Random numbers of this process; those of the first are the ones a single process would draw."""
        return np.random.default_rng([seed, self.index] if self.index else seed)

    def agree(self, value: float) -> float:
        """What the first process says: clocks and sums differ, and all must stop at the same step."""
        if self.n == 1:
            return value
        return float(broadcast(torch.tensor(value, dtype=torch.float32, device=self.device)))

    @torch.no_grad()
    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.n > 1:
            for tensor in tensors:
                tensor.copy_(broadcast(tensor.detach().clone()))

    def share(self, order: np.ndarray) -> np.ndarray:
        """This process's stretch of rows (N,)."""
        return np.array_split(order, self.n)[self.index]

    def joined(self, values: np.ndarray) -> np.ndarray:
        """Values (N,) of which every process filled its share and left the rest at zero."""
        if self.n == 1:
            return values
        return self._accelerator.reduce(torch.from_numpy(values).to(self.device), "sum").cpu().numpy()
