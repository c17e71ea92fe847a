"""DCGAN pyramids: strided convolutions between an image and a 1x1 code.

Radford et al. 2016, arXiv:1511.06434. `widths` are the channels of the stages in the order of the
encoder, the finest first; the decoder mirrors them. Images are [B, channels, S, S], where S is
`root * 2**len(widths)`: a root of 4 pixels, or 7 for images of 28.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from gan_ray.blocks.norm import Norm, norm_layer
from gan_ray.blocks.plan import ResolutionPlan
from gan_ray.errors import ConfigError

Kernel = Literal[4, 5]


def pyramid_widths(image_size: int, width: int, max_width: int = 0) -> tuple[int, ...]:
    """Give the widths of the stages down to the root: `width`, doubled per stage to `max_width`.

    A `max_width` of 0 leaves them free. The root is that of the size's `ResolutionPlan`.

    Raises:
        ConfigError: the size does not halve to a root, or not twice.
    """
    if image_size < 16:
        raise ConfigError(
            f"images of {image_size} x {image_size} pixels are too small for this network, which "
            "halves them twice or more: 16 or more are allowed. Raise --data.image-size."
        )
    widths = (width << stage for stage in range(ResolutionPlan(image_size).stages))
    return tuple(min(wanted, max_width or wanted) for wanted in widths)


class ConvEncoder(nn.Module):
    """Image [B, C, S, S] to code [B, `outputs`], not activated.

    `features` gives [B, widths[-1], root, root] after the last leaky ReLU (slope 0.2); `head` is
    one valid convolution. The first stage is normalised only with `norm_first`; `extra_layers` are
    3x3 convolutions behind it.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        outputs: int,
        *,
        root: int = 4,
        kernel: Kernel = 4,
        norm: Norm = "batch",
        norm_first: bool = False,
        extra_layers: int = 0,
        bias: bool = False,
    ) -> None:
        """Build the stages in torch's default initialisation."""
        super().__init__()

        def act(width: int, kind: Norm = norm) -> list[nn.Module]:
            return [norm_layer(kind, width), nn.LeakyReLU(0.2, inplace=True)]

        def half(inputs: int, width: int) -> nn.Module:
            return nn.Conv2d(inputs, width, kernel, 2, (kernel - 1) // 2, bias=bias)

        first = widths[0]
        layers = [half(channels, first), *act(first, norm if norm_first else "none")]
        for _ in range(extra_layers):
            layers += [nn.Conv2d(first, first, 3, 1, 1, bias=bias), *act(first)]
        for inputs, width in pairwise(widths):
            layers += [half(inputs, width), *act(width)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], outputs, root, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """Encode."""
        code: Tensor = self.head(self.features(images))
        return code.flatten(1)


class ConvDecoder(nn.Module):
    """Code [B, `inputs`] to image [B, C, S, S] in [-1, 1]: the mirrored encoder, with ReLU."""

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, ...],
        channels: int,
        *,
        root: int = 4,
        kernel: Kernel = 4,
        norm: Norm = "batch",
        extra_layers: int = 0,
        bias: bool = False,
    ) -> None:
        """Build the stages in torch's default initialisation."""
        super().__init__()

        def act(width: int) -> list[nn.Module]:
            return [norm_layer(norm, width), nn.ReLU(inplace=True)]

        def double(inputs: int, width: int) -> nn.Module:
            padding, odd = (kernel - 1) // 2, kernel % 2
            return nn.ConvTranspose2d(inputs, width, kernel, 2, padding, odd, bias=bias)

        coarse = widths[::-1]
        layers = [nn.ConvTranspose2d(inputs, coarse[0], root, bias=bias), *act(coarse[0])]
        for wide, width in pairwise(coarse):
            layers += [double(wide, width), *act(width)]
        for _ in range(extra_layers):
            layers += [nn.Conv2d(coarse[-1], coarse[-1], 3, 1, 1, bias=bias), *act(coarse[-1])]
        self.layers = nn.Sequential(*layers, double(coarse[-1], channels), nn.Tanh())

    def forward(self, code: Tensor) -> Tensor:
        """Decode."""
        image: Tensor = self.layers(code[:, :, None, None])
        return image


class FeatureDiscriminator(nn.Module):
    """Image to its logit [B] and features of it: those [B, width, root, root] before the logit.

    With `back` 1 or more they are the maps that many stages earlier, each twice as large.
    """

    def __init__(self, encoder: ConvEncoder, *, back: int = 0) -> None:
        """Judge by an encoder with one output.

        Raises:
            ConfigError: it has no stage that far back.
        """
        super().__init__()
        self.encoder = encoder
        self._tap = len(encoder.features) - 1 - 3 * back  # a stage is convolution, norm, activation
        if self._tap < 2:
            raise ConfigError(
                f"the discriminator of images this small has no features {back} stages before its "
                "last. Take those of the last one, or raise --data.image-size."
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Judge; higher logits are more real."""
        maps = images
        for place, layer in enumerate(self.encoder.features):
            maps = layer(maps)
            if place == self._tap:
                features = maps
        return self.encoder.head(maps).flatten(), features
