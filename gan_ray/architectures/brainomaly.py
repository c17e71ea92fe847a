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

import torch
from torch import Tensor

from gan_ray.architectures._translation import (
    ResnetTranslationConfig,
    ResnetTranslator,
    TranslationWeights,
)
from gan_ray.blocks.links import RESIDUAL_LINKS, ResidualLink
from gan_ray.config import config
from gan_ray.detector import Batch, ImageSpec
from gan_ray.errors import ConfigError
from gan_ray.losses.reconstruction import absolute
from gan_ray.ranges import Choice


@config
class BrainomalyConfig(ResnetTranslationConfig):
    """Settings of Brainomaly."""

    map_channels: Literal[1, 3] = 1
    """1 adds the same map to all channels, as published; 3 gives each colour its own."""
    residual_link: Annotated[ResidualLink, Choice("tanh_sum", "logit_sum")] = "tanh_sum"
    """tanh_sum, as published, or logit_sum, which leaves the image alone where the map is 0."""
    weights: TranslationWeights = TranslationWeights()
    """Weights of the loss terms."""


class Brainomaly(ResnetTranslator):
    """A residual generator of an additive map against the translation critic."""

    name = "brainomaly"
    title = "Brainomaly: additive map to a healthy image (Rahman Siddiquee et al. 2024)"
    Config = BrainomalyConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **ResnetTranslator.presets,
        # 400,000 critic steps; flips and three equal channels are the public code's.
        "reference": {
            "data": {"image_size": 192, "channels": 3, "flip": True},
            "train": {"images": 6_400_000, "batch_size": 16},
        },
    }

    config: BrainomalyConfig

    def __init__(self, config: BrainomalyConfig, image: ImageSpec) -> None:
        """Build the generator of the map and the critic.

        Raises:
            ConfigError: the image size is no multiple of 4 from 8 on, or a grey image was to get
                three maps.
        """
        if config.map_channels not in (1, image.channels):
            raise ConfigError(
                f"brainomaly cannot add {config.map_channels} maps to images of {image.channels} "
                "channel. Set --model.map-channels 1, or --data.channels 3."
            )
        super().__init__(config, image, config.map_channels)

    def _healthy(self, images: Tensor) -> Tensor:
        """Give h(x)."""
        link = RESIDUAL_LINKS[self.config.residual_link]
        return link(images, self.networks["generator"](images))

    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Fool the critic with unlabeled images, leave normal images alone."""
        both = torch.cat((batch["unlabeled"], batch["normal"]))
        of_unlabeled, of_normal = self._healthy(both).chunk(2)
        return {
            "adversarial": self._adversarial(of_unlabeled),
            "identity": absolute(batch["normal"], of_normal),
        }
