"""Residual blocks of BigGAN (Brock et al. 2019, arXiv:1809.11096, figure 15), kernels to choose.

Norm and ReLU before each convolution, no activation after the sum, but CBAM with `attention`. A
shortcut's 1x1 convolution runs at the smaller of its two sizes, which is the same function at a
quarter of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from gan_ray.blocks.attention import CBAM
from gan_ray.blocks.conditional import ConditionalBatchNorm2d
from gan_ray.blocks.norm import Norm, norm_layer
from gan_ray.blocks.separable import Convolution, convolution


class ConditionalBlockUp(nn.Module):
    """Enlarges 2 times: norm(c) - ReLU - up - k x k - norm(c) - ReLU - k x k, beside up - 1x1.

    Up is nearest-neighbour. Where the channels stay the same the shortcut has no convolution.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        condition: int,
        kind: Convolution,
        kernel: int,
        affine: bool = False,
        attention: bool = False,
    ) -> None:
        """`condition` and `affine` as in `ConditionalBatchNorm2d`."""
        super().__init__()
        self.norm_in = ConditionalBatchNorm2d(channels_in, condition, affine=affine)
        self.conv_in = convolution(kind, channels_in, channels_out, kernel)
        self.norm_out = ConditionalBatchNorm2d(channels_out, condition, affine=affine)
        self.conv_out = convolution(kind, channels_out, channels_out, kernel)
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)
        self.attention = CBAM(channels_out) if attention else nn.Identity()

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """[B, channels_in, H, W] -> [B, channels_out, 2H, 2W]."""
        branch: Tensor = interpolate(relu(self.norm_in(maps, condition)), scale_factor=2)
        branch = self.conv_out(relu(self.norm_out(self.conv_in(branch), condition)))
        total: Tensor = self.attention(branch + interpolate(self.shortcut(maps), scale_factor=2))
        return total


class BlockDown(nn.Module):
    """[norm - ReLU] - k x k - norm - ReLU - k x k [- mean pool], beside [mean pool -] 1x1.

    `raw` maps, an image's pixels, meet the first convolution as they are: a norm would hide their
    brightness and a ReLU their dark half. `halve` pools. Where neither the size nor the channels
    change, the shortcut has no convolution.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kind: Convolution,
        kernel: int,
        norm: Norm,
        raw: bool = False,
        halve: bool = True,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.enter = (
            nn.Identity() if raw else nn.Sequential(norm_layer(norm, channels_in), nn.ReLU())
        )
        self.conv_in = convolution(kind, channels_in, channels_out, kernel)
        self.norm_out = norm_layer(norm, channels_out)
        self.conv_out = convolution(kind, channels_out, channels_out, kernel)
        self.pool = nn.AvgPool2d(2) if halve else nn.Identity()
        same = channels_in == channels_out and not halve
        self.shortcut = nn.Identity() if same else convolution(kind, channels_in, channels_out, 1)
        self.attention = CBAM(channels_out) if attention else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """[B, channels_in, H, W] -> [B, channels_out, H, W], or half as wide and high."""
        branch: Tensor = self.conv_in(self.enter(maps))
        branch = self.pool(self.conv_out(relu(self.norm_out(branch))))
        total: Tensor = self.attention(branch + self.shortcut(self.pool(maps)))
        return total


class Descent(nn.Sequential):
    """Down blocks from each of `channels` to the next; the first `halvings` of them halve the side.

    With `attention` the last two have CBAM; `raw` concerns the first.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        halvings: int,
        kind: Convolution,
        kernel: int,
        norm: Norm,
        attention: bool = False,
        raw: bool = False,
    ) -> None:
        blocks = len(channels) - 1
        super().__init__(
            *(
                BlockDown(
                    i,
                    o,
                    kind=kind,
                    kernel=kernel,
                    norm=norm,
                    raw=raw and place == 0,
                    halve=place < halvings,
                    attention=attention and place >= blocks - 2,
                )
                for place, (i, o) in enumerate(pairwise(channels))
            )
        )
