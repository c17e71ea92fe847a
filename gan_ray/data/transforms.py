"""From decoded pixels to what a network sees; the same for training, scoring and HTTP.

Stored pixels stay integers as long as possible: `prepare` gives uint8 or uint16, and `to_unit`
makes them floats on the device in the last moment.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gan_ray.config import fingerprint
from gan_ray.detector import ImageSpec
from gan_ray.errors import ConfigError, DataError, unknown

PREPARATION = 1
"""Counts up whenever the prepared pixels of any image would change."""
FITS = ("pad", "resize")

_HALF_RANGE = {torch.uint8: 127.5, torch.uint16: 32767.5}
_LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)
"""ITU-R BT.601 weights of red, green and blue in 1/65536; they add up to 65536, so that a grey
image stored as RGB keeps its values exactly."""


def prepare(array: np.ndarray, image: ImageSpec, fit: str) -> np.ndarray:
    """Give pixels [H, W] or [H, W, 3] as a [C, S, S] array of the same dtype, uint8 or uint16.

    `fit` "resize" squashes the image to a square; "pad" keeps its aspect ratio and centres it
    between black borders. Bilinear with antialiasing. Depends on nothing but its arguments.

    Raises:
        ConfigError: an unknown `fit`.
        DataError: the array is no image of these types.
    """
    if fit not in FITS:
        raise ConfigError(unknown("fit", fit, FITS))
    is_image = array.ndim == 2 or array.shape[2:] == (3,)
    if array.dtype not in (np.uint8, np.uint16) or not is_image or not array.size:
        raise DataError(
            f"an image must be uint8 or uint16 of shape [H, W] or [H, W, 3], but is {array.dtype} "
            f"of shape {list(array.shape)}. Read it with gan_ray.data.readers.read_image."
        )
    height, width = array.shape[:2]
    inner = (image.size, image.size)
    if fit == "pad":
        scale = image.size / max(height, width)
        inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = _resize(_with_channels(array, image.channels), *inner)
    if inner != (image.size, image.size):
        top, left = (image.size - inner[0]) // 2, (image.size - inner[1]) // 2
        canvas = np.zeros((image.size, image.size, *pixels.shape[2:]), dtype=pixels.dtype)
        canvas[top : top + inner[0], left : left + inner[1]] = pixels
        pixels = canvas
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
    return np.ascontiguousarray(planes)


def widen(rows: np.ndarray) -> np.ndarray:
    """Give uint8 pixels as uint16 of the same brightness (x * 257); uint16 pixels as they are.

    `to_unit` maps both to the same floats, bit for bit on a CPU.
    """
    return rows if rows.dtype == np.uint16 else rows.astype(np.uint16) * np.uint16(257)


def to_unit(
    rows: np.ndarray | Tensor, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Give stored pixels, uint8 or uint16 of any shape, as floats in [-1, 1] on the device.

    The integers travel to the device; they become floats there.

    Raises:
        DataError: another dtype, whose range nobody could know.
    """
    stored = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
    if stored.dtype not in _HALF_RANGE:
        raise DataError(
            f"stored pixels must be uint8 or uint16, but are {stored.dtype}. "
            "Prepare them with gan_ray.data.transforms.prepare."
        )
    precise = torch.promote_types(dtype, torch.float32)
    unit = stored.to(device, non_blocking=True).to(precise)
    return unit.div_(_HALF_RANGE[stored.dtype]).sub_(1).to(dtype)


def mirror(images: Tensor, chosen: Tensor) -> Tensor:
    """Give images [B, C, S, S] with the rows where `chosen` [B] is true mirrored left-right."""
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)


def preprocessing_hash(image: ImageSpec, fit: str) -> str:
    """Name the way from a file's bytes to a network's input: equal names mean equal pixels."""
    return fingerprint(
        {"preparation": PREPARATION, "size": image.size, "channels": image.channels, "fit": fit}
    )


def _with_channels(array: np.ndarray, channels: int) -> np.ndarray:
    if channels == 3 and array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=2)
    if channels == 1 and array.ndim == 3:
        grey = np.right_shift(array.astype(np.uint32) @ _LUMA + 32768, 16)
        return np.asarray(grey, dtype=array.dtype)
    return array


def _resize(array: np.ndarray, height: int, width: int) -> np.ndarray:
    if array.shape[:2] == (height, width):
        return array
    if array.dtype == np.uint8:
        resized = Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized)
    if array.ndim == 3:
        planes = [_resize(array[..., channel], height, width) for channel in range(3)]
        return np.stack(planes, axis=2)
    # Pillow resizes its 16-bit mode without antialiasing; its float mode does it right.
    image = Image.fromarray(array.astype(np.float32))
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(np.clip(np.rint(np.asarray(resized)), 0, 65535), dtype=np.uint16)
