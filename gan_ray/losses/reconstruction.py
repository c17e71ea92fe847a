"""Distances between an image and what a network makes of it: means over all elements."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss


def absolute(target: Tensor, output: Tensor) -> Tensor:
    """Mean |target - output|."""
    return l1_loss(output, target)


def squared(target: Tensor, output: Tensor) -> Tensor:
    """Mean (target - output)^2."""
    return mse_loss(output, target)
