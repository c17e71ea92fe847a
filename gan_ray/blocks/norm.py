"""Normalisation layers by name."""

from __future__ import annotations

from math import gcd
from typing import Literal

from torch import nn

Norm = Literal["none", "batch", "layer", "instance", "plain_instance", "group"]


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """Give the layer that normalises a map [B, channels, H, W], with a scale and a shift each.

    none: identity. batch: over batch and pixels; not for critics under a gradient penalty, whose
    answer to an image must not depend on other images. layer: over channels and pixels of an image
    (one scale and shift per channel). instance: over the pixels of one channel of an image, without
    running statistics; on raw pixels it hides brightness and contrast from what follows.
    plain_instance: the same without scale and shift.
    """
    match kind:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm2d(channels)
        case "layer":
            return nn.GroupNorm(1, channels)
        case "instance":
            return nn.InstanceNorm2d(channels, affine=True)
        case "plain_instance":
            return nn.InstanceNorm2d(channels)
        case "group":
            return nn.GroupNorm(gcd(channels, max(1, channels // 16)), channels)
