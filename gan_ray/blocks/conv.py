"""Convolutions that change the resolution, at less than half the cost of doing it in two steps.

A 3x3 convolution beside a resampling by 2 is one 4x4 convolution of stride 2 whose kernel is the
3x3 kernel blurred by a 2x2 box (the "fused scale" of the code to Karras et al. 2018,
arXiv:1710.10196). Same parameters and same function as the two steps, zero padding included; 4 (up)
and 16 (down) multiplications per output and channel instead of 9 and 36, and no large map between.
Very small maps take the two steps.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, interpolate, pad

_SMALL = 8
"""Below this side (of the smaller map) the kernel costs more to build than it saves."""


class UpConv2d(nn.Conv2d):
    """3x3 convolution, padding 1, of the image enlarged 2 times by its nearest neighbours."""

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool = True) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels_in, H, W] -> [B, channels_out, 2H, 2W]."""
        if images.shape[-1] < _SMALL:
            return super().forward(interpolate(images, scale_factor=2))
        kernel = _blurred(self.weight.flip(2, 3)).transpose(0, 1)
        return conv_transpose2d(images, kernel, self.bias, stride=2, padding=1)


class DownConv2d(nn.Conv2d):
    """Mean over 2x2 pixels of a 3x3 convolution with padding 1."""

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool = True) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels_in, 2H, 2W] -> [B, channels_out, H, W]."""
        if images.shape[-1] < 2 * _SMALL:
            return avg_pool2d(super().forward(images), 2)
        return conv2d(images, _blurred(self.weight) / 4, self.bias, stride=2, padding=1)


def _blurred(kernel: Tensor) -> Tensor:
    """Sum of the kernel [..., 3, 3] at its four positions in a field [..., 4, 4]."""
    field = pad(kernel, (1, 1, 1, 1))
    field = field[..., 1:, :] + field[..., :-1, :]
    return field[..., 1:] + field[..., :-1]
