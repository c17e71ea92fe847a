"""RA-CCGAN: a light class-conditional WGAN-GP and a class-conditional encoder trained on it.

"Unifying class-conditional GAN framework for unsupervised pulmonary anomalies detection", after
the fragments in `nnajeh/RA-CGAN`: networks of BigGAN's kind (Brock et al. 2019, arXiv:1809.11096)
with depthwise separable convolutions. y is the class of a *normal* image, z ~ N(0, 1) is cut into
one chunk for the root and one for each block, f is the critic's last map, n_f long:

    critic     L_C = mean D(G(z, y), y) - mean D(x, y)
                     + lambda_gp mean (||grad D(x~, y)|| - 1)^2
    generator  L_G = -mean D(G(z, y), y)
    encoder    L_E = A(x|y), the mean over images
    score      A(x|y) = ||x - x_hat||^2 / n + kappa ||f(x) - f(x_hat)||^2 / n_f
               x_hat = G(E(x, y), y)

The class of an image to be scored follows from `label_policy`: the one that explains it best
(`min`), the one the critic prefers (`predict`), or one given from outside (`known`). No anomaly
label can leak: the classes are kinds of normal training images, there is none for the abnormal, and
`min` and `predict` see pixels only. `known` is for a class that is known of every image before it
is judged, such as the type of a product, never for a folder that is the answer.

No encoder training, score or attention was published; these are ours (docs/systems/ra-ccgan.md).

Deviation: pixels enter the critic's first convolution as they are; published are a norm and a ReLU
before it, and two ReLUs in a row in later blocks. Deviation: depthwise kernels are not orthogonal
at first (`init_orthogonal_`). What else differs from the public code is a setting, and the variant
`published` sets it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from gan_ray.blocks.biggan import ConditionalBlockUp, Descent
from gan_ray.blocks.conditional import ConditionalHead, Conditioning, ProjectionHead
from gan_ray.blocks.init import init_orthogonal_
from gan_ray.blocks.plan import ResolutionPlan
from gan_ray.blocks.separable import Convolution
from gan_ray.blocks.spectral import bound_spectrum_
from gan_ray.config import Optimizer, Positive, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Latent, Stage, Step
from gan_ray.errors import ConfigError
from gan_ray.losses.adversarial import critic_loss, generator_loss
from gan_ray.losses.penalties import gradient_penalty
from gan_ray.losses.reconstruction import squared
from gan_ray.ranges import Choice, LogUniform

Attention = Literal["none", "generator", "critic", "all"]


@config
class Weights:
    """Weights of the loss terms."""

    discrimination: float = 1.0
    """Critic: Wasserstein estimate."""
    gradient_penalty: Annotated[float, LogUniform(1.0, 50.0)] = 10.0
    """Critic: lambda_gp of WGAN-GP."""
    adversarial: float = 1.0
    """Generator: judged real."""
    image: float = 1.0
    """Encoder: mean square between image and reconstruction."""
    features: Annotated[float, LogUniform(1e-2, 1e2)] = 1.0
    """Encoder: kappa, mean square between their critic features; label_policy min weighs them so
    too."""


@config
class RACCGANConfig:
    """Settings of RA-CCGAN."""

    width: Annotated[Positive, Choice(32, 64, 96)] = 96
    """Channels at full resolution; up to 16 times as many at the lowest."""
    z_chunk: Annotated[Positive, Choice(8, 16, 20, 32)] = 20
    """Numbers of the latent code for the root and for each block; the code is all of them."""
    class_size: Annotated[Positive, Choice(32, 64, 128)] = 128
    """Numbers that stand for a class, in the generator and (concat, film) in the encoder."""
    convolution: Annotated[Convolution, Choice("separable", "dense")] = "separable"
    """separable (depthwise, then pointwise) or dense, which has up to 30 times the weights."""
    generator_kernel: Annotated[Literal[3, 5, 7], Choice(3, 5, 7)] = 7
    """Side of the generator's kernels."""
    critic_kernel: Annotated[Literal[3, 5], Choice(3, 5)] = 3
    """Side of the critic's and the encoder's kernels."""
    last_kernel: Literal[1, 3] = 3
    """Side of the generator's last kernel; published are 1 (128 pixels) and 3 (32 pixels)."""
    attention: Annotated[Attention, Choice("none", "generator", "critic", "all")] = "all"
    """Where CBAM follows the last two blocks: nowhere, in one network, or in all three."""
    norm: Literal["none", "layer", "plain_instance"] = "layer"
    """Of critic and encoder; published is plain_instance, which hides contrast."""
    inner_affine: bool = False
    """Published: the conditional batch norm has a scale and a shift without class besides."""
    conditioning: Annotated[Conditioning, Choice("concat", "film", "projection_scalar")] = "concat"
    """How the encoder sees the class: beside the last map, by scaling and shifting its channels, or
    as one number added to all coordinates of the code (published)."""
    critic_pool: Literal["sum", "flatten"] = "sum"
    """What the critic's head sees of the last map; published are sum (128 pixels), flatten (32)."""
    features: Literal["spatial", "pooled"] = "spatial"
    """Critic features of score and encoder: the last map, or its mean over places."""
    label_policy: Literal["min", "predict", "known"] = "min"
    """Class of a scored image: min (the best explanation), predict (by the critic), known."""
    n_critic: Annotated[Positive, Choice(1, 2, 5)] = 1
    """Critic steps for each generator step."""
    weights: Weights = Weights()
    """Weights of the loss terms."""
    generator_optimizer: Optimizer = Optimizer(lr=1e-4, betas=(0.0, 0.999), eps=1e-6)
    """Of the generator."""
    critic_optimizer: Optimizer = Optimizer(lr=4e-4, betas=(0.0, 0.999), eps=1e-6)
    """Of the critic, four times as fast."""
    encoder_optimizer: Optimizer = Optimizer(lr=1e-4, betas=(0.9, 0.999))
    """Of the encoder."""


def _channels(image: ImageSpec, width: int) -> tuple[int, ...]:
    """Channels from full resolution down to the root: 1, 2, 4, 8, 16, 16 times width at 128."""
    plan = ResolutionPlan(image.size)
    return plan.channels(width, min(16, max(4, 1 << (plan.stages - 1))))


class Generator(nn.Module):
    """Codes [B, d] and classes [B] to images [B, C, S, S] in (-1, 1)."""

    def __init__(self, image: ImageSpec, model: RACCGANConfig) -> None:
        super().__init__()
        root, channels = ResolutionPlan(image.size).root, _channels(image, model.width)[::-1]
        self.chunk = model.z_chunk
        self.embedding = nn.Embedding(image.classes, model.class_size)
        self.stem = nn.Linear(self.chunk, channels[0] * root**2)
        self.unflatten = nn.Unflatten(1, (channels[0], root, root))
        attention = model.attention in ("generator", "all")
        self.blocks = nn.ModuleList(
            ConditionalBlockUp(
                i,
                o,
                condition=model.class_size + self.chunk,
                kind=model.convolution,
                kernel=model.generator_kernel,
                affine=model.inner_affine,
                attention=attention and place >= len(channels) - 3,
            )
            for place, (i, o) in enumerate(pairwise(channels))
        )
        self.norm = nn.BatchNorm2d(model.width)
        kernel = model.last_kernel
        self.head = nn.Conv2d(model.width, image.channels, kernel, padding=kernel // 2)
        self.apply(init_orthogonal_)
        for block in cast(list[ConditionalBlockUp], list(self.blocks)):
            for bounded in (block.norm_in, block.norm_out, block.shortcut):
                bound_spectrum_(bounded)
        bound_spectrum_(self.head)

    def forward(self, codes: Tensor, classes: Tensor) -> Tensor:
        """Draw the images of `codes` and `classes`."""
        kind = self.embedding(classes)
        first, *chunks = torch.split(codes, self.chunk, 1)
        maps = self.unflatten(self.stem(first))
        for block, chunk in zip(self.blocks, chunks, strict=True):
            maps = block(maps, torch.cat([kind, chunk], 1))
        return torch.tanh(self.head(relu(self.norm(maps))))


class Critic(nn.Module):
    """Images [B, C, S, S] and classes [B] to judgements [B], through `maps`."""

    def __init__(self, image: ImageSpec, model: RACCGANConfig) -> None:
        super().__init__()
        plan, channels = ResolutionPlan(image.size), _channels(image, model.width)
        self.blocks = Descent(
            (image.channels, *channels),
            halvings=plan.stages,
            kind=model.convolution,
            kernel=model.critic_kernel,
            norm=model.norm,
            attention=model.attention in ("critic", "all"),
            raw=True,
        )
        self.flat = model.critic_pool == "flatten"
        size = channels[-1] * (plan.root**2 if self.flat else 1)
        self.head = ProjectionHead(size, image.classes)
        self.apply(init_orthogonal_)
        bound_spectrum_(self.head)

    def maps(self, images: Tensor) -> Tensor:
        """Give the last map of each image; it knows no class."""
        return relu(self.blocks(images))

    def judge(self, maps: Tensor, classes: Tensor) -> Tensor:
        """Judge images by their last maps as images of `classes`."""
        judgement: Tensor = self.head(maps.flatten(1) if self.flat else maps.sum((2, 3)), classes)
        return judgement

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        """Judge `images` as images of `classes`."""
        return self.judge(self.maps(images), classes)


class Encoder(nn.Module):
    """Images [B, C, S, S] and classes [B] to codes [B, d] in (-1, 1), through `maps`."""

    def __init__(self, image: ImageSpec, model: RACCGANConfig, *, latent_size: int) -> None:
        super().__init__()
        plan, channels = ResolutionPlan(image.size), _channels(image, model.width)
        self.stem = nn.Conv2d(image.channels, model.width, 3, padding=1)
        self.blocks = Descent(
            channels,
            halvings=plan.stages,
            kind=model.convolution,
            kernel=model.critic_kernel,
            norm=model.norm,
            attention=model.attention == "all",
        )
        self.head = ConditionalHead(
            channels[-1],
            plan.root,
            latent_size,
            classes=image.classes,
            class_size=model.class_size,
            conditioning=model.conditioning,
        )
        self.apply(init_orthogonal_)
        if model.conditioning == "projection_scalar":
            bound_spectrum_(self.head.embedding)

    def maps(self, images: Tensor) -> Tensor:
        """Give the last map of each image; it knows no class."""
        maps: Tensor = self.blocks(self.stem(images))
        return maps

    def code(self, maps: Tensor, classes: Tensor) -> Tensor:
        """Find the codes of images by their last maps as images of `classes`."""
        return torch.tanh(self.head(maps, classes))

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        """Find the codes of `images` as images of `classes`."""
        return self.code(self.maps(images), classes)


class RACCGAN(Detector):
    """RA-CCGAN: networks `generator`, `critic`, `encoder`; stages `gan`, then `encoder`."""

    name = "ra-ccgan"
    title = "RA-CCGAN: class-conditional WGAN-GP with separable convolutions and an encoder"
    Config = RACCGANConfig
    streams = ("normal", "class")
    score = "residual_features"
    offers = frozenset({"reconstruction", "features.critic"})
    infers = ("generator", "critic", "encoder")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model": {"width": 4, "z_chunk": 4, "class_size": 8},
            "data": {"image_size": 16, "classes": "kmeans", "class_count": 3},
            "train": {"batch_size": 8},
        },
        "default": {"model": {"width": 16}},
        # 0.5 * 2,560,000 images are 40,000 steps of 32 in each stage.
        "reference": {
            "data": {"image_size": 128, "channels": 3},
            "train": {"images": 2_560_000},
        },
    }
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {
            "model": {
                "attention": "none",
                "norm": "plain_instance",
                "inner_affine": True,
                "conditioning": "projection_scalar",
                "last_kernel": 1,
            }
        }
    }

    config: RACCGANConfig

    def __init__(self, config: RACCGANConfig, image: ImageSpec) -> None:
        """Build the networks, the encoder last: what it is like does not change the other two."""
        super().__init__(config, image)
        size = config.z_chunk * (ResolutionPlan(image.size).stages + 1)
        self.latent = Latent(size, "normal")
        self.networks["generator"] = Generator(image, config)
        self.networks["critic"] = Critic(image, config)
        self.networks["encoder"] = Encoder(image, config, latent_size=size)
        self.conditional = config.label_policy == "known"
        self.passes_per_image = 2 + 2 * (image.classes if config.label_policy == "min" else 1)

    def stages(self) -> tuple[Stage, ...]:
        """Train the GAN, then the encoder on the frozen GAN, for equally many images."""
        model = self.config
        slow, fast = model.generator_optimizer, model.critic_optimizer
        critic = Step("critic", ("critic",), self._critic_loss, fast, second_order=True)
        generator = Step("generator", ("generator",), self._generator_loss, slow, model.n_critic)
        encoder = Step("encoder", ("encoder",), self._encoder_loss, model.encoder_optimizer)
        return (
            Stage("gan", (critic, generator), share=0.5, scores=False),
            Stage(
                "encoder",
                (encoder,),
                share=0.5,
                claims=(
                    "conditioning",
                    "features",
                    "label_policy",
                    "encoder_optimizer",
                    "weights.image",
                    "weights.features",
                ),
            ),
        )

    def evidence(self, images: Tensor, classes: Tensor | None = None) -> Evidence:
        """Reconstruct each image as one of its class, which follows from `label_policy`.

        min: argmin over classes of A(x|y), kappa being `weights.features`; predict: argmax of
        D(x, y). Critic and encoder see each image once; every class that is tried costs a pass of
        the generator and one of the critic over the batch, one class after the other.

        Raises:
            ConfigError: the policy is `known` and no classes are given.
        """
        critic, encoder = self._critic, cast(Encoder, self.networks["encoder"])
        judged, seen = critic.maps(images), encoder.maps(images)
        every = torch.arange(self.image.classes, device=images.device)[:, None]
        every = every.expand(-1, images.shape[0])
        match self.config.label_policy:
            case "min":
                tried = every
            case "predict":
                tried = torch.stack([critic.judge(judged, kind) for kind in every]).argmax(0)[None]
            case "known":
                if classes is None:
                    raise ConfigError(
                        f"{self.name} with model.label_policy=known scores an image of a known "
                        "class, but no classes were given. Use data whose classes are known of "
                        "every image (--data.classes source), or label_policy min or predict."
                    )
                tried = classes[None]
        wanted = self._features(judged)
        reconstructions = [self.networks["generator"](encoder.code(seen, c), c) for c in tried]
        features = [self._features(critic.maps(image)) for image in reconstructions]
        distances = [
            (images - image).square().flatten(1).mean(1)
            + self.config.weights.features * (wanted - found).square().mean(1)
            for image, found in zip(reconstructions, features, strict=True)
        ]
        best, rows = torch.stack(distances).argmin(0), torch.arange(images.shape[0])
        return Evidence(
            reconstruction=torch.stack(reconstructions)[best, rows],
            features={"critic": (wanted, torch.stack(features)[best, rows])},
        )

    def draw(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        """Draw the images of codes [B, d], of class 0 where none are given."""
        if classes is None:
            classes = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
        images: Tensor = self.networks["generator"](codes, classes)
        return images

    def _critic_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        critic, real, classes = self._critic, batch["normal"], batch["class"]
        with torch.no_grad():
            fake = self._drawn(batch)
        judged = critic(torch.cat([real, fake]), classes.repeat(2))
        return {
            "discrimination": critic_loss(*judged.chunk(2)),
            "gradient_penalty": gradient_penalty(
                lambda images: critic(images, classes), real, fake, batch.uniform()
            ),
        }

    def _generator_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"adversarial": generator_loss(self._critic(self._drawn(batch), batch["class"]))}

    def _encoder_loss(self, batch: Batch) -> Mapping[str, Tensor]:
        images, classes = batch["normal"], batch["class"]
        code = self.networks["encoder"](images, classes)
        reconstruction = self.networks["generator"](code, classes)
        with torch.no_grad():
            wanted = self._features(self._critic.maps(images))
        found = self._features(self._critic.maps(reconstruction))
        return {"image": squared(images, reconstruction), "features": squared(wanted, found)}

    def _drawn(self, batch: Batch) -> Tensor:
        """Images from the prior, of the classes of the batch."""
        assert self.latent is not None
        codes = batch.gaussian(self.latent.size)
        images: Tensor = self.networks["generator"](codes, batch["class"])
        return images

    def _features(self, maps: Tensor) -> Tensor:
        """Features [B, n_f] of the critic's last maps."""
        return maps.mean((2, 3)) if self.config.features == "pooled" else maps.flatten(1)

    @property
    def _critic(self) -> Critic:
        return cast(Critic, self.networks["critic"])
