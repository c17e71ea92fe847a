"""The critic of the translation systems."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, unfold

from gan_ray.blocks.encodings import PositionalEncoding
from gan_ray.blocks.rectifier import Rectifier


class PatchDiscriminator(nn.Module):
    """Image [B, channels, S, S] to a map of critic values [B, 1, S / 2**layers, S / 2**layers].

    Convolutions of kernel 4 and stride 2 with leaky ReLU (slope 0.01), the width doubled per layer
    up to `max_width`; then one 3x3 convolution without bias. No normalisation, so that each image
    is judged alone, as a gradient penalty asks (Gulrajani et al. 2017, section 4).

    The public code calls it a PatchGAN; with six layers a value sees 318 pixels, more than any
    image used, so it judges the whole image.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 64,
        layers: int = 6,
        max_width: int = 2048,
        position: PositionalEncoding | None = None,
    ) -> None:
        """Build the layers in torch's default initialisation.

        With `position` the planes of a positional encoding of side S are judged with each image.
        """
        super().__init__()
        self.position = position
        planes = 0 if position is None else position.channels
        widths = [channels + planes, *(min(width << layer, max_width) for layer in range(layers))]
        stages: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            stages += [HalvingConv2d(inputs, outputs), Rectifier(0.01)]
        self.layers = nn.Sequential(*stages, nn.Conv2d(widths[-1], 1, 3, 1, 1, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        """Judge; higher is more real."""
        if self.position is not None:
            planes = self.position.feature_map(images)
            images = torch.cat((images, planes.expand(len(images), -1, -1, -1)), 1)
        values: Tensor = self.layers(images)
        return values


class HalvingConv2d(nn.Conv2d):
    """4x4 convolution of stride 2 and padding 1; [B, inputs, H, W] to [B, outputs, H/2, W/2].

    On maps of 8 pixels and less, where there are far more weights than pixels, it is the same sum
    as one matrix product: half the cost of a wide critic's step on a CPU.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        """Build it in torch's default initialisation."""
        super().__init__(inputs, outputs, 4, 2, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve; differentiable any number of times."""
        height, width = maps.shape[2:]
        if max(height, width) > 8:
            return super().forward(maps)
        patches = unfold(maps, 4, padding=1, stride=2).transpose(1, 2)
        pixels = linear(patches, self.weight.flatten(1), self.bias).transpose(1, 2)
        return pixels.reshape(*pixels.shape[:2], height // 2, width // 2)
