"""Brainomaly: add a map to an image so that a critic takes it for normal; score what was added.

Rahman Siddiquee et al., "Brainomaly: Unsupervised neurologic disease detection utilizing
unannotated T1-weighted brain MR images", WACV 2024, arXiv:2302.09200. With the map G(x), normal
images n and unlabeled images u:

    h(x)      = tanh(x + G(x))
    identity    mean |n - h(n)|,  lambda_id = 1
    score       mean |x - h(x)| / 2

and the critic's terms of `_translation`. The paper's checkpoint selection without labels (AUCp) is
`gan_ray.scoring.selection`.

Deviation: instance normalisation keeps no running statistics. The public code keeps them but never
leaves train mode, so it has the same outputs as ours, whose eval mode equals its train mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor

from gan_ray.architectures._translation import TranslationConfig, TranslationWeights, Translator
from gan_ray.blocks.links import RESIDUAL_LINKS, ResidualLink
from gan_ray.blocks.resnet import ResnetGenerator
from gan_ray.config import config
from gan_ray.detector import Batch, ImageSpec
from gan_ray.errors import ConfigError
from gan_ray.losses.reconstruction import absolute
from gan_ray.ranges import Choice, IntRange


@config
class BrainomalyConfig(TranslationConfig):
    """Settings of Brainomaly."""

    residual_blocks: Annotated[int, IntRange(2, 9)] = 6
    """Residual blocks of the generator."""
    map_channels: Literal[1, 3] = 1
    """1 adds the same map to all channels, as published; 3 gives each colour its own."""
    residual_link: Annotated[ResidualLink, Choice("tanh_sum", "logit_sum")] = "tanh_sum"
    """tanh_sum, as published, or logit_sum, which leaves the image alone where the map is 0."""
    weights: TranslationWeights = TranslationWeights()
    """Weights of the loss terms."""


class Brainomaly(Translator):
    """A residual generator of an additive map against the translation critic."""

    name = "brainomaly"
    title = "Brainomaly: additive map to a healthy image (Rahman Siddiquee et al. 2024)"
    Config = BrainomalyConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model": {"width": 4, "residual_blocks": 2, "critic": {"width": 4, "max_width": 256}},
            "data": {"image_size": 16},
            "train": {"images": 64, "batch_size": 8},
        },
        "default": {"train": {"batch_size": 16}},
        # 400,000 critic steps; flips and three equal channels are the public code's.
        "reference": {
            "data": {"image_size": 192, "channels": 3, "flip": True},
            "train": {"images": 6_400_000, "batch_size": 16},
        },
    }

    config: BrainomalyConfig

    def __init__(self, config: BrainomalyConfig, image: ImageSpec) -> None:
        """Build the generator and the critic, in torch's default initialisation.

        Raises:
            ConfigError: the image size is no multiple of 4 from 8 on, or a grey image was to get
                three maps.
        """
        if image.size < 8 or image.size % 4:
            raise ConfigError(
                f"image size {image.size} does not halve twice for brainomaly's generator: allowed "
                "are multiples of 4 from 8 on. Set --data.image-size to one, such as 64."
            )
        if config.map_channels not in (1, image.channels):
            raise ConfigError(
                f"brainomaly cannot add {config.map_channels} maps to images of {image.channels} "
                "channel. Set --model.map-channels 1, or --data.channels 3."
            )
        super().__init__(config, image)
        self.networks["generator"] = ResnetGenerator(
            image.channels, config.map_channels, width=config.width, blocks=config.residual_blocks
        )

    def _healthy(self, images: Tensor) -> Tensor:
        """Give h(x)."""
        link = RESIDUAL_LINKS[self.config.residual_link]
        return link(images, self.networks["generator"](images))

    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Fool the critic with unlabeled images, leave normal images alone."""
        normal = batch["normal"]
        return {
            "adversarial": self._adversarial(self._healthy(batch["unlabeled"])),
            "identity": absolute(normal, self._healthy(normal)),
        }
