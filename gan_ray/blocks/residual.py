"""Residual blocks with norm and activation before each convolution, for generators and critics.

Gulrajani et al. 2017, arXiv:1704.00028, appendix C; no activation after the sum.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from gan_ray.blocks.conv import DownConv2d, UpConv2d
from gan_ray.blocks.norm import Norm, norm_layer


class ResBlockUp(nn.Module):
    """Enlarges 2 times: norm - ReLU - up - 3x3 - norm - ReLU - 3x3, beside up - 1x1.

    Up is nearest-neighbour. The shortcut's 1x1 convolution runs before it, which is the same
    function (a nearest-neighbour copy of a pixel is a copy of its 1x1 convolution) at a quarter of
    the cost. The first convolution has a bias only with `bias`.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, kind: Norm = "batch", bias: bool = False
    ) -> None:
        super().__init__()
        self.norm_in = norm_layer(kind, channels_in)
        self.conv_in = UpConv2d(channels_in, channels_out, bias=bias)
        self.norm_out = norm_layer(kind, channels_out)
        self.conv_out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, channels_in, H, W] -> [B, channels_out, 2H, 2W]."""
        branch: Tensor = self.conv_in(relu(self.norm_in(maps)))
        branch = self.conv_out(relu(self.norm_out(branch)))
        shortcut: Tensor = interpolate(self.shortcut(maps), scale_factor=2)
        return branch + shortcut


class ResBlockDown(nn.Module):
    """Halves: norm - ReLU - 3x3 - norm - ReLU - 3x3 - mean pool, beside mean pool - 1x1.

    The first convolution keeps the number of channels and has no bias.
    """

    def __init__(self, channels_in: int, channels_out: int, *, kind: Norm) -> None:
        super().__init__()
        self.norm_in = norm_layer(kind, channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_in, 3, padding=1, bias=False)
        self.norm_out = norm_layer(kind, channels_in)
        self.conv_out = DownConv2d(channels_in, channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, channels_in, 2H, 2W] -> [B, channels_out, H, W]."""
        branch: Tensor = self.conv_in(relu(self.norm_in(maps)))
        branch = self.conv_out(relu(self.norm_out(branch)))
        shortcut: Tensor = self.shortcut(avg_pool2d(maps, 2))
        return branch + shortcut
