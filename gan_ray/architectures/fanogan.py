"""f-AnoGAN (Schlegl et al. 2019, Medical Image Analysis 54:30-44).

A WGAN-GP learns to draw normal images; then, with both its networks frozen, an encoder learns to
find the latent code whose image is nearest to a given one, so that scoring is one pass:

    critic     L_C = mean D(G(z)) - mean D(x) + lambda_gp mean (||grad D(x~)|| - 1)^2
    generator  L_G = -mean D(G(z))
    izi        L_E = ||x - G(E(x))||^2 / n
    ziz        L_E = ||z - E(G(z))||^2 / d
    izi_f      L_E = ||x - G(E(x))||^2 / n + kappa ||f(x) - f(G(E(x)))||^2 / n_f
    score      A(x) = ||x - G(E(x))||^2 / n + kappa ||f(x) - f(G(E(x)))||^2 / n_f

z ~ N(0, 1) in d dimensions, n pixels times channels, f the critic's last map, flattened, n_f long.
Residual networks, initialisation and schedule are those of the authors' code, tSchlegl/f-AnoGAN.
`critic_regulariser` puts weight clipping, spectral norm or nothing in the place of the penalty.

Deviation: the critic runs before the generator in each cycle, not after (the first generator step
would follow an untrained critic). Deviation: RMSprop's eps is 1e-5 outside the root, the equivalent
of TensorFlow's 1e-10 inside it. Deviation: torch's batch-norm momentum and eps.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from gan_ray.blocks.init import init_glorot_, init_residual_
from gan_ray.blocks.latent import Bound, LatentHead
from gan_ray.blocks.norm import Norm, norm_layer
from gan_ray.blocks.plan import ResolutionPlan
from gan_ray.blocks.regulariser import Clip, CriticRegulariser, regularise_, regularised
from gan_ray.blocks.residual import ResBlockDown, ResBlockUp
from gan_ray.config import Optimizer, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Latent, Stage, Step
from gan_ray.losses.adversarial import critic_loss, generator_loss
from gan_ray.losses.penalties import gradient_penalty
from gan_ray.losses.reconstruction import squared
from gan_ray.ranges import Choice, LogUniform, When

_WIDEST = 8
"""Channels of the smallest maps, in multiples of the width."""


@config
class Weights:
    """Weights of the loss terms; those of the encoder count in the modes that have the term."""

    discrimination: float = 1.0
    """Critic: Wasserstein estimate."""
    gradient_penalty: Annotated[
        float, LogUniform(1.0, 50.0), When(critic_regulariser="gradient_penalty")
    ] = 10.0
    """Critic: lambda_gp of WGAN-GP."""
    adversarial: float = 1.0
    """Generator: judged real."""
    image: float = 1.0
    """Encoder (izi, izi_f): mean square between image and reconstruction."""
    features: Annotated[float, LogUniform(1e-2, 1e2), When(mode="izi_f")] = 1.0
    """Encoder (izi_f): kappa, mean square between their critic features."""
    latent: float = 1.0
    """Encoder (ziz): mean square between a latent code and the code of its image."""


@config
class FAnoGANConfig:
    """Settings of f-AnoGAN; the defaults are the published ones."""

    mode: Annotated[Literal["izi", "ziz", "izi_f"], Choice("izi", "ziz", "izi_f")] = "izi_f"
    """What the encoder learns from: images, latent codes, or images and critic features."""
    latent_size: Annotated[int, Choice(32, 64, 128, 256)] = 128
    """Dimensions d of the latent code."""
    latent_bound: Annotated[
        Bound, Choice("tanh", "tanh_3", "linear", "clip_3", "stochastic_clip")
    ] = "tanh"
    """How the encoder's code is bounded; ziz needs an unbounded one (linear), its prior is."""
    width: Annotated[int, Choice(32, 64, 96)] = 64
    """Channels at full resolution; 8 times as many at the lowest."""
    critic_norm: Annotated[Literal["layer", "none"], Choice("layer", "none")] = "layer"
    """Normalisation in the critic; batch norm would void the gradient penalty."""
    critic_regulariser: CriticRegulariser = "gradient_penalty"
    """What bounds the critic: gradient_penalty, as published, weight_clipping, spectral_norm or
    none."""
    clip: Clip = 0.01
    """c of weight_clipping: the critic's parameters stay within [-c, c]."""
    n_critic: Annotated[int, Choice(1, 3, 5)] = 5
    """Critic steps for each generator step."""
    weights: Weights = Weights()
    """Weights of the loss terms."""
    gan_optimizer: Optimizer = Optimizer(lr=1e-4, betas=(0.0, 0.9))
    """Of critic and generator."""
    encoder_optimizer: Optimizer = Optimizer(kind="rmsprop", lr=5e-5, betas=(0.0, 0.9), eps=1e-5)
    """Of the encoder."""


class Generator(nn.Module):
    """Latent codes [B, d] to images [B, C, S, S] in (-1, 1)."""

    def __init__(self, image: ImageSpec, *, latent_size: int, width: int) -> None:
        super().__init__()
        plan = ResolutionPlan(image.size)
        channels = plan.channels(width, _WIDEST)[::-1]
        self.stem = nn.Linear(latent_size, channels[0] * plan.root**2)
        self.unflatten = nn.Unflatten(1, (channels[0], plan.root, plan.root))
        self.blocks = nn.Sequential(
            *(ResBlockUp(i, o, kind="batch") for i, o in pairwise(channels))
        )
        self.norm = norm_layer("batch", width)
        self.head = nn.Conv2d(width, image.channels, 3, padding=1)
        self.apply(init_residual_)

    def forward(self, codes: Tensor) -> Tensor:
        """Draw the images of `codes`."""
        maps = self.blocks(self.unflatten(self.stem(codes)))
        return torch.tanh(self.head(relu(self.norm(maps))))


class Body(nn.Module):
    """Images [B, C, S, S] to `outputs` numbers each, through `features` [B, n_f]."""

    def __init__(self, image: ImageSpec, *, width: int, kind: Norm, outputs: int) -> None:
        super().__init__()
        plan = ResolutionPlan(image.size)
        channels = plan.channels(width, _WIDEST)
        self.stem = nn.Conv2d(image.channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResBlockDown(i, o, kind=kind) for i, o in pairwise(channels)))
        self.head = nn.Linear(channels[-1] * plan.root**2, outputs)
        self.apply(init_residual_)
        init_glorot_(self.stem)

    def features(self, images: Tensor) -> Tensor:
        """Give the last map of each image, flattened."""
        maps: Tensor = self.blocks(self.stem(images))
        return maps.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Give the numbers [B, outputs] of each image."""
        numbers: Tensor = self.head(self.features(images))
        return numbers


class Encoder(nn.Module):
    """Images [B, C, S, S] to latent codes [B, d], bounded."""

    def __init__(self, image: ImageSpec, *, latent_size: int, width: int, bound: Bound) -> None:
        super().__init__()
        self.body = Body(image, width=width, kind="batch", outputs=latent_size)
        self.bound = LatentHead(bound)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Find the codes; `noise` [B, d] is for the bound (training only)."""
        codes: Tensor = self.bound(self.body(images), noise)
        return codes


class FAnoGAN(Detector):
    """f-AnoGAN: networks `generator`, `critic`, `encoder`; stages `gan`, then `encoder`."""

    name = "f-anogan"
    title = "f-AnoGAN: WGAN-GP and an encoder trained on it (Schlegl et al. 2019)"
    Config = FAnoGANConfig
    score = "residual_features"
    offers = frozenset({"reconstruction", "features.critic"})
    infers = ("generator", "critic", "encoder")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model": {"width": 4, "latent_size": 8, "n_critic": 2},
            "data": {"image_size": 16},
            "train": {"batch_size": 8},
        },
        "default": {"model": {"width": 32}},
        # 0.4 * 8,000,000 images are the authors' 50,000 encoder iterations of 64.
        "reference": {
            "data": {"image_size": 64, "flip": True},
            "train": {"batch_size": 64, "images": 8_000_000},
        },
    }
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "izi_f": {"model": {"mode": "izi_f"}},
        "izi": {"model": {"mode": "izi"}},
        "ziz": {"model": {"mode": "ziz", "latent_bound": "linear"}},
    }
    passes_per_image = 4

    config: FAnoGANConfig

    def __init__(self, config: FAnoGANConfig, image: ImageSpec) -> None:
        """Build the networks, the encoder last: what it is like does not change the other two."""
        super().__init__(config, image)
        d, width = config.latent_size, config.width
        self.latent = Latent(d, "normal")
        self.networks["generator"] = Generator(image, latent_size=d, width=width)
        self.networks["critic"] = Body(image, width=width, kind=config.critic_norm, outputs=1)
        self.networks["encoder"] = Encoder(
            image, latent_size=d, width=width, bound=config.latent_bound
        )
        regularise_(self.networks["critic"], config.critic_regulariser)

    def stages(self) -> tuple[Stage, ...]:
        """Train the GAN, then the encoder on the frozen GAN.

        Shares: the authors' code runs about seven passes of a large set and then 50,000 encoder
        iterations, a well-known port 300 and 200 epochs; 3 : 2 is the port's and near the first.
        """
        model = self.config
        gan, encoder = model.gan_optimizer, model.encoder_optimizer
        critic = Step("critic", ("critic",), self._critic_loss, gan)
        return (
            Stage(
                name="gan",
                steps=(
                    regularised(critic, model.critic_regulariser, model.clip),
                    Step("generator", ("generator",), self._generator_loss, gan, model.n_critic),
                ),
                share=0.6,
                scores=False,
            ),
            Stage(
                name="encoder",
                steps=(Step("encoder", ("encoder",), self._encoder_loss, encoder),),
                share=0.4,
                claims=(
                    "mode",
                    "latent_bound",
                    "encoder_optimizer",
                    "weights.image",
                    "weights.features",
                    "weights.latent",
                ),
            ),
        )

    def evidence(self, images: Tensor, classes: Tensor | None = None) -> Evidence:
        """Reconstruct the images and compare the critic's features of both in one pass."""
        reconstruction = self.networks["generator"](self.networks["encoder"](images))
        features = self._features(torch.cat([images, reconstruction]))
        count = images.shape[0]
        return Evidence(
            reconstruction=reconstruction, features={"critic": (features[:count], features[count:])}
        )

    def draw(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        """Draw the images of codes with the generator."""
        images: Tensor = self.networks["generator"](codes)
        return images

    def _critic_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        critic, real = self.networks["critic"], batch["normal"]
        with torch.no_grad():
            fake = self.networks["generator"](batch.gaussian(self.config.latent_size))
        judged_real, judged_fake = critic(torch.cat([real, fake])).chunk(2)
        terms = {"discrimination": critic_loss(judged_real, judged_fake)}
        if self.config.critic_regulariser == "gradient_penalty":
            terms["gradient_penalty"] = gradient_penalty(critic, real, fake, batch.uniform())
        return terms

    def _generator_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        fake = self.networks["generator"](batch.gaussian(self.config.latent_size))
        return {"adversarial": generator_loss(self.networks["critic"](fake))}

    def _encoder_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        generator, encoder = self.networks["generator"], self.networks["encoder"]
        noise = batch.gaussian(self.config.latent_size)
        if self.config.mode == "ziz":
            prior = batch.gaussian(self.config.latent_size)
            with torch.no_grad():
                fake = generator(prior)
            return {"latent": squared(prior, encoder(fake, noise))}
        images = batch["normal"]
        reconstruction = generator(encoder(images, noise))
        terms = {"image": squared(images, reconstruction)}
        if self.config.mode == "izi_f":
            with torch.no_grad():
                wanted = self._features(images)
            terms["features"] = squared(wanted, self._features(reconstruction))
        return terms

    def _features(self, images: Tensor) -> Tensor:
        return cast(Body, self.networks["critic"]).features(images)
