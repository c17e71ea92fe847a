"""Weights in fewer bits: what a bundle stores of them, and what they are when it is loaded.

Only storage is reduced; the networks compute in float32 whatever the precision. So a bundle gives
the same scores on every machine, in every format, and is smaller, not faster.

    bfloat16   2 bytes, 8 bits of mantissa: a weight moves by at most 1/256 of itself
    int8       1 byte, and one float32 scale for each first index of a tensor (a filter or a row):
               a weight moves by at most 1/254 of the largest beside it

Tensors of one axis (biases, norms) are few and stay float32, as do integers what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16", "int8"]

_SCALE = ".scale"
_LEVELS = 127


def stored(weights: Mapping[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    """Give tensors as a bundle of this precision holds them, by name.

    A name with int8 numbers is followed by one with their scales, `NAME.scale` [first axis].
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if precision == "float32" or tensor.ndim < 2 or not tensor.is_floating_point():
            tensors[name] = tensor
        elif precision == "bfloat16":
            tensors[name] = tensor.bfloat16()
        else:
            scale = tensor.flatten(1).abs().amax(1) / _LEVELS
            tensors[name] = (tensor / _beside(scale, tensor)).nan_to_num().round().to(torch.int8)
            tensors[name + _SCALE] = scale
    return tensors


def loaded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights that `stored` made these of, float32 where they are floating point."""
    weights: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        scale = tensors.get(name + _SCALE)
        if scale is not None:
            weights[name] = tensor * _beside(scale, tensor)
        elif not name.endswith(_SCALE) or name.removesuffix(_SCALE) not in tensors:
            weights[name] = tensor.float() if tensor.is_floating_point() else tensor
    return weights


def _beside(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (tensor.ndim - 1))
