"""Layers that depend on the class of an image.

Networks initialise them first and then bound the spectrum of their linear layers and embeddings
(`gan_ray.blocks.spectral`), where published.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Conditioning = Literal["concat", "film", "projection_scalar"]


class ConditionalBatchNorm2d(nn.Module):
    """(1 + W c) * BN(maps) + V c: batch norm with a scale and a shift that follow a condition c.

    BigGAN's (Brock et al. 2019, arXiv:1809.11096, appendix B). W and V have no bias. BN has a scale
    and a shift of its own only with `affine`, where they are redundant.
    """

    def __init__(self, channels: int, condition: int, *, affine: bool = False) -> None:
        """`condition` is the length of c."""
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=affine)
        self.scale = nn.Linear(condition, channels, bias=False)
        self.shift = nn.Linear(condition, channels, bias=False)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """Normalise [B, channels, H, W] by conditions [B, condition]."""
        scale: Tensor = self.scale(condition)[:, :, None, None]
        shift: Tensor = self.shift(condition)[:, :, None, None]
        normal: Tensor = self.norm(maps)
        return (1 + scale) * normal + shift


class ProjectionHead(nn.Module):
    """w f + b + <e(y), f>: judges features f as those of an image of class y.

    Miyato & Koyama 2018, arXiv:1802.05637, eq. 3.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features)

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """[B, features] and integers [B] -> [B]."""
        judgement: Tensor = self.linear(features)[:, 0]
        kind: Tensor = self.embedding(classes)
        return judgement + (kind * features).sum(1)


class ConditionalHead(nn.Module):
    """Linear numbers of an image's last map h and its class y, with e(y) an embedding.

    concat: W h + U e(y) + b. film: W ((1 + S e(y)) h + T e(y)) + b, a scale and a shift for each
    channel (Perez et al. 2018, arXiv:1709.07871). projection_scalar: W h + b + <e(y), h>, one
    number for all outputs, so that the class moves them along one direction only.
    """

    def __init__(
        self,
        channels: int,
        side: int,
        outputs: int,
        *,
        classes: int,
        class_size: int,
        conditioning: Conditioning,
    ) -> None:
        """`class_size` is the length of e(y), which projection_scalar makes as long as h."""
        super().__init__()
        size = channels * side**2
        self.conditioning = conditioning
        scalar, concat = conditioning == "projection_scalar", conditioning == "concat"
        self.embedding = nn.Embedding(classes, size if scalar else class_size)
        if conditioning == "film":
            self.film = nn.Linear(class_size, 2 * channels)
        self.linear = nn.Linear(size + class_size * concat, outputs)

    def forward(self, maps: Tensor, classes: Tensor) -> Tensor:
        """[B, channels, side, side] and integers [B] -> [B, outputs]."""
        kind = self.embedding(classes)
        numbers: Tensor
        match self.conditioning:
            case "concat":
                numbers = self.linear(torch.cat([maps.flatten(1), kind], 1))
            case "film":
                scale, shift = self.film(kind)[:, :, None, None].chunk(2, 1)
                numbers = self.linear(((1 + scale) * maps + shift).flatten(1))
            case "projection_scalar":
                flat = maps.flatten(1)
                numbers = self.linear(flat) + (kind * flat).sum(1, keepdim=True)
        return numbers
