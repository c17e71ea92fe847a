"""AnoGAN: learn to draw normal images, then search for the latent code that draws this one.

Schlegl, Seeboeck, Waldstein, Schmidt-Erfurth, Langs, "Unsupervised anomaly detection with
generative adversarial networks to guide marker discovery", IPMI 2017, arXiv:1703.05921. A DCGAN
with generator G and discriminator D, whose features f are its last map before the logit:

    discrimination  mean -log s(D(x)) + mean -log(1 - s(D(G(z))))
    adversarial     mean -log s(D(G(z)))
    search          min over z of (1 - lambda) sum |x - G(z)| + lambda sum |f(x) - f(G(z))|
    score           the same sum at the code found, lambda = 0.1

No official code exists; the paper is silent on the search's optimiser. Ours is Adam at 0.01: at
most about lr * steps it moves a coordinate, so it must be able to cross the prior.

Deviation: a search starts from a code that the pixels of the image determine, so that an image's
score depends neither on its neighbours nor on its place. Deviation: `latent_penalty` is ours.

`search_loss="cross_entropy"` searches with -log s(D(G(z))) in place of the feature distance, as the
paper's comparison does (Yeh et al. 2017, arXiv:1607.07539); the score keeps the features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import torch
from torch import Tensor
from torch.nn.functional import softplus

from gan_ray.blocks.init import init_dcgan_
from gan_ray.blocks.plan import ResolutionPlan
from gan_ray.blocks.pyramid import ConvDecoder, ConvEncoder, FeatureDiscriminator, Kernel
from gan_ray.config import Optimizer, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Latent, Stage, Step
from gan_ray.errors import ConfigError
from gan_ray.losses.adversarial import judged_real, real_or_fake
from gan_ray.ranges import Choice, IntRange, LogUniform, Uniform, When
from gan_ray.seeds import derive_seed

_WIDEST = 8
"""Channels of the smallest maps at most, in multiples of the width."""


@config
class Weights:
    """Weights of the loss terms."""

    discrimination: float = 1.0
    """Discriminator: cross-entropy of real and drawn images."""
    adversarial: float = 1.0
    """Generator: judged real."""


@config
class AnoGANConfig:
    """Settings of AnoGAN; those of the search do not touch the training."""

    latent_size: Annotated[int, Choice(32, 64, 100, 128, 256)] = 100
    """Dimensions d of the latent code."""
    prior: Annotated[Literal["uniform", "normal"], Choice("uniform", "normal")] = "uniform"
    """Of the codes: uniform in [-1, 1], to which the search is then bound, or N(0, 1)."""
    width: Annotated[int, Choice(32, 48, 64)] = 64
    """Channels of the finest maps, doubled by each halving up to 8 times."""
    kernel: Kernel = 5
    """Pixels of a kernel's side: 5 as published; 4 avoids checkerboards."""
    feature_layer: Annotated[Literal["last", "last_but_one"], Choice("last", "last_but_one")] = (
        "last"
    )
    """Convolution of the discriminator whose activated maps are the features f."""
    ema_decay: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """Decay, per tick, of the averaged weights that are searched; 0 searches the last ones."""
    search_loss: Literal["features", "cross_entropy"] = "features"
    """What lambda weighs: the feature distance, or how little the drawing is judged real."""
    search_steps: Annotated[int, IntRange(100, 1000)] = 500
    """Gamma: steps of Adam on the code of an image."""
    search_lr: Annotated[float, LogUniform(1e-3, 1e-1)] = 1e-2
    """Learning rate of the search."""
    restarts: Annotated[int, Choice(1, 2, 4)] = 1
    """Searches from different codes; the one of lowest loss counts."""
    feature_share: Annotated[float, Uniform(0.0, 0.9)] = 0.1
    """lambda of the search; that of the score is score.feature_share."""
    latent_penalty: Annotated[float, LogUniform(1e-5, 1e-1), When(prior="normal")] = 0.0
    """w_z, normal prior only: weight of n ||z||^2 / d, for n pixels times channels."""
    discriminator_optimizer: Optimizer = Optimizer()
    """Optimiser of the discriminator."""
    generator_optimizer: Optimizer = Optimizer()
    """Optimiser of the generator."""
    weights: Weights = Weights()
    """Weights of the loss terms."""


class AnoGAN(Detector):
    """Networks `generator` and `discriminator`; `evidence` is a search."""

    name = "anogan"
    title = "AnoGAN: DCGAN and a latent search for each image (Schlegl et al. 2017)"
    Config = AnoGANConfig
    score = "search"
    offers = frozenset({"reconstruction", "features.discriminator"})
    infers = ("generator", "discriminator")
    searches = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model": {"width": 4, "latent_size": 8, "search_steps": 5},
            "data": {"image_size": 16},
            "train": {"images": 64, "batch_size": 8},
        },
        # A report searches each held-out image it looks at.
        "default": {"model": {"width": 32}, "train": {"batch_size": 64, "look": 64}},
        # The paper's 20 epochs of about 1,000,000 patches, both from memory.
        "reference": {
            "data": {"image_size": 64},
            "train": {"images": 20_000_000, "batch_size": 64, "look": 64},
        },
    }

    config: AnoGANConfig

    def __init__(self, config: AnoGANConfig, image: ImageSpec) -> None:
        """Build both networks and draw their first weights from torch's global RNG.

        Raises:
            ConfigError: the image size does not suit the networks, or the search is none.
        """
        super().__init__(config, image)
        if not (config.restarts >= 1 and config.search_steps >= 1 and config.search_lr > 0):
            raise ConfigError(
                f"the latent search cannot work with restarts={config.restarts}, search_steps="
                f"{config.search_steps}, search_lr={config.search_lr}: the first two must be 1 or "
                "more (--model.restarts, --model.search-steps), the last above 0."
            )
        self.latent = Latent(config.latent_size, config.prior)
        plan = ResolutionPlan(image.size)
        widths = plan.channels(config.width, _WIDEST)[:-1]
        self.networks["generator"] = ConvDecoder(
            config.latent_size,
            widths,
            image.channels,
            root=plan.root,
            kernel=config.kernel,
            bias=True,
        )
        self.networks["discriminator"] = FeatureDiscriminator(
            ConvEncoder(image.channels, widths, 1, root=plan.root, kernel=config.kernel, bias=True),
            back=0 if config.feature_layer == "last" else 1,
        )
        self.networks.apply(init_dcgan_)
        # A step is a pass of both networks and one back through them.
        self.passes_per_image = 2 * config.search_steps * config.restarts

    def stages(self) -> tuple[Stage, ...]:
        """One stage: discriminator, then generator, at every tick."""
        discriminator = Step(
            "discriminator",
            ("discriminator",),
            self._discriminator_loss,
            self.config.discriminator_optimizer,
        )
        generator = Step(
            "generator", ("generator",), self._generator_loss, self.config.generator_optimizer
        )
        decay = self.config.ema_decay
        averaged = self.infers if decay else ()
        return (Stage("gan", (discriminator, generator), ema=averaged, ema_decay=decay),)

    def evidence(self, images: Tensor, classes: Tensor | None = None) -> Evidence:
        """Search the code of each image; give its drawing and the features of both."""
        wanted = self._features(images)
        found = [
            self._look(self._search(images, wanted, restart), images, wanted)
            for restart in range(self.config.restarts)
        ]
        losses, drawn, features = (torch.stack(parts) for parts in zip(*found, strict=True))
        best = losses.argmin(0), torch.arange(len(images), device=images.device)
        return Evidence(
            reconstruction=drawn[best], features={"discriminator": (wanted, features[best])}
        )

    def draw(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        """Draw the images of codes with the generator."""
        images: Tensor = self.networks["generator"](codes)
        return images

    def _discriminator_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Tell images from drawings; each has its own batch statistics."""
        with torch.no_grad():
            fake = self.networks["generator"](self._prior(batch))
        judge = self.networks["discriminator"]
        return {"discrimination": real_or_fake(judge(batch["normal"])[0], judge(fake)[0])}

    def _generator_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        fake = self.networks["generator"](self._prior(batch))
        return {"adversarial": judged_real(self.networks["discriminator"](fake)[0])}

    def _prior(self, batch: Batch) -> Tensor:
        size = self.config.latent_size
        uniform = self.config.prior == "uniform"
        return 2 * batch.uniform(size) - 1 if uniform else batch.gaussian(size)

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self.networks["discriminator"](images)[1]
        return features

    def _search(self, images: Tensor, wanted: Tensor, restart: int) -> Tensor:
        """Give codes [B, d] whose drawings are near the images [B, C, S, S]."""
        codes = self._start(images, restart).requires_grad_()
        adam = torch.optim.Adam([codes], lr=self.config.search_lr)
        for _ in range(self.config.search_steps):
            with torch.enable_grad():
                losses, _, _ = self._look(codes, images, wanted)
                # The sum, and elementwise Adam: each row is searched as if it were alone.
                (codes.grad,) = torch.autograd.grad(losses.sum(), codes)
            adam.step()
            if self.config.prior == "uniform":
                codes.clamp_(-1, 1)
        return codes.detach()

    def _look(self, codes: Tensor, images: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the losses [B] of codes, their drawings and the features of these."""
        drawn = self.networks["generator"](codes)
        logits, features = self.networks["discriminator"](drawn)
        if self.config.search_loss == "features":
            guide = (wanted - features).abs().flatten(1).sum(1)
        else:
            guide = softplus(-logits)
        share = self.config.feature_share
        losses = (1 - share) * (images - drawn).abs().flatten(1).sum(1) + share * guide
        if self.config.prior == "normal" and self.config.latent_penalty:
            pixels = images[0].numel()
            losses = losses + self.config.latent_penalty * pixels * codes.square().mean(1)
        return losses, drawn, features

    def _start(self, images: Tensor, restart: int) -> Tensor:
        """Draw a code from the prior for each image, seeded by its pixels.

        They are read as 16-bit integers, so that the rounding of a device or a precision, which
        scales them to [-1, 1], does not matter.
        """
        pixels = ((images.detach().double().cpu() + 1) * 32767.5).round().int().numpy()
        draw = torch.rand if self.config.prior == "uniform" else torch.randn
        rows = []
        for row in pixels.astype("<i4"):
            seed = derive_seed(hashlib.sha256(row.tobytes()).hexdigest(), restart)
            generator = torch.Generator().manual_seed(seed)
            rows.append(draw(self.config.latent_size, generator=generator))
        codes = torch.stack(rows)
        if self.config.prior == "uniform":
            codes = 2 * codes - 1
        return codes.to(images)
