"""A page of images of each part of a data set, for a person to look at before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gan_ray.config import DataConfig
from gan_ray.data.items import Item, each
from gan_ray.data.sources import Source, open_source
from gan_ray.errors import DataError
from gan_ray.report import page, pictures

SHOWN = 12
"""Images of a part, or of a kind of abnormality, that are shown; evenly spaced by name."""
LONGEST = 128
"""Pixels of the longer side; larger images are scaled down to it."""


def write_thumbnails(data: DataConfig, out: Path | str, *, with_labels: bool = False) -> Path:
    """Write one self-contained HTML page of images by part; gives its path.

    Test images are told apart only `with_labels`, by kind of abnormality where the source knows
    it. The page holds pixels and no file names; images that cannot be used are left out.

    Raises:
        ConfigError: settings that cannot work.
        DataError: there is nothing to look at.
        StorageError: the page cannot be written.
    """
    shelves = [
        {
            "name": name,
            "images": len(items),
            "shown": [_thumbnail(pixels) for pixels in _some_pixels(items)],
        }
        for name, items in _shelves(open_source(data), with_labels).items()
    ]
    text = page.fill("thumbnails.html", shelves=shelves, with_labels=with_labels, most=SHOWN)
    return page.write(text, out, what="page")


def _shelves(source: Source, with_labels: bool) -> Mapping[str, Sequence[Item]]:
    shelves = {part: list(items) for part, items in source.training().items() if items}
    test = source.test()
    if not with_labels:
        return {**shelves, "test": test} if test else shelves
    labels = source.labels()
    for item, abnormal, kind in zip(test, labels.labels, labels.sublabels, strict=True):
        told = f"test/abnormal, {kind}" if kind != "abnormal" else "test/abnormal"
        shelves.setdefault(told if abnormal else "test/normal", []).append(item)
    return shelves


def _some_pixels(items: Sequence[Item]) -> list[np.ndarray]:
    picks = np.unique(np.linspace(0, len(items) - 1, SHOWN).astype(int))
    loaded = each([items[pick] for pick in picks], lambda item: item.load()[1])
    return [pixels for pixels in loaded if not isinstance(pixels, DataError)]


def _thumbnail(pixels: np.ndarray) -> dict[str, Any]:
    """Give the `data:` address and the size as stored; 16 bits are shown over their full range."""
    if pixels.dtype == np.uint16:
        pixels = np.asarray(pixels >> 8, np.uint8)
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST, LONGEST))
    address = pictures.png(np.asarray(image))
    return {"address": address, "width": pixels.shape[1], "height": pixels.shape[0]}
