"""SAGAN: translation to health that knows where on the body it is; and its positional encodings.

Zhang et al., "Spatial-aware attention generative adversarial network for semi-supervised anomaly
detection in medical image", MICCAI 2024, arXiv:2405.12872. To the critic and the residual link of
Brainomaly it adds positional codes on patches of the image, attention gates on the skips of the
generator, and normal images n with a foreign patch, p(n), that the generator must undo:

    h(x)        = tanh(x + G(x))
    identity      mean |n - h(n)|,  lambda_id = 1
    restoration   mean (n - h(p(n)))^2
    score         mean |x - h(x)| / 2

and the critic's terms of `_translation`. The variants `custom_*` are those of the thesis "Medical
anomaly detection using GAN with self attention mechanism" (IUT 2025): other positional encodings,
through planes or through self-attention at the bottleneck, or a Swin transformer as the generator.
The variants `control_*` have everything but the encoding.

Deviation: no norm follows the codes (`condition_norm`). In the public code instance norm takes them
away: its output does not depend on them. Variant `reference` has it, and everything else as there.

Deviation: a patch's donor is the neighbour in the batch, not a drawn image. Batches are cut from
random permutations of the normal images, so that is a random other one; it may be the image itself
only where two epochs meet. N ranks see what one sees if each has an even number of rows.

Deviation: instance normalisation keeps no running statistics, as in Brainomaly; normal and
unlabeled images are drawn independently.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gan_ray.architectures._translation import TranslationConfig, TranslationWeights, Translator
from gan_ray.blocks.encodings import PositionalEncoding, Site, encoding_parts, make_encoding
from gan_ray.blocks.foreign_patch import ForeignPatchConfig, foreign_patch_interpolation
from gan_ray.blocks.links import RESIDUAL_LINKS, ResidualLink
from gan_ray.blocks.self_attention import SelfAttention2d
from gan_ray.blocks.spatial_attention import ConditionNorm, SpatialAttentionGenerator
from gan_ray.blocks.swin import SwinGenerator
from gan_ray.config import Optimizer, config
from gan_ray.detector import Batch, ImageSpec
from gan_ray.errors import ConfigError
from gan_ray.losses.reconstruction import absolute, squared
from gan_ray.ranges import Choice, IntRange, LogUniform, Uniform, When


@config
class Weights(TranslationWeights):
    """Weights of the loss terms."""

    restoration: Annotated[float, LogUniform(0.1, 100.0)] = 1.0
    """Mean square between a normal image and what is made of it with a foreign patch."""


@config
class SwinConfig:
    """Shape of the Swin generator."""

    embed: Annotated[int, Choice(48, 96)] = 96
    """Channels of the first stage; each further one doubles them."""
    depth: Annotated[int, Choice(2, 4, 6)] = 2
    """Blocks of each stage."""
    window: Annotated[int, Choice(4, 8)] = 4
    """Side of the attention's windows, in cells."""
    patch: int = 2
    """Pixels of the image along each side of a cell."""
    drop_path: Annotated[float, Uniform(0.0, 0.3)] = 0.1
    """Share of the residual branches that a training pass leaves out."""


_ATTENDED = When(encoding=("rope", "alibi", "relative_bias"), attention=True)


@config
class SAGANConfig(TranslationConfig):
    """Settings of SAGAN."""

    backbone: Literal["spatial_attention", "swin"] = "spatial_attention"
    """The generator: that of SAGAN, or a Swin transformer, which has its own encoding."""
    swin: Annotated[SwinConfig, When(backbone="swin")] = SwinConfig()
    """Shape of the Swin generator, where it is the backbone."""
    residual_blocks: Annotated[int, IntRange(2, 9), When(backbone="spatial_attention")] = 6
    """Residual blocks of the generator."""
    residual_link: Annotated[ResidualLink, Choice("tanh_sum", "logit_sum")] = "tanh_sum"
    """tanh_sum, as published, or logit_sum, which leaves the image alone where the map is 0."""
    patch_grid: Annotated[int, Choice(1, 2), When(backbone="spatial_attention")] = 2
    """Patches along each side that the generator sees apart from each other; 1 is no cut."""
    encoding: Annotated[
        str,
        Choice("none", "binary", "sinusoidal", "learned", "rope", "alibi", "relative_bias"),
        When(backbone="spatial_attention"),
    ] = "binary"
    """Positional encoding, or several joined by +: none, binary (SAGAN), sinusoidal, learned; by
    self-attention: rope, alibi, relative_bias."""
    code_grid: Annotated[int, Choice(2, 4, 8, 16), When(encoding=("binary", "learned"))] = 2
    """Cells along each side of binary and learned codes."""
    encoding_channels: Annotated[
        int, Choice(4, 8, 16, 32, 64), When(encoding=("sinusoidal", "learned"))
    ] = 16
    """Planes E of sinusoidal and learned codes."""
    temperature: Annotated[
        float, LogUniform(10.0, 10_000.0), When(encoding=("sinusoidal", "rope"))
    ] = 100.0
    """Base of the frequencies of sinusoidal and rope."""
    condition_norm: Annotated[
        ConditionNorm, Choice("none", "instance"), When(backbone="spatial_attention")
    ] = "none"
    """Norm behind the codes: none, or instance as published, which makes binary and learned codes
    without effect."""
    critic_encoding: Annotated[
        bool, Choice(False, True), When(encoding=("binary", "sinusoidal", "learned"))
    ] = False
    """The critic sees the planes of the encoding, where it has some."""
    attention: bool = False
    """Self-attention at the bottleneck even where the encoding does not need it (a control)."""
    attention_position: Annotated[
        Literal["start", "middle", "end"], Choice("start", "middle", "end"), _ATTENDED
    ] = "middle"
    """Where among the residual blocks self-attention stands, where there is any."""
    attention_dropout: Annotated[float, Uniform(0.0, 0.2), _ATTENDED] = 0.0
    """Share of the attention's answers that a training pass leaves out."""
    heads: Annotated[int, Choice(2, 4, 8, 16), _ATTENDED] = 8
    """Heads of self-attention; they divide 8 * width."""
    gate_norm: Annotated[bool, Choice(True, False), When(backbone="spatial_attention")] = True
    """Instance norm of a gate's logits, as published: no gate is ever wholly open or closed."""
    output_dropout: Annotated[float, Uniform(0.0, 0.1)] = 0.0
    """Share of the pixels of G(x) that a training pass replaces by x; published 0.05."""
    pseudo: ForeignPatchConfig = ForeignPatchConfig()
    """Foreign patches that the generator learns to undo."""
    critic_optimizer: Optimizer = Optimizer(lr=5e-5)
    """Optimiser of the critic."""
    generator_optimizer: Optimizer = Optimizer(lr=5e-5)
    """Optimiser of the generator."""
    weights: Weights = Weights()
    """Weights of the loss terms."""


def _thesis(**model: Any) -> dict[str, Any]:
    return {"model": {"condition_norm": "none", "output_dropout": 0.0, "patch_grid": 2, **model}}


class SAGAN(Translator):
    """A position-aware generator of an additive map against the translation critic."""

    name = "sagan"
    title = "SAGAN: position-aware translation with attention gates (Zhang et al. 2024)"
    Config = SAGANConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "model": {
                "width": 4,
                "residual_blocks": 2,
                "heads": 4,
                # Instance norm of the 2x2 maps that patches leave at 32 pixels magnifies rounding.
                "patch_grid": 1,
                "critic": {"width": 4, "max_width": 256},
                "swin": {"embed": 24},
            },
            "data": {"image_size": 32},
            "train": {"images": 64, "batch_size": 8},
        },
        "default": {},
        # 100,000 critic steps.
        "reference": {"train": {"images": 3_200_000, "batch_size": 32}},
    }
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": {
            "model": {"patch_grid": 2, "condition_norm": "instance", "output_dropout": 0.05}
        },
        "custom_sinusoidal": _thesis(encoding="sinusoidal", critic_encoding=True),
        "custom_learned": _thesis(encoding="learned", critic_encoding=True),
        "custom_rope": _thesis(encoding="rope", patch_grid=1, attention_position="start"),
        "custom_alibi": _thesis(encoding="alibi", patch_grid=1, attention_position="start"),
        "custom_attention_bias": _thesis(encoding="relative_bias", patch_grid=1),
        "custom_swin": _thesis(encoding="none", patch_grid=1, backbone="swin"),
        "control_patches": _thesis(encoding="none"),
        "control_whole": _thesis(encoding="none", patch_grid=1),
        "control_attention": _thesis(encoding="none", patch_grid=1, attention=True),
    }

    config: SAGANConfig

    def __init__(self, config: SAGANConfig, image: ImageSpec) -> None:
        """Build the generator and the critic, in torch's default initialisation.

        Raises:
            ConfigError: image size, patches, heads or encoding do not go together.
        """
        position = partial(_position, config)
        critic_position = position(image.size) if config.critic_encoding else None
        super().__init__(config, image, position=critic_position)
        self.networks["generator"] = _BACKBONES[config.backbone](config, image)

    def _healthy(self, images: Tensor) -> Tensor:
        """Give h(x); in train mode without some of the pixels of G(x) (`output_dropout`)."""
        generator, dropped = self.networks["generator"], self.config.output_dropout
        raw = generator(images)
        if generator.training and dropped:
            raw = torch.where(torch.rand_like(raw[:, :1]) < dropped, images, raw)
        return RESIDUAL_LINKS[self.config.residual_link](images, raw)

    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Fool the critic with unlabeled images, leave normal ones alone, undo foreign patches."""
        normal = batch["normal"]
        donors = normal[_neighbours(batch.rows, normal.device)]
        pseudo = foreign_patch_interpolation(normal, donors, batch.uniform(4), self.config.pseudo)
        # Norms see one image at a time, so one pass for all is the same as three.
        translated = self._healthy(torch.cat((batch["unlabeled"], normal, pseudo)))
        of_unlabeled, of_normal, of_pseudo = translated.chunk(3)
        return {
            "adversarial": self._adversarial(of_unlabeled),
            "identity": absolute(normal, of_normal),
            "restoration": squared(normal, of_pseudo),
        }


def _position(config: SAGANConfig, side: int, *, attention: bool = False) -> PositionalEncoding:
    """Build the encoding of the whole image on a map of a side, by planes or for attention."""
    site = Site(
        side=side,
        grid=config.code_grid,
        channels=config.encoding_channels,
        temperature=config.temperature,
        heads=config.heads,
        head_dim=8 * config.width // config.heads,
    )
    return make_encoding(config.encoding, site, attention=attention)


def _spatial_attention(config: SAGANConfig, image: ImageSpec) -> nn.Module:
    grid, width = config.patch_grid, 8 * config.width
    if image.size % (8 * grid) or image.size < 16 * grid:
        raise ConfigError(
            f"images of {image.size} pixels in {grid} x {grid} patches do not halve three times to "
            f"maps of more than one pixel: allowed are multiples of {8 * grid} from {16 * grid} "
            "on. Set --data.image-size to one, or a smaller --model.patch-grid."
        )
    attention = None
    if config.attention or any(part.needs_attention for part in encoding_parts(config.encoding)):
        attention = SelfAttention2d(
            width,
            config.heads,
            _position(config, image.size // 8, attention=True),
            grid=grid,
            dropout=config.attention_dropout,
        )
    after = {"start": 0, "middle": config.residual_blocks // 2, "end": config.residual_blocks}
    return SpatialAttentionGenerator(
        image.channels,
        image.size,
        width=config.width,
        blocks=config.residual_blocks,
        grid=grid,
        position=partial(_position, config),
        condition_norm=config.condition_norm,
        gate_norm=config.gate_norm,
        attention=attention,
        attention_after=after[config.attention_position],
    )


def _neighbours(rows: int, device: torch.device) -> Tensor:
    """Pair the rows of a batch: each is the other's donor; a last odd one takes the first."""
    if rows < 2:
        raise ConfigError(
            "one image alone has no donor for its foreign patch: a worker's part of the batch must "
            "have two images or more. Set a larger --train.batch-size or a smaller "
            "--train.accumulate."
        )
    return (torch.arange(rows, device=device) ^ 1) % rows


def _swin(config: SAGANConfig, image: ImageSpec) -> nn.Module:
    if config.encoding != "none" and not config.critic_encoding:
        raise ConfigError(
            f"the Swin generator has its own positions and no use for encoding '{config.encoding}'."
            " Set --model.encoding none, or show the encoding to the critic by "
            "--model.critic-encoding."
        )
    swin = config.swin
    return SwinGenerator(
        image.channels,
        image.size,
        embed=swin.embed,
        depth=swin.depth,
        window=swin.window,
        patch=swin.patch,
        drop_path=swin.drop_path,
    )


_BACKBONES = {"spatial_attention": _spatial_attention, "swin": _swin}
