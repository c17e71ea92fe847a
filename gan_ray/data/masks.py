"""Masks of abnormal images: where the abnormality is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gan_ray.data.items import Item, each, summary
from gan_ray.data.transforms import prepare
from gan_ray.detector import ImageSpec
from gan_ray.errors import DataError


def load_masks(items: Sequence[Item | None], size: int, fit: str) -> np.ndarray:
    """Give masks as [N, S0, S0] uint8, 1 where abnormal; all zeros where there is no item.

    S0 is the stored size when all masks are squares of one size. Otherwise each is brought to
    `size` as its image is, a pixel being abnormal when at least half of it was.

    Raises:
        DataError: masks that cannot be read; names them.
    """
    present = [item for item in items if item is not None]
    seen = list(each(present, lambda item: binary(item.load()[1])))
    faults = [str(mask) for mask in seen if isinstance(mask, DataError)]
    if faults:
        raise DataError(summary(faults, len(present)))
    masks = [mask for mask in seen if not isinstance(mask, DataError)]
    shapes = {mask.shape for mask in masks}
    if len(shapes) != 1 or len(set(*shapes)) != 1:
        image = ImageSpec(size=size, channels=1)
        masks = [
            (prepare(mask * np.uint8(255), image, fit)[0] > 127).astype(np.uint8) for mask in masks
        ]
    side = masks[0].shape[0] if masks else size
    rows = np.zeros((len(items), side, side), dtype=np.uint8)
    marked = [index for index, item in enumerate(items) if item is not None]
    for index, mask in zip(marked, masks, strict=True):
        rows[index] = mask
    return rows


def binary(pixels: np.ndarray) -> np.ndarray:
    """Give a mask [H, W] of 0 and 1 from decoded pixels: 1 above half of the brightest value.

    So 0/1, 0/255 and 16-bit masks mean the same, and the noise of a JPEG does not count.
    """
    values = pixels.max(axis=2) if pixels.ndim == 3 else pixels
    return np.asarray(values > values.max() / 2, dtype=np.uint8)
