"""A critic that judges an image as a whole and at each of its pixels (Schönfeld et al. 2020).

arXiv:2002.12655, in the form of f-UNetGAN (Nafti, Besbes et al. 2024); an encoder of the same
blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, max_pool2d, relu

from gan_ray.blocks.conv import DownConv2d
from gan_ray.blocks.norm import Norm, norm_layer

Pool = Literal["max", "mean"]
Attention = Callable[[int], nn.Module]
"""Makes the gates of a map of so many channels."""


class UNetBlock(nn.Module):
    """norm - 3x3 - norm - leaky ReLU 0.2 - 3x3 - pool - attention, beside 1x1 - pool.

    Both ways start behind the first norm, which with `preact` a ReLU follows on the first way.
    `pool` halves, or there is none. Without `residual` the first way is all there is; the 1x1
    convolution is left out where nothing changes the shape. No activation after the sum.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        norm: Norm,
        preact: bool = False,
        pool: Pool | None = None,
        residual: bool = True,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        self.preact, self.pool, self.residual = preact, pool, residual
        self.norm_in = norm_layer(norm, channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm_out = norm_layer(norm, channels_out)
        self.conv_out = (
            DownConv2d(channels_out, channels_out)
            if pool == "mean"
            else nn.Conv2d(channels_out, channels_out, 3, padding=1)
        )
        self.attention = attention(channels_out) if attention else nn.Identity()
        self.shortcut = (
            nn.Conv2d(channels_in, channels_out, 1)
            if residual and (pool or channels_in != channels_out)
            else nn.Identity()
        )

    def forward(self, maps: Tensor) -> Tensor:
        """[B, channels_in, H, W] -> [B, channels_out, H, W], with `pool` half as high and wide."""
        maps = self.norm_in(maps)
        branch: Tensor = self.conv_in(relu(maps) if self.preact else maps)
        branch = self.conv_out(leaky_relu(self.norm_out(branch), 0.2))
        if self.pool == "max":
            branch = max_pool2d(branch, 2)
        branch = self.attention(branch)
        if not self.residual:
            return branch
        if self.pool == "mean":  # before its 1x1 convolution, the same at a quarter of the cost
            maps = avg_pool2d(maps, 2)
        shortcut: Tensor = self.shortcut(maps)
        return branch + (max_pool2d(shortcut, 2) if self.pool == "max" else shortcut)


class UNetOutput(NamedTuple):
    """What a U-Net critic says of images [B, C, S, S]; higher is more real."""

    whole: Tensor
    """[B]: of each image."""
    pixels: Tensor
    """[B, 1, S, S]: of each pixel."""
    global_features: Tensor
    """[B, c]: means over the places of the smallest map, that `whole` is made of."""
    pixel_features: Tensor
    """[B, k, S, S]: the last map, that `pixels` is made of."""


class UNetCritic(nn.Module):
    """Images [B, C, S, S] to a judgement of each image and one of each pixel.

    Down: a block at full size, then blocks that halve, with `attention`; the mean over places of
    the last, after a leaky ReLU, gives the first judgement. Up: blocks at each larger size, of the
    enlarged map beside the map of that size on the way down; a 1x1 convolution gives the second.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        *,
        norm: Norm = "none",
        pool: Pool = "max",
        residual: bool = True,
        attention: Attention | None = None,
        pooling: Literal["mean", "sum"] = "mean",
    ) -> None:
        """Build it in torch's default initialisation; `widths` are the channels of each size.

        `pooling` is that of the global head; features are means in any case.
        """
        super().__init__()
        self.pooling = pooling
        # Layer norm of one raw channel is instance norm, which would hide brightness and contrast.
        raw: Norm = "none" if norm == "layer" else norm
        self.stem = UNetBlock(channels, widths[0], norm=raw, residual=residual, attention=attention)
        self.down = nn.ModuleList(
            UNetBlock(
                *pair, norm=norm, preact=True, pool=pool, residual=residual, attention=attention
            )
            for pair in pairwise(widths)
        )
        self.up = nn.ModuleList(
            UNetBlock(below + wide, wide, norm=norm, residual=residual)
            for below, wide in pairwise(widths[::-1])
        )
        self.global_head = nn.Linear(widths[-1], 1)
        self.pixel_head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, images: Tensor) -> UNetOutput:
        """Judge the images and their pixels."""
        way = [self.stem(images)]
        for block in self.down:
            way.append(block(way[-1]))
        maps = way.pop()
        features = leaky_relu(maps, 0.2).mean((2, 3))
        pooled = features * maps[0, 0].numel() if self.pooling == "sum" else features
        for block in self.up:
            maps = block(torch.cat([interpolate(maps, scale_factor=2), way.pop()], 1))
        return UNetOutput(self.global_head(pooled).flatten(), self.pixel_head(maps), features, maps)


class UNetEncoder(nn.Module):
    """Images [B, C, S, S] to `outputs` numbers each: a convolution, and blocks down to the root."""

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        root: int,
        outputs: int,
        *,
        norm: Norm,
        attention: Attention | None = None,
    ) -> None:
        """Build it in torch's default initialisation; `root` is the side of the smallest map."""
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.Sequential(
            *(
                UNetBlock(*pair, norm=norm, preact=True, pool="mean", attention=attention)
                for pair in pairwise(widths)
            )
        )
        self.head = nn.Linear(widths[-1] * root**2, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Give the numbers [B, outputs] of each image, not bounded."""
        numbers: Tensor = self.head(self.blocks(self.stem(images)).flatten(1))
        return numbers
