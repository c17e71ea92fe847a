"""HealthyGAN: draw a healthy candidate and a mask that says where to use it; score what changed.

Rahman Siddiquee et al., "HealthyGAN: Learning from unannotated medical images to detect anomalies
associated with human disease", SASHIMI 2022. With the candidate B(x) and the mask M(x) of the
generator's raw map, normal images n and unlabeled images u:

    h(x)      = M B + (1 - M) x,   x_rec(x) = M x + (1 - M) B
    adversarial         -mean C(h(u))
    adversarial_normal  -mean C(h(n))
    identity            mean |n - B(n)|,      lambda_id = 1
    reconstruction      mean |u - x_rec(u)|,  lambda_rec = 1
    focus               f(M(u)) / 2 + f(M(n)) / 2,  lambda_f = 0.1, f in `losses.focus`
    score               mean |x - h(x)| / 2

and the critic's terms of `_translation`: it never sees h(n), for which the generator is rewarded.

Deviation: instance normalisation keeps no running statistics. The public code keeps them but never
leaves train mode, so it has the same outputs as ours, whose eval mode equals its train mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from gan_ray.architectures._translation import (
    ResnetTranslationConfig,
    ResnetTranslator,
    TranslationWeights,
)
from gan_ray.blocks.links import MaskBlend
from gan_ray.config import config
from gan_ray.detector import Batch, Evidence, ImageSpec
from gan_ray.losses.adversarial import generator_loss
from gan_ray.losses.focus import focus
from gan_ray.losses.reconstruction import absolute
from gan_ray.ranges import LogUniform


@config
class Weights(TranslationWeights):
    """Weights of the loss terms."""

    identity: Annotated[float, LogUniform(0.1, 100.0)] = 1.0
    """lambda_id: L1 between a normal image and the candidate for it."""
    adversarial_normal: float = 1.0
    """Generator: translated normal images look normal to the critic."""
    reconstruction: Annotated[float, LogUniform(0.1, 10.0)] = 1.0
    """lambda_rec: L1 between an unlabeled image and what is restored of it."""
    focus: Annotated[float, LogUniform(0.01, 1.0)] = 0.1
    """lambda_f: small masks of zeros and ones."""


@config
class HealthyGANConfig(ResnetTranslationConfig):
    """Settings of HealthyGAN."""

    focus_size: Annotated[float, LogUniform(0.1, 10.0)] = 1.0
    """lambda_fs: share of the mask's squared size in its focus."""
    focus_binary: Annotated[float, LogUniform(0.1, 10.0)] = 1.0
    """lambda_fz: share of the mask's distance from zeros and ones in its focus."""
    weights: Weights = Weights()
    """Weights of the loss terms."""


class HealthyGAN(ResnetTranslator):
    """A generator of a candidate and its mask against the translation critic."""

    name = "healthygan"
    title = "HealthyGAN: healthy candidate and mask (Rahman Siddiquee et al. 2022)"
    Config = HealthyGANConfig
    offers = frozenset({"reconstruction", "mask"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **ResnetTranslator.presets,
        # 400,000 critic steps; flips and three equal channels are the public code's.
        "reference": {
            "data": {"image_size": 256, "channels": 3, "flip": True},
            "train": {"images": 6_400_000, "batch_size": 16},
        },
    }

    config: HealthyGANConfig

    def __init__(self, config: HealthyGANConfig, image: ImageSpec) -> None:
        """Build the generator of candidate and mask, and the critic.

        Raises:
            ConfigError: the image size is no multiple of 4 from 8 on.
        """
        super().__init__(config, image, image.channels + 1)

    def _blend(self, images: Tensor) -> MaskBlend:
        return MaskBlend.of(images, self.networks["generator"](images))

    def _healthy(self, images: Tensor) -> Tensor:
        """Give h(x)."""
        return self._blend(images).healthy

    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Fool the critic with all images; draw normal ones again, under a small, sure mask."""
        unlabeled, normal = batch["unlabeled"], batch["normal"]
        blend = self._blend(torch.cat((unlabeled, normal)))
        on_unlabeled, on_normal = self.networks["critic"](blend.healthy).chunk(2)
        restored, _ = blend.restored.chunk(2)
        _, candidate = blend.candidate.chunk(2)
        of_unlabeled, of_normal = (self._focus(mask, batch) for mask in blend.mask.chunk(2))
        return {
            "adversarial": generator_loss(on_unlabeled),
            "adversarial_normal": generator_loss(on_normal),
            "identity": absolute(normal, candidate),
            "reconstruction": absolute(unlabeled, restored),
            "focus": (of_unlabeled + of_normal) / 2,
        }

    def _focus(self, mask: Tensor, batch: Batch) -> Tensor:
        return focus(
            mask,
            size=self.config.focus_size,
            binary=self.config.focus_binary,
            mean_over_ranks=batch.mean_over_ranks,
        )

    def evidence(self, images: Tensor, classes: Tensor | None = None) -> Evidence:
        """Give the healthy versions, and the masks that say where they differ."""
        blend = self._blend(images)
        return Evidence(reconstruction=blend.healthy, mask=blend.mask)
