"""ALOCC: a denoising autoencoder refines images until a discriminator cannot tell; it then judges.

Sabokrou, Khalooei, Fathy, Adeli, "Adversarially learned one-class classifier for novelty
detection", CVPR 2018, arXiv:1802.09088. The refiner R sees X~ = X + n, n ~ N(0, sigma^2), clipped
to [-1, 1]; the target of its output is the clean image X. With the logit D of the discriminator and
its sigmoid s:

    discrimination  mean -log s(D(X)) + mean -log(1 - s(D(R(X~))))
    adversarial     mean -log s(D(R(X~)))
    refinement      mean (X - R(X~))^2, lambda = 10
    occ1, occ2      -D(X), -D(R(X)): abnormal is what looks unlike a normal image

R mends normal images and spoils others, so `occ2` is the paper's classifier. A perfect R would fool
D everywhere and D would judge nothing: training ends when R denoises well enough (`rho`), which is
part of the method. Noise is drawn afresh in every step; scoring adds none.

Deviation: the generator's side is non-saturating, as in the public code, not equation 3.

Deviation: the refinement is a mean over pixels, and lambda, 0.4 in the paper for a squared norm,
is 10: 0.4 times the mean leaves R to the adversarial term, 0.4 times the sum grows with the image.

Deviation: the public code's refinement is a cross-entropy with the *noisy* image as its target;
ours is the paper's (docs/systems/alocc.md).

Deviation: scores come from eval mode; the public code normalises by the test batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gan_ray.blocks.init import init_dcgan_
from gan_ray.blocks.norm import norm_layer
from gan_ray.blocks.pyramid import ConvEncoder
from gan_ray.config import Optimizer, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Stage, Step
from gan_ray.errors import ConfigError
from gan_ray.losses.adversarial import judged_real, real_or_fake
from gan_ray.losses.reconstruction import absolute, squared
from gan_ray.ranges import Choice, LogUniform, Uniform

_DISCRIMINATOR_DEPTH = 4
"""Halvings of the discriminator up to 64 pixels, in the paper and in the public code."""


@config
class Weights:
    """Weights of the loss terms."""

    discrimination: float = 1.0
    """Discriminator: cross-entropy of real and refined images."""
    adversarial: float = 1.0
    """Refiner: its images judged real."""
    refinement: Annotated[float, LogUniform(0.1, 500.0)] = 10.0
    """lambda: distance between refined and clean image, a mean over pixels."""


@config
class ALOCCConfig:
    """Settings of ALOCC; the defaults are the paper's networks."""

    width: Annotated[int, Choice(16, 32, 64)] = 64
    """Channels of the discriminator's first and the refiner's last hidden map, doubled inwards."""
    encoder_factor: int = 1
    """Channels of the refiner's first map in multiples of width: 1 in the paper, 2 in the code."""
    depth: Annotated[int, Choice(3, 4)] = 4
    """Halvings of the refiner up to 64 pixels; one more for each doubling beyond."""
    max_width: int = 512
    """Channels at most; 0 is no limit."""
    noise: Annotated[float, Uniform(0.05, 0.5)] = 0.155
    """sigma of the noise that the refiner learns to remove, for images in [-1, 1]; 0 is none."""
    refinement: Annotated[Literal["squared", "absolute"], Choice("squared", "absolute")] = "squared"
    """Distance between refined and clean image."""
    refiner_steps: Annotated[int, Choice(1, 2, 3)] = 2
    """Refiner steps for each discriminator step, on the same images with other noise."""
    rho: Annotated[float, LogUniform(5e-3, 1e-1)] = 0.02
    """Training ends when held-out normals are denoised to a mean square below it; 0 is never."""
    min_images: int = 10_000
    """Images before which rho does not end the training; two epochs of one digit of MNIST."""
    discriminator_optimizer: Optimizer = Optimizer()
    """Optimiser of the discriminator."""
    refiner_optimizer: Optimizer = Optimizer()
    """Optimiser of the refiner."""
    weights: Weights = Weights()
    """Weights of the loss terms."""


class Refiner(nn.Module):
    """Images [B, C, S, S] to refined images of the same shape in (-1, 1), through a spatial code.

    5x5 convolutions of stride 2 with batch norm. `sides` are those of the maps from the image to
    the code, each half the one before, rounded up; `encoder` the channels of the maps on the way
    down, `decoder` those on the way up, both the finest first.
    """

    def __init__(
        self, channels: int, sides: list[int], encoder: list[int], decoder: list[int]
    ) -> None:
        """Build the layers in torch's default initialisation."""
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, width in pairwise([channels, *encoder]):
            layers += [nn.Conv2d(inputs, width, 5, 2, 2), norm_layer("batch", width)]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        widths = [encoder[-1], *decoder[::-1], channels]
        for (inputs, width), (small, large) in zip(
            pairwise(widths), pairwise(sides[::-1]), strict=True
        ):
            odd = large - 2 * small + 1
            layers += [nn.ConvTranspose2d(inputs, width, 5, 2, 2, odd)]
            layers += [norm_layer("batch", width), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-2], nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        """Refine."""
        refined: Tensor = self.layers(images)
        return refined


class ALOCC(Detector):
    """Networks `refiner` and `discriminator`; one stage that ends when the refiner denoises."""

    name = "alocc"
    title = "ALOCC: adversarially learned one-class classifier (Sabokrou et al. 2018)"
    Config = ALOCCConfig
    score = "occ2"
    offers = frozenset({"reconstruction", "logits.image", "logits.reconstruction"})
    infers = ("refiner", "discriminator")
    passes_per_image = 4
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model": {"width": 4, "depth": 3},
            "data": {"image_size": 16},
            "train": {"images": 64, "batch_size": 8},
        },
        "default": {"train": {"batch_size": 128}},
        # 40 epochs of one digit of MNIST; lambda is 0.4 times a sum over 28 x 28 pixels.
        "reference": {
            "model": {"weights": {"refinement": 313.6}},
            "data": {"image_size": 28},
            "train": {"images": 240_000, "batch_size": 128},
        },
    }
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"model": {"width": 16, "encoder_factor": 2, "depth": 3}},
    }

    config: ALOCCConfig

    def __init__(self, config: ALOCCConfig, image: ImageSpec) -> None:
        """Build both networks and draw their first weights from torch's global RNG.

        Raises:
            ConfigError: the image is smaller than 16 pixels.
        """
        super().__init__(config, image)
        if image.size < 16:
            raise ConfigError(
                f"images of {image.size} x {image.size} pixels are too small for alocc, which "
                "halves them four times: 16 or more are allowed. Raise --data.image-size."
            )
        more = max(0, (image.size - 1).bit_length() - 6)
        depth, judged = config.depth + more, _DISCRIMINATOR_DEPTH + more
        sides = [-(-image.size // 2**stage) for stage in range(max(depth, judged) + 1)]

        def widths(first: int, count: int) -> list[int]:
            return [min(first << n, config.max_width or first << n) for n in range(count)]

        self.networks["refiner"] = Refiner(
            image.channels,
            sides[: depth + 1],
            encoder=widths(config.width * config.encoder_factor, depth),
            decoder=widths(config.width, depth - 1),
        )
        self.networks["discriminator"] = ConvEncoder(
            image.channels,
            tuple(widths(config.width, judged)),
            outputs=1,
            root=sides[judged],
            kernel=5,
            bias=True,
        )
        self.networks.apply(init_dcgan_)

    def stages(self) -> tuple[Stage, ...]:
        """One stage: the discriminator once, then the refiner `refiner_steps` times."""
        model = self.config
        discriminator = Step(
            "discriminator",
            ("discriminator",),
            self._discriminator_loss,
            model.discriminator_optimizer,
        )
        refiner = Step("refiner", ("refiner",), self._refiner_loss, model.refiner_optimizer)
        steps = (discriminator, *[refiner] * model.refiner_steps)
        return (Stage("gan", steps, until=self._denoises if model.rho > 0 else None),)

    def _denoises(self, figures: Mapping[str, float]) -> bool:
        early = figures["images"] < self.config.min_images
        return not early and figures["val/denoising_error"] < self.config.rho

    def held_out(self, batch: Batch) -> Mapping[str, Tensor]:
        """Give `denoising_error` [B]: the mean over pixels of (X - R(X~))^2."""
        refined = self.networks["refiner"](self._noised(batch))
        return {"denoising_error": (batch["normal"] - refined).square().flatten(1).mean(1)}

    def evidence(self, images: Tensor, classes: Tensor | None = None) -> Evidence:
        """Give the refined image, and the logits of the image and of the refined image."""
        refined = self.networks["refiner"](images)
        logits = {"image": self._judge(images), "reconstruction": self._judge(refined)}
        return Evidence(reconstruction=refined, logits=logits)

    def _discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Tell images from refined images; each has its own batch statistics."""
        with torch.no_grad():
            refined = self.networks["refiner"](self._noised(batch))
        judged = self._judge(batch["normal"]), self._judge(refined)
        return {"discrimination": real_or_fake(*judged)}

    def _refiner_loss(self, batch: Batch) -> dict[str, Tensor]:
        refined = self.networks["refiner"](self._noised(batch))
        distance = squared if self.config.refinement == "squared" else absolute
        return {
            "adversarial": judged_real(self._judge(refined)),
            "refinement": distance(batch["normal"], refined),
        }

    def _judge(self, images: Tensor) -> Tensor:
        logits: Tensor = self.networks["discriminator"](images)
        return logits.squeeze(1)

    def _noised(self, batch: Batch) -> Tensor:
        images = batch["normal"]
        noise = batch.gaussian(*images.shape[1:])
        return (images + self.config.noise * noise).clamp(-1, 1)
