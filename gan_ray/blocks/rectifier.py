"""ReLU and leaky ReLU for critics with a penalty on their slope: cheaper to differentiate twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu


class Rectifier(nn.Module):
    """max(x, slope * x): leaky ReLU, or ReLU with slope 0; any shape.

    Values and gradients are PyTorch's, bit for bit, but its second derivative is absent, not zero.
    PyTorch answers a gradient penalty with tensors of zeros, which then travel back through every
    layer of the pass over the points: a quarter of the cost of a critic's step where no norm asks
    for that way back.
    """

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, maps: Tensor) -> Tensor:
        """Rectify each number by itself."""
        return rectify(maps, self.slope)


def rectify(maps: Tensor, slope: float = 0.0) -> Tensor:
    """Give max(x, slope * x) as `Rectifier` does."""
    if not torch.is_grad_enabled():
        return leaky_relu(maps, slope)
    rectified: Tensor = _Rectify.apply(maps, slope)  # type: ignore[no-untyped-call]
    return rectified


class _Rectify(torch.autograd.Function):
    """Keeps its result, whose signs say which side each number was on, and no tie to its input."""

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor, slope: float) -> Tensor:
        return leaky_relu(maps, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.slope = inputs[1]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        (gradient,), (rectified,) = gradients, ctx.saved_tensors
        if gradient is None:
            return None, None
        backward = torch.ops.aten.leaky_relu_backward
        return backward(gradient, rectified.detach(), ctx.slope, self_is_result=True), None
