"""Images of cases as `data:` addresses: what was seen, what was expected, where they differ."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_ray.report.style import heat

_OPACITY = 0.9
_DARKEST = 0.35


def png(pixels: NDArray[np.uint8]) -> str:
    """Give uint8 pixels [H, W] or [H, W, 3] as the `data:` address of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
    return embed(buffer.getvalue())


def embed(file: bytes) -> str:
    """Give the bytes of a PNG file as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(file).decode()


def overlay(
    pixels: NDArray[np.uint8], anomaly_map: NDArray[Any], low: float, high: float
) -> NDArray[np.uint8]:
    """Lay an anomaly map [H, W] over its image [H, W] or [H, W, 3]; gives uint8 [H, W, 3].

    Colour and opacity both grow from `low` (image untouched) to `high`, the same for every image.
    """
    image = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    values = np.asarray(anomaly_map, np.float64)
    share = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    opacity = _OPACITY * share[..., None] ** 0.75
    mixed = image * (1.0 - opacity) + heat(values, low, high, darkest=_DARKEST) * opacity
    return np.rint(mixed).astype(np.uint8)


def scale(low: float, high: float) -> str:
    """Give the legend of `overlay`: its colours from `low` to `high` over mid-grey."""
    ramp = np.tile(np.linspace(low, high, 160), (10, 1))
    return png(overlay(np.full(ramp.shape, 110, np.uint8), ramp, low, high))
