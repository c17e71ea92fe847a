"""ALAD: a bidirectional GAN whose cycles are judged too, scored by what the judge of images sees.

Zenati, Romain, Foo, Lecouat, Chandrasekhar, "Adversarially learned anomaly detection", ICDM 2018,
arXiv:1812.02288. With z ~ N(0, 1), x_hat = G(E(x)), z_hat = E(G(z)), logits D, the sigmoid s and
f the last map of D_xx:

    discrimination_xz  mean -log s(D_xz(x, E(x))) + mean -log(1 - s(D_xz(G(z), z)))
    discrimination_xx  mean -log s(D_xx(x, x))    + mean -log(1 - s(D_xx(x, x_hat)))
    discrimination_zz  mean -log s(D_zz(z, z))    + mean -log(1 - s(D_zz(z, z_hat)))
    adversarial_xz     mean -log s(D_xz(G(z), z)) + mean -log(1 - s(D_xz(x, E(x))))
    adversarial_xx     mean -log s(D_xx(x, x_hat))
    adversarial_zz     mean -log s(D_zz(z, z_hat))
    score              sum |f(x, x) - f(x, x_hat)|

The sum of the adversarial terms has the gradients of the authors' two losses, one for G and one for
E: each half of adversarial_xz depends on one of them, and the two cycles belong to both.

`egbad`: Zenati et al. 2018, "Efficient GAN-based anomaly detection", arXiv:1802.06222, which has
D_xz alone, with features f, and the score

    (1 - w) sum |x - x_hat| + w sum |f(x, E(x)) - f(x_hat, E(x))|, w = 0.1

Deviation: its networks and optimiser are those of ALAD (docs/systems/alad.md).

Deviation: D_xx sees its two images as channels; the public code puts one above the other, and its
judge can hardly compare them (`pair_mode="height"`).

Deviation: both steps of a tick see the same images; the public code shuffles them independently.

Deviation: torch's batch-norm momentum and eps, spectral norm without gradients through its power
iteration, and a 5x5 convolution padded alike on all sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from gan_ray.blocks.pair import (
    CodePairDiscriminator,
    ImagePairDiscriminator,
    JointDiscriminator,
    PairMode,
)
from gan_ray.blocks.plan import ResolutionPlan
from gan_ray.blocks.pyramid import ConvDecoder, ConvEncoder, pyramid_widths
from gan_ray.blocks.spectral import bound_spectrum_
from gan_ray.config import Optimizer, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Latent, Stage, Step
from gan_ray.losses.adversarial import judged_real, real_or_fake
from gan_ray.ranges import Choice, LogUniform, Uniform


@config
class Weights:
    """Weights of the loss terms; those of xx and zz count where the cycles are judged."""

    discrimination_xz: float = 1.0
    """Discriminators: an image with its code, or a code with its image."""
    discrimination_xx: float = 1.0
    """Discriminators: an image with itself, or with its reconstruction."""
    discrimination_zz: float = 1.0
    """Discriminators: a code with itself, or with its reconstruction."""
    adversarial_xz: float = 1.0
    """w_xz: both networks pass for each other."""
    adversarial_xx: Annotated[float, LogUniform(0.1, 10.0)] = 1.0
    """w_xx: a reconstruction passes for its image."""
    adversarial_zz: Annotated[float, LogUniform(0.1, 10.0)] = 1.0
    """w_zz: a reconstructed code passes for its code."""


@config
class ALADConfig:
    """Settings of ALAD."""

    latent_size: Annotated[int, Choice(32, 64, 100, 128, 256)] = 100
    """Numbers in a code."""
    width: Annotated[int, Choice(32, 64, 128)] = 64
    """Channels of the first stage, doubled at each further one; published is 128 at 32 pixels."""
    max_width: int = 512
    """Channels at most; 0 is no limit."""
    joint_features: int = 1024
    """Features of D_xz; its branch of codes has half as many."""
    pair_width: int = 64
    """Channels of the first stage of D_xx and numbers in the first layer of D_zz."""
    cycles: bool = True
    """D_xx and D_zz judge the cycles; without them it is EGBAD."""
    pair_mode: Annotated[PairMode, Choice("channel", "height")] = "channel"
    """How D_xx joins its images: channel, or height like the public code (it hardly compares)."""
    spectral_norm_encoder: Annotated[bool, Choice(True, False)] = True
    """Spectral norm on all layers of the encoder but the last."""
    spectral_norm_discriminators: Annotated[bool, Choice(True, False)] = True
    """Spectral norm on all layers of the discriminators but their last."""
    dropout: Annotated[float, Uniform(0.0, 0.5)] = 0.2
    """Share of a discriminator's units that a training pass leaves out."""
    ema_decay: Annotated[float, Choice(0.99, 0.995, 0.999, 0.9999)] = 0.999
    """Decay, per tick, of the averaged weights that score."""
    discriminator_optimizer: Optimizer = Optimizer()
    """Optimiser of the discriminators."""
    generator_optimizer: Optimizer = Optimizer()
    """Optimiser of generator and encoder."""
    weights: Weights = Weights()
    """Weights of the loss terms."""


class ALAD(Detector):
    """Encoder and generator against `discriminator_xz`, `discriminator_xx`, `discriminator_zz`."""

    name = "alad"
    title = "ALAD: cycle-consistent bidirectional GAN; EGBAD as a variant (Zenati et al. 2018)"
    Config = ALADConfig
    score = "pair_features"
    offers = frozenset({"reconstruction", "features.pair", "logits.pair"})
    infers = ("encoder", "generator", "discriminator_xx")
    passes_per_image = 4
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model": {"width": 4, "latent_size": 8, "joint_features": 16, "pair_width": 4},
            "data": {"image_size": 16},
            "train": {"images": 64, "batch_size": 8},
        },
        "default": {"model": {"width": 32, "joint_features": 512}},
        # 100 epochs of the 3,600 images that 60 % of one pooled class of CIFAR-10 are.
        "reference": {
            "model": {"width": 128},
            "data": {"image_size": 32, "channels": 3},
            "train": {"images": 360_000, "batch_size": 32},
        },
    }
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "egbad": {
            "model": {
                "cycles": False,
                "spectral_norm_encoder": False,
                "spectral_norm_discriminators": False,
            },
            # (1 - w) : w with w = 0.1.
            "score": {"name": "l1_pair_features", "feature_weight": 1 / 9},
        }
    }

    config: ALADConfig

    def __init__(self, config: ALADConfig, image: ImageSpec) -> None:
        """Build the networks and draw their first weights from torch's global RNG.

        Raises:
            ConfigError: the image size does not halve to 4 to 7 pixels.
        """
        super().__init__(config, image)
        channels, d, dropout = image.channels, config.latent_size, config.dropout
        self.latent = Latent(d, "normal")
        widths = pyramid_widths(image.size, config.width, config.max_width)
        root = ResolutionPlan(image.size).root
        networks = self.networks
        networks["encoder"] = ConvEncoder(
            channels, widths, d, root=root, norm_first=True, bias=True
        )
        networks["generator"] = ConvDecoder(d, widths, channels, root=root, bias=True)
        networks["discriminator_xz"] = JointDiscriminator(
            channels, widths, d, config.joint_features, root=root, dropout=dropout
        )
        if config.cycles:
            # One stage fewer than the pyramids: down to 8x8 at the sizes of the paper.
            pair_widths = pyramid_widths(image.size, config.pair_width, config.max_width)[:-1]
            networks["discriminator_xx"] = ImagePairDiscriminator(
                channels, image.size, pair_widths, mode=config.pair_mode, dropout=dropout
            )
            networks["discriminator_zz"] = CodePairDiscriminator(
                d, (config.pair_width, config.pair_width // 2), dropout=dropout
            )
        else:
            self.infers = ("encoder", "generator", "discriminator_xz")
        networks.apply(_init_)
        if config.spectral_norm_encoder:
            bound_spectrum_(networks["encoder"], skip={"head"})
        if config.spectral_norm_discriminators:
            for name in self._discriminators:
                bound_spectrum_(networks[name], skip={"head"})

    @property
    def _discriminators(self) -> tuple[str, ...]:
        return tuple(name for name in self.networks if name.startswith("discriminator"))

    def stages(self) -> tuple[Stage, ...]:
        """One stage: all discriminators, then generator and encoder, at every tick."""
        model = self.config
        discriminators = Step(
            "discriminators",
            self._discriminators,
            self._discriminator_loss,
            model.discriminator_optimizer,
        )
        generator = Step(
            "generator",
            ("generator", "encoder"),
            self._generator_loss,
            model.generator_optimizer,
        )
        steps = (discriminators, generator)
        return (Stage("gan", steps, ema=self.infers, ema_decay=model.ema_decay),)

    def _discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Tell every pair from its counterpart; real and fake have their own batch statistics."""
        x, z = batch["normal"], batch.gaussian(self.config.latent_size)
        encoder, generator = self.networks["encoder"], self.networks["generator"]
        with torch.no_grad():
            code, fake = encoder(x), generator(z)
        terms = {
            "discrimination_xz": real_or_fake(
                self._judge("xz", x, code), self._judge("xz", fake, z)
            )
        }
        if self.config.cycles:
            with torch.no_grad():
                x_hat, z_hat = generator(code), encoder(fake)
            for pair, own, other in (("xx", x, x_hat), ("zz", z, z_hat)):
                terms[f"discrimination_{pair}"] = real_or_fake(
                    self._judge(pair, own, own), self._judge(pair, own, other)
                )
        return terms

    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Pass for the other side: the labels of the discriminators' step, swapped.

        What D_xx and D_zz say of an image or code with itself has no gradient and is left out.
        """
        x, z = batch["normal"], batch.gaussian(self.config.latent_size)
        encoder, generator = self.networks["encoder"], self.networks["generator"]
        code, fake = encoder(x), generator(z)
        terms = {
            "adversarial_xz": real_or_fake(self._judge("xz", fake, z), self._judge("xz", x, code))
        }
        if self.config.cycles:
            terms["adversarial_xx"] = judged_real(self._judge("xx", x, generator(code)))
            terms["adversarial_zz"] = judged_real(self._judge("zz", z, encoder(fake)))
        return terms

    def _judge(self, pair: str, first: Tensor, second: Tensor) -> Tensor:
        logit: Tensor = self.networks[f"discriminator_{pair}"](first, second)[0]
        return logit

    def evidence(self, images: Tensor, classes: Tensor | None = None) -> Evidence:
        """Reconstruct the images and compare how both look to D_xx (EGBAD: to D_xz)."""
        code = self.networks["encoder"](images)
        reconstruction = self.networks["generator"](code)
        if self.config.cycles:
            judge = self.networks["discriminator_xx"]
            own, other = (images, images), (images, reconstruction)
        else:
            judge = self.networks["discriminator_xz"]
            own, other = (images, code), (reconstruction, code)
        _, features = judge(*own)
        logit, reconstruction_features = judge(*other)
        return Evidence(
            reconstruction=reconstruction,
            features={"pair": (features, reconstruction_features)},
            logits={"pair": logit},
        )

    def draw(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        """Draw the images of codes with the generator."""
        images: Tensor = self.networks["generator"](codes)
        return images


def _init_(module: nn.Module) -> None:
    """N(0, 0.01) for convolutions and linear layers, biases 0: the authors' code."""
    if isinstance(module, (_ConvNd, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.01)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
