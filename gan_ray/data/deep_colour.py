"""16-bit colour through Pillow, which keeps 8 bits of it: decoded twice, for the upper and lower.

Pillow unpacks a sample of two bytes into its upper one. Told that the file has the other byte
order, it gives the lower one: same decoder, same limits, and every bit of the file.
"""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

_RAW_MODE = re.compile(r"(RGB)([AaX]?);16([BLN])")
_NATIVE = "L" if sys.byteorder == "little" else "B"
_BITS, _PLANES, _SEPARATE = 258, 284, 2


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Say whether an image that is not loaded yet has 16-bit colours that `read_deep` keeps."""
    return _reduced(image) and _tags(image).get(_PLANES) != _SEPARATE


def is_torn(image: ImageFile.ImageFile) -> bool:
    """Say whether Pillow would take the 16-bit planes of a TIFF, one per colour, for 8-bit ones."""
    tags = _tags(image)
    deep = len(tags.get(_BITS, ())) > 1 and max(tags[_BITS]) > 8
    return deep and tags.get(_PLANES) == _SEPARATE and not _reduced(image)


def read_deep(data: bytes, formats: tuple[str, ...]) -> np.ndarray:
    """Give the colours of an image that `is_deep`, uint16 [H, W, 3]; transparency is over black.

    Raises what Pillow raises on damaged bytes.
    """
    upper, _, _ = _bytes(data, formats, other=False)
    lower, extra, key = _bytes(data, formats, other=True)
    pixels = upper.astype(np.uint16)
    pixels <<= 8
    pixels |= lower
    if key is not None:
        pixels[(pixels == key).all(axis=2)] = 0
    colour = pixels[..., :3]
    if extra != "A":  # there is no alpha, or the colours are multiplied by it already
        return colour
    return np.asarray((colour * pixels[..., 3:].astype(np.uint32) + 32767) // 65535, np.uint16)


def _bytes(
    data: bytes, formats: tuple[str, ...], *, other: bool
) -> tuple[np.ndarray, str, tuple[int, ...] | None]:
    """Give the upper (or `other`) byte of all samples, what the fourth is, the clear colour."""
    with Image.open(io.BytesIO(data), formats=formats) as image:
        match = _RAW_MODE.fullmatch(_raw_mode(image.tile[0]))
        assert match is not None
        order = _NATIVE if match[3] == "N" else match[3]
        order = {"B": "L", "L": "B"}[order] if other else order
        mode = f"{match[1]}{match[2].upper()};16{order}"
        image.tile = [_with(tile, mode) for tile in image.tile]
        image.load()
        shown = ImageOps.exif_transpose(image)
        return np.asarray(shown), match[2], image.info.get("transparency")


def _tags(image: ImageFile.ImageFile) -> Any:
    return getattr(image, "tag_v2", {})


def _reduced(image: ImageFile.ImageFile) -> bool:
    return bool(image.tile) and all(_RAW_MODE.fullmatch(_raw_mode(tile)) for tile in image.tile)


def _raw_mode(tile: Any) -> str:
    mode = tile.args if isinstance(tile.args, str) else tile.args[0]
    return mode if isinstance(mode, str) else ""


def _with(tile: Any, mode: str) -> Any:
    return tile._replace(args=mode if isinstance(tile.args, str) else (mode, *tile.args[1:]))
