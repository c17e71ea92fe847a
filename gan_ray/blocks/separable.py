"""Convolutions in two parts: over places within each channel, then over channels at each place."""

from __future__ import annotations

from typing import Literal

from torch import nn

Convolution = Literal["separable", "dense"]


class DepthwiseSeparableConv2d(nn.Sequential):
    """Depthwise k x k convolution, then a pointwise one, with nothing between; keeps the size.

    Sifre 2014; Howard et al. 2017, arXiv:1704.04861, without their norm and ReLU between the two.
    `kernel` is odd. [B, channels_in, H, W] -> [B, channels_out, H, W].
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels_in, channels_in, kernel, padding=kernel // 2, groups=channels_in
        )
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1)


def convolution(kind: Convolution, channels_in: int, channels_out: int, kernel: int) -> nn.Module:
    """Give a convolution that keeps the size: separable in two parts, or dense in one."""
    if kind == "separable":
        return DepthwiseSeparableConv2d(channels_in, channels_out, kernel)
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
