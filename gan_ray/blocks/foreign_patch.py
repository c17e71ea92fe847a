"""Anomalies made of normal images: a square of another image, mixed in."""

from __future__ import annotations

from math import floor
from typing import Annotated

import torch
from torch import Tensor

from gan_ray.config import config
from gan_ray.ranges import Uniform


@config
class ForeignPatchConfig:
    """Where a foreign patch lies, how large it is and how much it covers."""

    core: Annotated[float, Uniform(0.5, 0.9)] = 0.6
    """Share of the image's side in whose middle the patch has its centre, in (0, 1]."""
    max_half_width: Annotated[float, Uniform(0.1, 0.3)] = 0.2
    """Half of the largest patch's side, in image sides; the smallest has a 20th."""
    alpha_min: Annotated[float, Uniform(0.0, 0.5)] = 0.0
    """The foreign share is uniform between this and 1; 1 pastes without blending."""


def foreign_patch_interpolation(
    images: Tensor, donors: Tensor, draws: Tensor, settings: ForeignPatchConfig
) -> Tensor:
    """Give images [B, C, S, S] with one square each of (1 - a) x + a y, y its donor.

    The donor [B, C, S, S] is read at the same place; outside of the square the image stays as it
    is. `draws` [B, 4] in [0, 1) decides on row, column, half-width r and share a of each patch: the
    square has rows [row - r, row + r), and columns alike, as far as they lie in the image.

    Tan et al. 2020, "Detecting outliers with foreign patch interpolation", arXiv:2011.04197, with
    the constants of SAGAN's code: at 64 pixels centres in 12..50, r in 3..12.
    """
    size = images.shape[-1]
    margin = (1 - settings.core) / 2
    first, end = floor(margin * size), floor((1 - margin) * size)
    smallest = max(1, round(0.05 * size))
    widths = max(1, round(settings.max_half_width * size) - smallest)
    row, column = (first + (draws[:, i] * (end - first)).floor() for i in (0, 1))
    radius = smallest + (draws[:, 2] * widths).floor()
    share = settings.alpha_min + (1 - settings.alpha_min) * draws[:, 3]
    places = torch.arange(size, device=images.device)

    def within(centre: Tensor) -> Tensor:
        low, high = (centre - radius)[:, None], (centre + radius)[:, None]
        return (places >= low) & (places < high)

    square = within(row)[:, None, :, None] & within(column)[:, None, None, :]
    return torch.where(square, torch.lerp(images, donors, share.view(-1, 1, 1, 1)), images)
