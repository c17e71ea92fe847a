"""The generator of SAGAN: it knows where it is, and gates what it takes over from its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from gan_ray.blocks.encodings import PositionalEncoding
from gan_ray.blocks.gates import AttentionGate
from gan_ray.blocks.norm import norm_layer
from gan_ray.blocks.resnet import ResidualBlock, conv_norm
from gan_ray.blocks.windows import window_partition, window_reverse

ConditionNorm = Literal["none", "instance"]


class PositionConditioning(nn.Module):
    """Adds the planes of a positional encoding to a map and mixes: 1x1 convolution, norm, ReLU.

    With `norm` "instance", as in SAGAN's code, planes that are constant over a window have no
    effect at all: each becomes a constant per channel, which the norm takes away.
    """

    def __init__(
        self, channels: int, position: PositionalEncoding, *, norm: ConditionNorm, grid: int
    ) -> None:
        """Build it for windows that are `grid` x `grid` to an image."""
        super().__init__()
        self.position, self.grid = position, grid
        self.mix = nn.Sequential(
            nn.Conv2d(channels + position.channels, channels, 1),
            norm_layer("plain_instance" if norm == "instance" else "none", channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Map [B * grid**2, channels, h, w] to the same shape."""
        planes = window_partition(self.position.feature_map(windows)[None], self.grid)
        planes = planes.repeat(windows.shape[0] // planes.shape[0], 1, 1, 1)
        mixed: Tensor = self.mix(torch.cat((windows, planes), 1))
        return mixed


class FuseBlock(nn.Module):
    """t + IN(3x3 convolution of t), t = ReLU(IN(3x3 convolution)): joins concatenated maps."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.join = nn.Sequential(*conv_norm(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)))
        self.refine = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), norm_layer("instance", outputs)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H, W]."""
        joined = self.join(maps)
        outputs: Tensor = joined + self.refine(joined)
        return outputs


class GatedUp(nn.Module):
    """A decoder's level: [x, gated skip], fused and doubled; [B, 2c, H, W] to [B, c, 2H, 2W]."""

    def __init__(self, width: int, *, gate_norm: bool) -> None:
        """Build it for inputs and skips of `width` channels; half of them come out."""
        super().__init__()
        self.gate = AttentionGate(width, norm=gate_norm)
        self.fuse = FuseBlock(2 * width, width)
        self.enlarge = _double(width)

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """Go one level up."""
        fused = self.fuse(torch.cat((maps, self.gate(maps, skip)), 1))
        doubled: Tensor = self.enlarge(fused)
        return doubled


class SpatialAttentionGenerator(nn.Module):
    """Image [B, C, S, S] to raw map [B, C, S, S], not activated.

    Zhang et al. 2024 (SAGAN): the image is cut into `grid` x `grid` patches that do not see each
    other; three halvings, each followed by `PositionConditioning`; residual blocks at an eighth of
    the patch; three gated doublings, whose outputs are all brought to full size and fused. S must
    be a multiple of 8 * grid, from 16 * grid on: instance norm has nothing to say of one pixel.

    As published, the first gate's skip is the bottleneck itself.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        width: int = 64,
        blocks: int = 6,
        grid: int = 2,
        position: Callable[[int], PositionalEncoding],
        condition_norm: ConditionNorm = "none",
        gate_norm: bool = True,
        attention: nn.Module | None = None,
        attention_after: int = 0,
    ) -> None:
        """Build the layers in torch's default initialisation.

        `position` makes the encoding for an image of a side; `attention` comes after
        `attention_after` residual blocks and sees windows of 8 * `width` channels.
        """
        super().__init__()
        self.grid = grid

        def condition(level: int) -> PositionConditioning:
            planes = position(size >> level)
            return PositionConditioning(width << level, planes, norm=condition_norm, grid=grid)

        def down(level: int) -> nn.Sequential:
            inputs = width << (level - 1)
            half = conv_norm(nn.Conv2d(inputs, 2 * inputs, 4, 2, 1, bias=False))
            return nn.Sequential(*half, condition(level))

        self.stem = nn.Sequential(*conv_norm(nn.Conv2d(channels, width, 7, 1, 3, bias=False)))
        self.down1, self.down2, self.down3 = down(1), down(2), down(3)
        trunk: list[nn.Module] = [ResidualBlock(8 * width) for _ in range(blocks)]
        if attention is not None:
            trunk.insert(attention_after, attention)
        self.trunk = nn.Sequential(*trunk)
        self.up1 = GatedUp(8 * width, gate_norm=gate_norm)
        self.up2 = GatedUp(4 * width, gate_norm=gate_norm)
        self.up3 = GatedUp(2 * width, gate_norm=gate_norm)
        self.enlarge1 = nn.Sequential(_double(4 * width), _double(2 * width))
        self.enlarge2 = _double(2 * width)
        self.fuse = FuseBlock(3 * width, width)
        self.head = nn.Conv2d(width, channels, 7, 1, 3, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Translate."""
        skip1 = self.down1(self.stem(window_partition(images, self.grid)))
        skip2 = self.down2(skip1)
        bottleneck = self.trunk(self.down3(skip2))
        quarter = self.up1(bottleneck, bottleneck)
        half = self.up2(quarter, skip2)
        whole = self.up3(half, skip1)
        levels = (self.enlarge1(quarter), self.enlarge2(half), whole)
        raw: Tensor = self.head(self.fuse(torch.cat(levels, 1)))
        return window_reverse(raw, self.grid)


def _double(width: int) -> nn.Sequential:
    """Double the side and halve the channels."""
    layer = nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False)
    return nn.Sequential(*conv_norm(layer))
