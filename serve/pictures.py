"""Small PNGs inside JSON, for the page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def png8(values: np.ndarray, low: float, high: float) -> str:
    """Give a data URI of a PNG whose levels 0 to 255 span [low, high]; what lies beyond is clipped.

    `values` is [S, S], or [C, S, S] with 1 or 3 channels.
    """
    span = max(high - low, 1e-30)
    levels = (255.0 * (np.asarray(values, np.float64) - low) / span).clip(0, 255).round()
    picture = levels.astype(np.uint8)
    if picture.ndim == 3:
        picture = picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, -1)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
