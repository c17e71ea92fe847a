"""Positional encodings, one family: each tells a network where on the image a cell lies.

An encoding is built for a `Site` and asked three things, always and by everyone who can use them:
`feature_map`, planes to be concatenated to a map; `rotate`, what becomes of queries and keys before
they are compared; `attention_bias`, what is added to the comparison. The base class answers neutral
to all three and is the encoding `none`; another encoding overrides one hook and is registered in
`ENCODINGS`. Names joined by "+" (`binary+rope`) are combined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gan_ray.errors import ConfigError, unknown


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where an encoding is used: a square map of `side` x `side` cells that covers the image."""

    side: int
    grid: int = 2
    """Cells of a code, along each side: `binary` and `learned` are constant within a cell."""
    channels: int = 16
    """Planes E of `sinusoidal` and `learned`."""
    temperature: float = 100.0
    """Longest period over shortest, roughly, of `sinusoidal`; base of `rope`."""
    heads: int = 1
    """Heads of the attention."""
    head_dim: int = 4
    """Numbers d in the queries and keys of a head."""


class PositionalEncoding(nn.Module):
    """Tells nothing: the encoding `none`, and the base of all others.

    An encoding whose `needs_attention` is True speaks through the hooks of self-attention, all
    others through `feature_map`.
    """

    needs_attention: ClassVar[bool] = False
    channels: int = 0
    """Planes of `feature_map`."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.side = site.side

    def feature_map(self, maps: Tensor) -> Tensor:
        """Give the planes [channels, side, side] of the whole image, typed and placed as `maps`."""
        return maps.new_empty(0, self.side, self.side)

    def rotate(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Turn queries and keys [B, heads, side**2, d], cells in row-major order."""
        return queries, keys

    def attention_bias(self) -> Tensor | None:
        """Give what is added to the scaled scores, [heads, side**2, side**2], or None."""
        return None


class _FixedPlanes(PositionalEncoding):
    """Planes that are drawn once and belong to no checkpoint."""

    planes: Tensor

    def __init__(self, site: Site, planes: Tensor) -> None:
        super().__init__(site)
        self.channels = len(planes)
        self.register_buffer("planes", planes, persistent=False)

    def feature_map(self, maps: Tensor) -> Tensor:
        """Give the planes."""
        return self.planes.to(maps)


class BinaryEncoding(_FixedPlanes):
    """The binary digits of the cell's number row * grid + column, most significant first.

    Zhang et al. 2024 (SAGAN). As many planes as grid**2 has digits, one more than needed where
    grid is a power of two: 000, 001, 010, 011 for grid 2.
    """

    def __init__(self, site: Site) -> None:
        cells = torch.arange(site.grid**2).reshape(site.grid, site.grid)
        digits = torch.arange((site.grid**2).bit_length()).flip(0)
        bits = (cells >> digits[:, None, None]) & 1
        super().__init__(site, _spread(bits.float(), site.side))


class SinusoidalEncoding(_FixedPlanes):
    """[sin(y f_i), cos(y f_i), sin(x f_i), cos(x f_i)], f_i = temperature**(-i / q), q = E / 4.

    Vaswani et al. 2017 along both axes; x and y count cells. Raises ConfigError where 4 does not
    divide E.
    """

    def __init__(self, site: Site) -> None:
        if site.channels % 4:
            raise ConfigError(
                f"the sinusoidal encoding cannot have {site.channels} planes: allowed are "
                "multiples of 4. Set --model.encoding-channels to one, such as 16."
            )
        count = site.channels // 4
        frequencies = site.temperature ** (-torch.arange(count) / count)
        angles = frequencies[:, None] * torch.arange(site.side)
        waves = torch.cat([angles.sin(), angles.cos()])
        shape = (2 * count, site.side, site.side)
        planes = torch.cat([waves[:, :, None].expand(shape), waves[:, None, :].expand(shape)])
        super().__init__(site, planes)


class LearnedEncoding(PositionalEncoding):
    """A learnt vector of E numbers for each cell of the code grid, first N(0, 0.02^2).

    A map that has fewer cells than the grid has one vector for each of its own.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        grid = min(site.grid, site.side)
        self.channels = site.channels
        self.table = nn.Parameter(0.02 * torch.randn(site.channels, grid, grid))

    def feature_map(self, maps: Tensor) -> Tensor:
        """Give the planes."""
        return _spread(self.table, self.side).to(maps)


class RotaryEncoding(PositionalEncoding):
    """Turns the first half of queries and keys by x, the second by y; scores see offsets only.

    RoFormer (Su et al. 2021, arXiv:2104.09864) along two axes, as Heo et al. 2024
    (arXiv:2403.13298): pairs of numbers are turned by x * t_i, t_i = temperature**(-4i / d). No
    parameters. Raises ConfigError where 4 does not divide d.
    """

    needs_attention = True
    cosine: Tensor
    sine: Tensor

    def __init__(self, site: Site) -> None:
        if site.head_dim % 4:
            raise ConfigError(
                f"rope cannot turn heads of {site.head_dim} numbers: allowed are multiples of 4. "
                "Set --model.heads so that it divides twice --model.width."
            )
        super().__init__(site)
        quarter = site.head_dim // 4
        speeds = site.temperature ** (-torch.arange(quarter) / quarter)
        x, y = _coordinates(site.side)
        angles = torch.cat([x[:, None] * speeds, y[:, None] * speeds], 1)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def rotate(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Turn each by its place."""
        return self._turn(queries), self._turn(keys)

    def _turn(self, vectors: Tensor) -> Tensor:
        first, second = vectors[..., 0::2], vectors[..., 1::2]
        turned = (
            first * self.cosine - second * self.sine,
            first * self.sine + second * self.cosine,
        )
        return torch.stack(turned, -1).flatten(-2).to(vectors)


class LinearBiasEncoding(PositionalEncoding):
    """ALiBi: -m_h (|dx| + |dy|) in cells, m_h falling geometrically from head to head.

    Press et al. 2022, arXiv:2108.12409, with the distance along streets; no parameters.
    """

    needs_attention = True
    bias: Tensor

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        x, y = _coordinates(site.side)
        distances = (x[:, None] - x).abs() + (y[:, None] - y).abs()
        slopes = torch.tensor(_alibi_slopes(site.heads))
        self.register_buffer("bias", -slopes[:, None, None] * distances, persistent=False)

    def attention_bias(self) -> Tensor | None:
        """Give the bias of each pair of places."""
        return self.bias


class RelativeBiasEncoding(PositionalEncoding):
    """A learnt bias for each offset (dx, dy) and head, first truncated normal of deviation 0.02.

    Liu et al. 2021 (Swin), arXiv:2103.14030, section 3.2.
    """

    needs_attention = True
    index: Tensor

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        span = 2 * site.side - 1
        self.table = nn.Parameter(torch.empty(site.heads, span**2))
        nn.init.trunc_normal_(self.table, std=0.02)
        x, y = (axis.long() for axis in _coordinates(site.side))
        rows, columns = (axis[:, None] - axis + site.side - 1 for axis in (y, x))
        self.register_buffer("index", rows * span + columns, persistent=False)

    def attention_bias(self) -> Tensor | None:
        """Give the bias of each pair of places."""
        return self.table[:, self.index]


class CombinedEncoding(PositionalEncoding):
    """Several encodings at once: planes side by side, rotations in turn, biases added."""

    def __init__(self, site: Site, parts: Sequence[type[PositionalEncoding]]) -> None:
        super().__init__(site)
        self.parts = nn.ModuleList(part(site) for part in parts)
        self.channels = sum(part.channels for part in self._parts)

    @property
    def _parts(self) -> list[PositionalEncoding]:
        return cast("list[PositionalEncoding]", list(self.parts))

    def feature_map(self, maps: Tensor) -> Tensor:
        """Give the planes."""
        return torch.cat([part.feature_map(maps) for part in self._parts])

    def rotate(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Turn each by its place."""
        for part in self._parts:
            queries, keys = part.rotate(queries, keys)
        return queries, keys

    def attention_bias(self) -> Tensor | None:
        """Give the bias of each pair of places."""
        biases = [bias for part in self._parts if (bias := part.attention_bias()) is not None]
        return torch.stack(biases).sum(0) if biases else None


ENCODINGS: dict[str, type[PositionalEncoding]] = {
    "none": PositionalEncoding,
    "binary": BinaryEncoding,
    "sinusoidal": SinusoidalEncoding,
    "learned": LearnedEncoding,
    "rope": RotaryEncoding,
    "alibi": LinearBiasEncoding,
    "relative_bias": RelativeBiasEncoding,
}


def encoding_parts(name: str) -> tuple[type[PositionalEncoding], ...]:
    """Give the classes of an encoding by its name, or of several joined by "+".

    Raises:
        ConfigError: a name is unknown.
    """
    parts = name.split("+")
    for part in parts:
        if part not in ENCODINGS:
            raise ConfigError(
                unknown("positional encoding", part, ENCODINGS)
                + " Set --model.encoding to one, or to several joined by +."
            )
    return tuple(ENCODINGS[part] for part in parts)


def make_encoding(name: str, site: Site, *, attention: bool = False) -> PositionalEncoding:
    """Build what the encoding `name` says at a site: to attention, or else by planes.

    The other parts of a combination are left out, so that no parameter is without effect; `none`
    where nothing remains.

    Raises:
        ConfigError: a name is unknown, or an encoding does not fit its site.
    """
    parts = [part for part in encoding_parts(name) if part.needs_attention == attention]
    if len(parts) > 1:
        return CombinedEncoding(site, parts)
    return (parts or [PositionalEncoding])[0](site)


def _spread(codes: Tensor, side: int) -> Tensor:
    """Repeat codes [E, grid, grid] over the cells [E, side, side] of a map."""
    return interpolate(codes[None], (side, side), mode="nearest-exact")[0]


def _coordinates(side: int) -> tuple[Tensor, Tensor]:
    """Give x and y [side**2] of the cells in row-major order."""
    rows, columns = torch.meshgrid(*2 * [torch.arange(side).float()], indexing="ij")
    return columns.flatten(), rows.flatten()


def _alibi_slopes(heads: int) -> list[float]:
    """Give 2**(-8h / heads), h from 1; for other than powers of two as the authors' code does."""
    whole = 1 << int(log2(heads))
    slopes = [2.0 ** (-8 * h / whole) for h in range(1, whole + 1)]
    between = [2.0 ** (-4 * h / whole) for h in range(1, 2 * whole, 2)]
    return slopes + between[: heads - whole]
