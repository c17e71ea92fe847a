"""Translation to health: what HealthyGAN, Brainomaly and SAGAN have in common.

A generator turns an image x into its healthy version h(x); the anomaly is what it changed. It is
taught by a Wasserstein critic that sees normal images n as real and h(u) of unlabeled images u as
fake, with a gradient penalty (Gulrajani et al. 2017), and by terms of the system's own:

    critic      discrimination    mean C(h(u)) - mean C(n)
                gradient_penalty  mean over images of (||grad_m C(m)|| - 1)^2, lambda_gp = 10
    generator   adversarial       -mean C(h(u))

The learning rates are constant, which is what the public codes run: they announce a linear decay to
0 (that is `decay_from` of the optimisers), but apply it every 1,000 updates in steps made for every
single one: their last rate is 0.999 of the first.

Deviation: normal and unlabeled images are drawn independently; the public codes pair them by index.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from gan_ray.blocks.encodings import PositionalEncoding
from gan_ray.blocks.patch import PatchDiscriminator
from gan_ray.blocks.resnet import ResnetGenerator
from gan_ray.config import Optimizer, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Stage, Step
from gan_ray.errors import ConfigError
from gan_ray.losses.adversarial import critic_loss, generator_loss
from gan_ray.losses.penalties import gradient_penalty
from gan_ray.ranges import Choice, IntRange, LogUniform


@config
class TranslationWeights:
    """Weights of the loss terms that every translation system has."""

    discrimination: float = 1.0
    """Critic: Wasserstein distance of normal and translated images."""
    gradient_penalty: Annotated[float, LogUniform(1.0, 30.0)] = 10.0
    """lambda_gp: critic's slope of 1 between normal and translated images."""
    adversarial: float = 1.0
    """Generator: translated unlabeled images look normal to the critic."""
    identity: Annotated[float, LogUniform(0.1, 100.0)] = 1.0
    """lambda_id: L1 between a normal image and its translation."""


@config
class CriticConfig:
    """Shape of the critic."""

    width: Annotated[int, Choice(16, 32, 64)] = 64
    """Channels of the first layer; each further layer doubles them."""
    layers: Annotated[int, IntRange(3, 6)] = 6
    """Layers that halve the image, or fewer: as many as halve it to one pixel."""
    max_width: Annotated[int, Choice(256, 512, 1024, 2048)] = 2048
    """Channels at most."""
    penalty: Literal["sum", "mean"] = "sum"
    """What of its map has a slope of 1: the sum, as published, or the mean, as in its losses."""


@config
class TranslationConfig:
    """Settings that every translation system has."""

    width: Annotated[int, Choice(16, 32, 64)] = 64
    """Channels of the generator's first layer."""
    critic: CriticConfig = CriticConfig()
    """Shape of the critic."""
    n_critic: Annotated[int, Choice(1, 2, 3, 5)] = 2
    """Critic steps for each generator step."""
    critic_optimizer: Optimizer = Optimizer(lr=1e-4)
    """Optimiser of the critic."""
    generator_optimizer: Optimizer = Optimizer(lr=1e-4)
    """Optimiser of the generator."""


_OF_MAP: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda values: values.sum((1, 2, 3)),
    "mean": lambda values: values.mean((1, 2, 3)),
}


class Translator(Detector):
    """A translation system without its generator; see the module for its losses.

    A subclass builds `networks["generator"]` and says what h is and what the generator learns.
    """

    streams = ("normal", "unlabeled")
    score = "residual"
    offers = frozenset({"reconstruction"})
    infers = ("generator",)

    config: TranslationConfig

    def __init__(
        self,
        config: TranslationConfig,
        image: ImageSpec,
        *,
        position: PositionalEncoding | None = None,
    ) -> None:
        """Build the critic in torch's default initialisation; `position` is its encoding."""
        super().__init__(config, image)
        shape = config.critic
        self.networks["critic"] = PatchDiscriminator(
            image.channels,
            width=shape.width,
            layers=min(shape.layers, image.size.bit_length() - 1),
            max_width=shape.max_width,
            position=position,
        )

    @abstractmethod
    def _healthy(self, images: Tensor) -> Tensor:
        """Translate images [B, C, S, S] to their healthy versions h(x), in [-1, 1]."""

    @abstractmethod
    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Give the generator's terms."""

    def stages(self) -> tuple[Stage, ...]:
        """One stage: `n_critic` critic steps, then a generator step on the same batch."""
        settings = self.config
        critic = Step(
            "critic",
            ("critic",),
            self._critic_loss,
            settings.critic_optimizer,
            second_order=True,
        )
        generator = Step(
            "generator",
            ("generator",),
            self._generator_loss,
            settings.generator_optimizer,
            every=settings.n_critic,
        )
        return (Stage("gan", (critic, generator)),)

    def _critic_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Tell normal images from translated ones, with a bounded slope."""
        critic, real = self.networks["critic"], batch["normal"]
        with torch.no_grad():
            fake = self._healthy(batch["unlabeled"])
        on_real, on_fake = critic(torch.cat((real, fake))).chunk(2)
        of_map = _OF_MAP[self.config.critic.penalty]
        return {
            "discrimination": critic_loss(on_real, on_fake),
            "gradient_penalty": gradient_penalty(
                lambda points: of_map(critic(points)), real, fake, batch.uniform()
            ),
        }

    def _adversarial(self, translated: Tensor) -> Tensor:
        """Give -mean C(h(u)) for translated images h(u)."""
        return generator_loss(self.networks["critic"](translated))

    def evidence(self, images: Tensor, classes: Tensor | None = None) -> Evidence:
        """Give the healthy versions."""
        return Evidence(reconstruction=self._healthy(images))


@config
class ResnetTranslationConfig(TranslationConfig):
    """Settings of the systems whose generator is that of StarGAN."""

    residual_blocks: Annotated[int, IntRange(2, 9)] = 6
    """Residual blocks of the generator."""


class ResnetTranslator(Translator):
    """A translation system with StarGAN's generator; only its outputs and its terms are left."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model": {"width": 4, "residual_blocks": 2, "critic": {"width": 4, "max_width": 256}},
            "data": {"image_size": 16},
            "train": {"images": 64, "batch_size": 8},
        },
        "default": {"train": {"batch_size": 16}},
    }

    config: ResnetTranslationConfig

    def __init__(self, config: ResnetTranslationConfig, image: ImageSpec, outputs: int) -> None:
        """Build critic and generator, of `outputs` raw channels, in torch's default initialisation.

        Raises:
            ConfigError: the image size is no multiple of 4 from 8 on.
        """
        if image.size < 8 or image.size % 4:
            raise ConfigError(
                f"image size {image.size} does not halve twice for {self.name}'s generator: "
                "allowed are multiples of 4 from 8 on. Set --data.image-size to one, such as 64."
            )
        super().__init__(config, image)
        self.networks["generator"] = ResnetGenerator(
            image.channels, outputs, width=config.width, blocks=config.residual_blocks
        )
