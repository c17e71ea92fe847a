"""Pseudo-anomalies to select by: held-out normals, each with a square of another one mixed in."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from gan_ray.blocks.foreign_patch import ForeignPatchConfig, foreign_patch_interpolation
from gan_ray.data.sets import Split
from gan_ray.errors import ConfigError
from gan_ray.seeds import derive_seed

_CHUNK = 64


def pseudo_anomalies(normals: Split) -> Split:
    """Give a copy of each image with a foreign patch, in their order; groups and ids are theirs.

    Made by `foreign_patch_interpolation` with its usual settings and rounded to stored pixels. Each
    image is the donor of one other. Donors, places, sizes and shares depend on how many images
    there are and on nothing else: every report, trial and run sees the same copies.

    Raises:
        ConfigError: there is a single image, which has no donor.
    """
    count = len(normals)
    if count < 2:
        raise ConfigError(
            f"pseudo-anomalies need 2 held-out normals to exchange patches, but selection has "
            f"{count}: raise --data.holdout or --train.look, or select by another figure."
        )
    random = np.random.default_rng(derive_seed("pseudo-anomalies"))
    donors = np.empty(count, np.int64)
    order = random.permutation(count)
    donors[order] = np.roll(order, 1)
    draws = torch.from_numpy(random.random((count, 4), dtype=np.float32))
    images = np.empty(normals.images.shape, normals.images.dtype)
    for start in range(0, count, _CHUNK):
        rows = slice(start, start + _CHUNK)
        mixed = foreign_patch_interpolation(
            _floats(normals.images[rows]),
            _floats(normals.images[donors[rows]]),
            draws[rows],
            ForeignPatchConfig(),
        )
        images[rows] = mixed.round().numpy()
    return dataclasses.replace(normals, images=images)


def _floats(stored: np.ndarray) -> Tensor:
    return torch.from_numpy(stored.astype(np.float32))
