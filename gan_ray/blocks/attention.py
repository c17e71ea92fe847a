"""Attention gates over channels and over places (Woo et al. 2018, CBAM, arXiv:1807.06521)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class ChannelGate(nn.Module):
    """Multiplies each channel by sigmoid(m(mean) + m(max)), m one small network for both.

    m is linear - ReLU - linear through channels / `reduction` numbers, at least one.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        pooled = torch.stack([maps.mean((2, 3)), maps.amax((2, 3))])
        gate: Tensor = self.excite(relu(self.squeeze(pooled))).sum(0).sigmoid()
        return maps * gate[:, :, None, None]


class SpatialGate(nn.Module):
    """Multiplies each place by the sigmoid of a convolution over [max, mean] of its channels.

    With `norm` the convolution has batch norm in place of a bias, as published; it couples the
    images of a batch, so a critic goes without.
    """

    def __init__(self, *, kernel: int = 7, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=not norm)
        self.norm = nn.BatchNorm2d(1, momentum=0.01) if norm else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        seen = torch.cat([maps.amax(1, keepdim=True), maps.mean(1, keepdim=True)], 1)
        gate: Tensor = self.norm(self.conv(seen)).sigmoid()
        return maps * gate


class CBAM(nn.Sequential):
    """Channel gate, then spatial gate; `norm` as in `SpatialGate`."""

    def __init__(
        self, channels: int, *, reduction: int = 16, kernel: int = 7, norm: bool = False
    ) -> None:
        super().__init__(
            ChannelGate(channels, reduction=reduction), SpatialGate(kernel=kernel, norm=norm)
        )
