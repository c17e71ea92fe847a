"""Discriminators of pairs: two images, two codes, or an image and its code.

Zenati et al. 2018 (ALAD), arXiv:1812.02288, networks of the authors' code. Each gives a logit [B],
higher for what it learnt to call real, and the flat features [B, n_f] that its `head`, one linear
layer, makes the logit of. Dropout draws from torch's global RNG, which the loop seeds for each
rank: its masks, unlike the draws of a `Batch`, depend on the number of ranks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gan_ray.blocks.pyramid import ConvEncoder

PairMode = Literal["channel", "height"]


class ImagePairDiscriminator(nn.Module):
    """Two images [B, channels, S, S] each; the features are their last common map.

    Convolutions 5x5 of stride 2, leaky ReLU 0.2, dropout, without normalisation. `mode` says how
    the images are joined: as channels, so that a filter sees one place in both, or one above the
    other (height), where only filters about the seam see both.
    """

    def __init__(
        self, channels: int, size: int, widths: tuple[int, ...], *, mode: PairMode, dropout: float
    ) -> None:
        """Build a stage for each of `widths`, in torch's default initialisation."""
        super().__init__()
        self.axis = 1 if mode == "channel" else 2
        inputs = 2 * channels if mode == "channel" else channels
        layers: list[nn.Module] = []
        for narrow, wide in pairwise((inputs, *widths)):
            layers += [nn.Conv2d(narrow, wide, 5, 2, 2), *_active(dropout)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        root = size >> len(widths)
        area = root * root if mode == "channel" else 2 * root * root
        self.head = nn.Linear(widths[-1] * area, 1)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Judge the pairs: logits and features."""
        features = self.features(torch.cat([first, second], self.axis))
        return self.head(features).flatten(), features


class CodePairDiscriminator(nn.Module):
    """Two codes [B, `code_size`] each, through linear layers of `widths` with dropout."""

    def __init__(self, code_size: int, widths: tuple[int, ...], *, dropout: float) -> None:
        """Build the layers in torch's default initialisation."""
        super().__init__()
        self.features = _dense((2 * code_size, *widths), dropout)
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Judge the pairs: logits and features."""
        features = self.features(torch.cat([first, second], 1))
        return self.head(features).flatten(), features


class JointDiscriminator(nn.Module):
    """An image [B, channels, S, S] and a code [B, `code_size`]; joint features of `outputs` each.

    The image passes a pyramid down to `root` x `root` with batch norm behind all stages but the
    first, the code two linear layers of half as many numbers as the joint layer, with dropout.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        code_size: int,
        outputs: int,
        *,
        root: int = 4,
        dropout: float,
    ) -> None:
        """Build both branches and the joint layer, in torch's default initialisation."""
        super().__init__()
        self.image = ConvEncoder(channels, widths, 1, bias=True).features
        self.code = _dense((code_size, outputs // 2, outputs // 2), dropout)
        self.joint = _dense((root**2 * widths[-1] + outputs // 2, outputs), dropout)
        self.head = nn.Linear(outputs, 1)

    def forward(self, images: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Judge the pairs: logits and features."""
        features = self.joint(torch.cat([self.image(images).flatten(1), self.code(codes)], 1))
        return self.head(features).flatten(), features


def _dense(sizes: tuple[int, ...], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), *_active(dropout)]
    return nn.Sequential(*layers)


def _active(dropout: float) -> list[nn.Module]:
    return [nn.LeakyReLU(0.2), nn.Dropout(dropout)]
