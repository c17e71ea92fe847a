"""f-UNetGAN and F-UNetGAN (Nafti, Besbes et al. 2024, Applied Soft Computing 112066).

f-AnoGAN whose critic is a U-Net: it judges an image as a whole, C_g, and at each pixel, the map
D_p with its mean C_p. With both networks frozen, an encoder then learns to find the code whose
image agrees in pixels and in the features f_g, f_p behind both judgements. z ~ N(0, 1),
x_m = u x + (1 - u) G(z), u ~ U(0, 1):

    critic     sum over h in {g, p} of mean C_h(G(z)) - mean C_h(x)
                                       + lambda_gp mean (||grad C_h(x_m)|| - 1)^2
               + lambda_mix mean (D_p(x_m) - (u D_p(x) + (1-u) D_p(G(z))))^2
    generator  -mean C_g(G(z)) - mean C_p(G(z))
    encoder    MSE(x, x_hat) + kappa_g MSE(f_g) + kappa_p MSE(f_p), x_hat = G(E(x))

The published repository, nnajeh/f-UNetGAN, does not run; what follows it and what does not, and
why, is in docs/systems/f-unetgan.md. The settings hold its choices beside ours.

Deviation: C_p is the mean of the map, not its sum. Deviation: the critic has no norm, the generator
and the encoder batch norm, instead of instance norm everywhere, which hides brightness and contrast
from the critic. Deviation: the encoder's feature terms have gradient. Deviation: the mixtures of
the consistency term are the points of both gradient penalties.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from gan_ray.blocks.attention import CBAM
from gan_ray.blocks.init import init_orthogonal_
from gan_ray.blocks.latent import LatentHead
from gan_ray.blocks.norm import Norm, norm_layer
from gan_ray.blocks.plan import ResolutionPlan
from gan_ray.blocks.residual import ResBlockUp
from gan_ray.blocks.spectral import bound_spectrum_
from gan_ray.blocks.unet import Attention, Pool, UNetCritic, UNetEncoder, UNetOutput
from gan_ray.config import Optimizer, Share, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Latent, Stage, Step
from gan_ray.losses.adversarial import critic_loss, generator_loss
from gan_ray.losses.consistency import cutmix_mask, mixup_consistency, symmetric_beta
from gan_ray.losses.penalties import points_between, slope_penalty
from gan_ray.losses.reconstruction import squared
from gan_ray.ranges import Choice, LogUniform, When


@config
class Weights:
    """Weights of the loss terms; `global` is of the whole image, `pixel` of the map."""

    discrimination_global: float = 1.0
    """Critic: w_g, Wasserstein estimate."""
    discrimination_pixel: Annotated[float, LogUniform(0.1, 10.0)] = 1.0
    """Critic: w_p, Wasserstein estimate."""
    gradient_penalty_global: Annotated[float, LogUniform(1.0, 50.0), When(penalty="each")] = 10.0
    """Critic: lambda_gp of C_g (penalty each)."""
    gradient_penalty_pixel: Annotated[float, LogUniform(1.0, 50.0), When(penalty="each")] = 10.0
    """Critic: lambda_gp of C_p (penalty each)."""
    gradient_penalty_sum: Annotated[float, LogUniform(1.0, 50.0), When(penalty="sum")] = 10.0
    """Critic: lambda_gp of C_g + C_p (penalty sum)."""
    consistency: Annotated[float, LogUniform(1e-2, 1e2)] = 1.0
    """Critic: lambda_mix, the map of a mixture is the mixture of the maps (all but mix none)."""
    adversarial_global: float = 1.0
    """Generator: judged real."""
    adversarial_pixel: Annotated[float, LogUniform(0.1, 10.0)] = 1.0
    """Generator: judged real at each pixel."""
    image: float = 1.0
    """Encoder: mean square between image and reconstruction."""
    features_global: Annotated[float, LogUniform(1e-2, 1e2)] = 1.0
    """Encoder: kappa_g, mean square between their features behind C_g."""
    features_pixel: Annotated[float, LogUniform(1e-2, 1e2)] = 1.0
    """Encoder: kappa_p, mean square between their features behind C_p."""


_GATED = When(attention="cbam", generator_attention=("last2", "all"))


@config
class FUNetGANConfig:
    """Settings of f-UNetGAN; the defaults are the corrected ones of docs/systems/f-unetgan.md."""

    residual: Annotated[bool, Choice(True, False)] = True
    """Shortcuts in the critic's blocks."""
    attention: Annotated[Literal["cbam", "none"], Choice("cbam", "none")] = "cbam"
    """Gates on the way down, in critic and encoder."""
    generator_attention: Annotated[
        Literal["none", "last2", "all"], Choice("none", "last2", "all")
    ] = "all"
    """Blocks of the generator that gates follow."""
    attention_reduction: Annotated[int, Choice(4, 8, 16, 32), _GATED] = 16
    """Channels for each hidden number of a channel gate."""
    attention_kernel: Annotated[Literal[3, 7], Choice(3, 7), _GATED] = 7
    """Pixels; side of a spatial gate's kernel."""
    latent_size: Annotated[int, Choice(64, 100, 128, 256)] = 128
    """Dimensions d of the latent code."""
    latent_bound: Annotated[
        Literal["tanh", "tanh_3", "linear", "clip_3"], Choice("tanh", "tanh_3", "linear", "clip_3")
    ] = "tanh"
    """How the encoder's code is bounded."""
    width: Annotated[int, Choice(32, 48, 64)] = 64
    """Channels at full resolution, doubled at each halving up to 4, 8 or 16 times as many."""
    critic_norm: Annotated[
        Literal["none", "layer", "plain_instance"], Choice("none", "layer", "plain_instance")
    ] = "none"
    """Normalisation in the critic; the reference's plain_instance hides brightness and contrast."""
    generator_norm: Annotated[
        Literal["batch", "plain_instance"], Choice("batch", "plain_instance")
    ] = "batch"
    """Normalisation in the generator; the reference's is plain_instance."""
    encoder_norm: Annotated[
        Literal["batch", "plain_instance"], Choice("batch", "plain_instance")
    ] = "batch"
    """Normalisation in the encoder; the reference's is plain_instance."""
    spectral_norm: Annotated[bool, Choice(True, False)] = True
    """Spectral norm in the critic, but for its pixel head."""
    pool: Pool = "max"
    """How the critic halves its maps."""
    global_pooling: Literal["sum", "mean"] = "sum"
    """How C_g pools the smallest map; with mean its slope starts, and under spectral norm stays,
    far below the 1 that the penalty wants. The features are means in any case."""
    pixel_reduction: Literal["mean", "sum"] = "mean"
    """How a map becomes C_p; the reference's sum starts with gradients of a thousand."""
    penalty: Literal["each", "sum"] = "each"
    """Gradient penalty of C_g and of C_p, or one of their sum."""
    mix: Annotated[
        Literal["mixup", "mixup_beta", "cutmix", "none"], Choice("mixup", "mixup_beta", "cutmix")
    ] = "mixup"
    """Mixtures of the consistency term: shares uniform or from Beta(a, a), boxes, or no term."""
    mix_alpha: Annotated[
        float, Choice(0.2, 0.4, 1.0), When(mix="mixup_beta"), pydantic.Field(gt=0)
    ] = 0.4
    """The a of mixup_beta."""
    warmup: Share = 0.2
    """Share of the GAN stage over which the consistency term fades in, in [0, 1]."""
    n_critic: Annotated[int, Choice(1, 3, 5)] = 5
    """Critic steps for each generator step."""
    weights: Weights = Weights()
    """Weights of the loss terms."""
    gan_optimizer: Optimizer = Optimizer(lr=1e-4, betas=(0.0, 0.9))
    """Of critic and generator."""
    encoder_optimizer: Optimizer = Optimizer(lr=1e-4, betas=(0.9, 0.999))
    """Of the encoder."""


class Generator(nn.Module):
    """Latent codes [B, d] to images [B, C, S, S] in (-1, 1); `attention` says it for each block."""

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        root: int,
        *,
        latent_size: int,
        norm: Norm,
        attention: tuple[Attention, ...],
    ) -> None:
        """Build it in torch's default initialisation; `widths` are the channels of each size."""
        super().__init__()
        self.stem = nn.Linear(latent_size, widths[-1] * root**2)
        self.unflatten = nn.Unflatten(1, (widths[-1], root, root))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(ResBlockUp(*pair, kind=norm, bias=True), gates(pair[1]))
                for pair, gates in zip(pairwise(widths[::-1]), attention, strict=True)
            )
        )
        self.norm = norm_layer("batch", widths[0])
        self.head = nn.Conv2d(widths[0], channels, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        """Draw the images of `codes`."""
        maps = self.blocks(self.unflatten(self.stem(codes)))
        return torch.tanh(self.head(relu(self.norm(maps))))


class FUNetGAN(Detector):
    """f-UNetGAN: networks `generator`, `critic`, `encoder`; stages `gan`, then `encoder`."""

    name = "f-unetgan"
    title = "f-UNetGAN: WGAN-GP with a U-Net critic, and an encoder (Nafti, Besbes et al. 2024)"
    Config = FUNetGANConfig
    score = "scaled_features"
    offers = frozenset({"reconstruction", "features.global", "features.pixel"})
    infers = ("generator", "critic", "encoder")
    passes_per_image = 4
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model": {"width": 4, "latent_size": 8, "n_critic": 2},
            "data": {"image_size": 16},
            "train": {"batch_size": 8},
        },
        "default": {"model": {"width": 32}},
        # 100,000 critic, 20,000 generator and 33,000 encoder steps of 24.
        "reference": {
            "model": {"latent_size": 100},
            "data": {"image_size": 128, "channels": 3},
            "train": {"batch_size": 24, "images": 3_200_000},
        },
    }
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "residual_attention": {"model": {"residual": True, "attention": "cbam"}},
        "residual": {"model": {"residual": True, "attention": "none"}},
        "convolutional_attention": {"model": {"residual": False, "attention": "cbam"}},
        "convolutional": {"model": {"residual": False, "attention": "none"}},
        # The earlier profile of the same code, F-UNetGAN.
        "no_mixup": {
            "model": {
                "mix": "none",
                "penalty": "sum",
                "attention": "none",
                "generator_attention": "last2",
            }
        },
    }

    config: FUNetGANConfig

    def __init__(self, config: FUNetGANConfig, image: ImageSpec) -> None:
        """Build the networks, the encoder last: what it is like does not change the other two."""
        super().__init__(config, image)
        self.latent = Latent(config.latent_size, "normal")
        plan = ResolutionPlan(image.size)
        widths = plan.channels(config.width, min(16, max(4, 2 ** (plan.stages - 1))))
        # Down to a map of 8 pixels where there are three stages or more.
        levels = max(min(2, plan.stages), plan.stages - 1)
        gates = partial(CBAM, reduction=config.attention_reduction, kernel=config.attention_kernel)
        published = partial(gates, norm=True)
        gated = {"none": 0, "last2": 2, "all": plan.stages}[config.generator_attention]
        attended = config.attention == "cbam"

        self.networks["generator"] = Generator(
            image.channels,
            widths,
            plan.root,
            latent_size=config.latent_size,
            norm=config.generator_norm,
            attention=((nn.Identity,) * plan.stages + (published,) * gated)[-plan.stages :],
        )
        _start_(self.networks["generator"], free=("head",))
        self.networks["critic"] = UNetCritic(
            image.channels,
            widths[: levels + 1],
            norm=config.critic_norm,
            pool=config.pool,
            residual=config.residual,
            attention=gates if attended else None,
            pooling=config.global_pooling,
        )
        _start_(self.networks["critic"], free=("pixel_head",), bound=config.spectral_norm)
        body = UNetEncoder(
            image.channels,
            widths,
            plan.root,
            config.latent_size,
            norm=config.encoder_norm,
            attention=published if attended else None,
        )
        self.networks["encoder"] = nn.Sequential(body, LatentHead(config.latent_bound))
        _start_(self.networks["encoder"])

    def stages(self) -> tuple[Stage, ...]:
        """Critic and generator for 3/4 of the images, then the encoder with both frozen."""
        model = self.config
        gan, encoder = model.gan_optimizer, model.encoder_optimizer
        return (
            Stage(
                name="gan",
                steps=(
                    Step("critic", ("critic",), self._critic_loss, gan, second_order=True),
                    Step("generator", ("generator",), self._generator_loss, gan, model.n_critic),
                ),
                share=0.75,
                scores=False,
            ),
            Stage(
                name="encoder",
                steps=(Step("encoder", ("encoder",), self._encoder_loss, encoder),),
                share=0.25,
                claims=(
                    "latent_bound",
                    "encoder_norm",
                    "encoder_optimizer",
                    "weights.image",
                    "weights.features_global",
                    "weights.features_pixel",
                ),
            ),
        )

    def evidence(self, images: Tensor, classes: Tensor | None = None) -> Evidence:
        """Reconstruct the images and compare the critic's features of both in one pass."""
        reconstruction = self.draw(self.networks["encoder"](images))
        seen: UNetOutput = self.networks["critic"](torch.cat([images, reconstruction]))
        pairs = {"global": seen.global_features, "pixel": seen.pixel_features}
        count = images.shape[0]
        return Evidence(
            reconstruction=reconstruction,
            features={name: (both[:count], both[count:]) for name, both in pairs.items()},
        )

    def draw(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        """Draw the images of `codes`."""
        images: Tensor = self.networks["generator"](codes)
        return images

    def _critic_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Judge real and fake images in one pass, points between them in another, in float32.

        One pass of all would carry real and fake images through every derivative of the penalties.
        """
        model, real = self.config, batch["normal"]
        with torch.no_grad():
            fake = self.draw(batch.gaussian(model.latent_size))
        judged: UNetOutput = self.networks["critic"](torch.cat([real, fake]))
        whole, pixels = (part.chunk(2) for part in (judged.whole, self._reduced(judged.pixels)))
        terms = {
            "discrimination_global": critic_loss(*whole),
            "discrimination_pixel": critic_loss(*pixels),
        }
        share = batch.uniform()
        with torch.autocast(real.device.type, enabled=False):
            points = points_between(real, fake, share)
            between: UNetOutput = self.networks["critic"](points)
            slopes = {"global": between.whole, "pixel": self._reduced(between.pixels)}
            if model.penalty == "sum":
                slopes = {"sum": slopes["global"] + slopes["pixel"]}
            for name, values in slopes.items():
                terms[f"gradient_penalty_{name}"] = slope_penalty(values, points)
        if model.mix != "none":
            mixed = between
            if model.mix != "mixup":
                share = self._share(batch)
                fade = share if share.dim() > 1 else share.view(-1, 1, 1, 1)
                mixed = self.networks["critic"](torch.lerp(fake.to(real.dtype), real, fade))
            map_real, map_fake = judged.pixels.chunk(2)
            consistency = mixup_consistency(mixed.pixels, map_real, map_fake, share)
            terms["consistency"] = self._warm(batch.progress) * consistency
        return terms

    def _share(self, batch: Batch) -> Tensor:
        """Draw the share of the real image in mixtures of their own: [rows] or [rows, 1, S, S]."""
        if self.config.mix == "cutmix":
            return cutmix_mask(batch, self.image.size)
        return symmetric_beta(batch, self.config.mix_alpha)

    def _warm(self, progress: float) -> float:
        """Give the part of the consistency term that counts yet: linear in the stage's progress."""
        return min(1.0, progress / self.config.warmup) if self.config.warmup else 1.0

    def _reduced(self, maps: Tensor) -> Tensor:
        """Give C_p [B] of maps [B, 1, S, S], in float32 or better."""
        precise = maps.flatten(1).to(torch.promote_types(maps.dtype, torch.float32))
        return precise.sum(1) if self.config.pixel_reduction == "sum" else precise.mean(1)

    def _generator_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        fake = self.draw(batch.gaussian(self.config.latent_size))
        judged: UNetOutput = self.networks["critic"](fake)
        return {
            "adversarial_global": generator_loss(judged.whole),
            "adversarial_pixel": generator_loss(self._reduced(judged.pixels)),
        }

    def _encoder_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        critic, images = self.networks["critic"], batch["normal"]
        reconstruction = self.draw(self.networks["encoder"](images))
        with torch.no_grad():
            wanted: UNetOutput = critic(images)
        found: UNetOutput = critic(reconstruction)
        return {
            "image": squared(images, reconstruction),
            "features_global": squared(wanted.global_features, found.global_features),
            "features_pixel": squared(wanted.pixel_features, found.pixel_features),
        }


def _start_(network: nn.Module, *, free: tuple[str, ...] = (), bound: bool = True) -> None:
    """Orthogonal weights, then spectral norm on all but the `free` layers and those of gates."""
    network.apply(init_orthogonal_)
    if bound:
        gates = {
            f"{name}.{layer}"
            for name, module in network.named_modules()
            if isinstance(module, CBAM)
            for layer, _ in module.named_modules()
        }
        bound_spectrum_(network, skip=gates | set(free))
