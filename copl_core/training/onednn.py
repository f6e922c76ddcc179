"""Float32 matrix products of a frozen model by oneDNN.

torch multiplies float32 matrices on a processor by MKL, which on processors of AMD reaches less than half of what
oneDNN reaches, a library that torch has as well and uses for other number formats.  Both sum in float32: results differ
by rounding.
"""

from __future__ import annotations

import platform
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def use_onednn(model: nn.Module) -> None:
    """Let the linear layers of a model on the processor multiply by oneDNN where this torch has it.

    For a model that is never trained: the products have no gradient.
    """
    from torch import nn

    if not is_available():
        return
    linear: list[Any] = [module for module in model.modules() if type(module) is nn.Linear]
    for layer in linear:
        layer.forward = partial(_linear, layer)


@cache
def is_available() -> bool:
    """Whether this torch multiplies by oneDNN as we call it: the call is internal to torch and may change."""
    import torch

    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    layer = torch.nn.Linear(16, 8)
    x = torch.linspace(-1, 1, 48).reshape(3, 16)
    try:
        with torch.inference_mode():
            return torch.allclose(_linear(layer, x), layer(x), atol=1e-5)
    except (AttributeError, RuntimeError, TypeError):
        return False


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    import torch

    return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "none", [], "")
