"""GANomaly: reconstruct an image, encode the reconstruction again, score the distance of the codes.

Akcay, Atapour-Abarghouei, Breckon, "GANomaly: Semi-supervised anomaly detection via adversarial
training", ACCV 2018, arXiv:1805.06725. With z = E1(x), x_hat = Dec(z), z_hat = E2(x_hat), the
features f of the discriminator D and its logit D (equation numbers are the paper's):

    discrimination  1/2 [mean -log s(D(x)) + mean -log(1 - s(D(x_hat)))]
    adversarial     mean (f(x) - f(x_hat))^2        (1), w_adv = 1
    contextual      mean |x - x_hat|                (2), w_con = 50
    latent          mean (z - z_hat)^2              (3), w_enc = 1
    score           mean (z - z_hat)^2              (5), with the square of the public code

This is the public code since August 2019; `adversarial="bce"` gives its first version (mean
-log s(D(x_hat)) in place of the feature distance).

Deviation: the discriminator steps before the generator and sees the generator of the tick before;
the public code computes both losses first and steps the generator first. We alternate.

Deviation: re-initialising a saturated discriminator also forgets its running statistics and its
optimiser's state, and happens at most `max_resets` times.

Deviation: scores come from eval mode. The public code normalises by the test batch, so that an
image's score depends on its neighbours (docs/systems/ganomaly.md).

Deviation: widths stop at `max_width`; without it, 256 pixels cost 188.7 M parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gan_ray.blocks.init import init_dcgan_
from gan_ray.blocks.norm import Norm
from gan_ray.blocks.plan import ResolutionPlan
from gan_ray.blocks.pyramid import ConvDecoder, ConvEncoder, FeatureDiscriminator, pyramid_widths
from gan_ray.config import Optimizer, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Stage, Step
from gan_ray.losses.adversarial import judged_real, real_or_fake
from gan_ray.losses.reconstruction import absolute, squared
from gan_ray.ranges import Choice, IntRange, LogUniform


@config
class Weights:
    """Weights of the loss terms."""

    discrimination: float = 1.0
    """Discriminator: cross-entropy of real and reconstructed images."""
    adversarial: Annotated[float, LogUniform(0.1, 10.0)] = 1.0
    """w_adv: distance of the discriminator's features of image and reconstruction."""
    contextual: Annotated[float, LogUniform(1.0, 200.0)] = 50.0
    """w_con: L1 between image and reconstruction."""
    latent: Annotated[float, LogUniform(0.1, 50.0)] = 1.0
    """w_enc: distance of the codes of image and reconstruction."""


@config
class GANomalyConfig:
    """Settings of GANomaly."""

    latent_size: Annotated[int, Choice(16, 32, 64, 100, 128, 256, 512)] = 100
    """Numbers in a code."""
    width: Annotated[int, Choice(32, 64, 128)] = 64
    """Channels of the first stage; each further stage doubles them."""
    max_width: int = 512
    """Channels at most; 0 is no limit, as published."""
    extra_layers: Annotated[int, IntRange(0, 2)] = 0
    """3x3 convolutions beside the finest stage of every network."""
    norm: Norm = "batch"
    """batch, as published; all others treat every image alone, in training too."""
    adversarial: Annotated[Literal["feature", "bce"], Choice("feature", "bce")] = "feature"
    """feature matches the discriminator's features; bce is the first public version."""
    reset_below: float = 1e-5
    """The discriminator starts afresh when its loss falls below this."""
    max_resets: int = 10
    """Fresh starts of the discriminator at most."""
    discriminator_optimizer: Optimizer = Optimizer()
    """Optimiser of the discriminator."""
    generator_optimizer: Optimizer = Optimizer()
    """Optimiser of encoder, decoder and second encoder."""
    weights: Weights = Weights()
    """Weights of the loss terms."""


class GANomaly(Detector):
    """Encoder, decoder and second encoder against a discriminator with features."""

    name = "ganomaly"
    title = "GANomaly: autoencoder scored by the code of its reconstruction (Akcay et al. 2018)"
    Config = GANomalyConfig
    score = "latent"
    offers = frozenset({"reconstruction", "latents.code"})
    infers = ("encoder", "decoder", "second_encoder")
    passes_per_image = 3
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model": {"width": 4, "latent_size": 8},
            "data": {"image_size": 16},
            "train": {"images": 64, "batch_size": 8},
        },
        "default": {"train": {"batch_size": 64}},
        # 15 epochs of the about 54,000 normals of MNIST with one abnormal digit.
        "reference": {
            "model": {"max_width": 0},
            "data": {"image_size": 32},
            "train": {"images": 810_000, "batch_size": 64},
        },
    }

    config: GANomalyConfig
    resets: Tensor

    def __init__(self, config: GANomalyConfig, image: ImageSpec) -> None:
        """Build the four networks and draw their first weights from torch's global RNG.

        Raises:
            ConfigError: the image size does not halve to 4 to 7 pixels.
        """
        super().__init__(config, image)
        widths = pyramid_widths(image.size, config.width, config.max_width)
        root = ResolutionPlan(image.size).root

        def encoder(outputs: int) -> ConvEncoder:
            return ConvEncoder(
                image.channels,
                widths,
                outputs,
                root=root,
                norm=config.norm,
                extra_layers=config.extra_layers,
            )

        self.networks["encoder"] = encoder(config.latent_size)
        self.networks["decoder"] = ConvDecoder(
            config.latent_size,
            widths,
            image.channels,
            root=root,
            norm=config.norm,
            extra_layers=config.extra_layers,
        )
        self.networks["second_encoder"] = encoder(config.latent_size)
        self.networks["discriminator"] = FeatureDiscriminator(encoder(1))
        self.networks.apply(init_dcgan_)
        self.register_buffer("resets", torch.zeros((), dtype=torch.int64))

    def stages(self) -> tuple[Stage, ...]:
        """One stage: discriminator, then generator, at every tick."""
        discriminator = Step(
            "discriminator",
            ("discriminator",),
            self._discriminator_loss,
            self.config.discriminator_optimizer,
            after=self._reset_saturated,
        )
        generator = Step(
            "generator",
            ("encoder", "decoder", "second_encoder"),
            self._generator_loss,
            self.config.generator_optimizer,
        )
        return (Stage("gan", (discriminator, generator)),)

    def _discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Tell images from reconstructions; each has its own batch statistics."""
        real = batch["normal"]
        with torch.no_grad():
            fake = self.networks["decoder"](self.networks["encoder"](real))
        judge = self.networks["discriminator"]
        return {"discrimination": real_or_fake(judge(real)[0], judge(fake)[0]) / 2}

    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Equations 1 to 3; the codes' distance trains both encoders and the decoder."""
        real = batch["normal"]
        code, fake, fake_code = self._translate(real)
        judge = self.networks["discriminator"]
        logit, features = judge(fake)
        if self.config.adversarial == "bce":
            adversarial = judged_real(logit)
        else:
            with torch.no_grad():
                _, target = judge(real)
            adversarial = squared(target, features)
        return {
            "adversarial": adversarial,
            "contextual": absolute(real, fake),
            "latent": squared(code, fake_code),
        }

    def _reset_saturated(self, terms: Mapping[str, float]) -> bool:
        """Start the discriminator afresh when it knows every image; True when that was done.

        A loss of 0 has no gradient, and its features no longer teach the generator anything. The
        count is a buffer, so that it survives a checkpoint.
        """
        saturated = terms["discrimination"] < self.config.reset_below
        if not saturated or self.resets >= self.config.max_resets:
            return False
        self.networks["discriminator"].apply(_forget).apply(init_dcgan_)
        self.resets += 1
        return True

    def evidence(self, images: Tensor, classes: Tensor | None = None) -> Evidence:
        """Give the reconstruction and the codes of both."""
        code, fake, fake_code = self._translate(images)
        return Evidence(reconstruction=fake, latents={"code": (code, fake_code)})

    def _translate(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        code = self.networks["encoder"](images)
        fake = self.networks["decoder"](code)
        return code, fake, self.networks["second_encoder"](fake)


def _forget(module: nn.Module) -> None:
    """Put a layer back to torch's first values, running statistics included."""
    if callable(reset := getattr(module, "reset_parameters", None)):
        reset()
