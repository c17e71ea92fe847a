"""One look at every image of a part: what a check wants to know, and no pixels kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gan_ray.data.items import Item, each
from gan_ray.data.shortcuts import trivial_features
from gan_ray.data.sketches import sketch
from gan_ray.data.stretched import is_stretched
from gan_ray.errors import DataError


@dataclass(frozen=True)
class Look:
    """What one look at an image tells."""

    item: Item
    shape: tuple[int, ...]
    dtype: str
    digest: str
    """Equal for equal pixels, in whatever file."""
    constant: bool
    stretched: bool
    sketch: np.ndarray
    features: np.ndarray
    """As named by `shortcuts.FEATURES`."""

    @property
    def size(self) -> str:
        """Width and height, e.g. `128x96`."""
        return f"{self.shape[1]}x{self.shape[0]}"


def look_at(items: Sequence[Item]) -> tuple[list[Look], list[DataError]]:
    """Look at every image once; give what was seen and what could not be used, in their order."""

    def look(item: Item) -> Look:
        stored, pixels = item.load()
        digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
        digest.update(np.ascontiguousarray(pixels).data)
        grey = _grey(pixels)
        return Look(
            item,
            pixels.shape,
            str(pixels.dtype),
            digest.hexdigest(),
            constant=bool(pixels.min() == pixels.max()),
            stretched=is_stretched(stored, pixels),
            sketch=sketch(grey),
            features=trivial_features(grey, len(stored)),
        )

    seen = list(each(items, look))
    looks = [one for one in seen if isinstance(one, Look)]
    return looks, [one for one in seen if isinstance(one, DataError)]


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Give pixels [H, W] or [H, W, 3] as the mean of their colours, float32 [H, W] in [0, 1]."""
    top = np.float32(np.iinfo(pixels.dtype).max)
    planes = [pixels] if pixels.ndim == 2 else [pixels[..., channel] for channel in range(3)]
    grey = planes[0].astype(np.float32)
    for plane in planes[1:]:
        grey += plane
    return np.asarray(grey / (len(planes) * top))
