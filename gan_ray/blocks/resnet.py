"""The image-to-image generator of StarGAN, HealthyGAN and Brainomaly."""

from __future__ import annotations

from torch import Tensor, nn

from gan_ray.blocks.norm import norm_layer


class ResidualBlock(nn.Module):
    """x + f(x) at constant width; f is 3x3 convolution, norm, ReLU, 3x3 convolution, norm.

    He et al. 2016, without an activation after the sum.
    """

    def __init__(self, width: int) -> None:
        """Build f in torch's default initialisation."""
        super().__init__()
        self.layers = nn.Sequential(
            *conv_norm(nn.Conv2d(width, width, 3, 1, 1, bias=False)),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            norm_layer("instance", width),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, width, H, W] to the same shape."""
        outputs: Tensor = inputs + self.layers(inputs)
        return outputs


def conv_norm(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
    """Follow a convolution by instance normalisation and ReLU."""
    norm = norm_layer("instance", convolution.out_channels)
    return convolution, norm, nn.ReLU(inplace=True)


class ResnetGenerator(nn.Module):
    """Image [B, inputs, S, S] to raw map [B, outputs, S, S], not activated; S a multiple of 4.

    Stem, two halvings, `blocks` residual blocks at a quarter of the side, two doublings, output
    (Choi et al. 2018, arXiv:1711.09020, appendix). Instance normalisation has a scale and a shift
    but no running statistics: train and eval mode agree.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int = 64, blocks: int = 6) -> None:
        """Build the layers in torch's default initialisation; `width` is that of the stem."""
        super().__init__()
        quarter = 4 * width

        def half(width: int) -> nn.Conv2d:
            return nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)

        def double(width: int) -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False)

        self.layers = nn.Sequential(
            *conv_norm(nn.Conv2d(inputs, width, 7, 1, 3, bias=False)),
            *conv_norm(half(width)),
            *conv_norm(half(2 * width)),
            *(ResidualBlock(quarter) for _ in range(blocks)),
            *conv_norm(double(quarter)),
            *conv_norm(double(quarter // 2)),
            nn.Conv2d(width, outputs, 7, 1, 3, bias=False),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Translate."""
        raw: Tensor = self.layers(images)
        return raw
