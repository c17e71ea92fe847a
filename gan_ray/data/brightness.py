"""What the readers of all formats share: their limits, their refusals, and what is bright."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from gan_ray.errors import DataError
from gan_ray.names import shown

Unsigned: TypeAlias = np.dtype[np.uint8] | np.dtype[np.uint16]

MAX_PIXELS = 40_000_000
"""Largest image that is decoded; larger ones are refused by their header, before any decoding."""

REPLACE = "Replace the file by a readable one or take it out of the data set."


def refusal(name: str, reason: str, remedy: str) -> DataError:
    """Give the error for a file that cannot be used; see `names.shown`."""
    return DataError(f"{shown(name)} {reason}. {remedy}")


def refuse_size(width: int, height: int, name: str) -> None:
    """Let an image of this size pass.

    Raises:
        DataError: it has no pixel, or more than `MAX_PIXELS`.
    """
    if width < 1 or height < 1:
        raise refusal(name, f"has {width} x {height} pixels", REPLACE)
    if width * height > MAX_PIXELS:
        raise refusal(
            name,
            f"has {width} x {height} pixels, more than the "
            f"{MAX_PIXELS / 1e6:.0f} million that are allowed",
            "Scale it down before training.",
        )


def from_integers(values: np.ndarray, name: str) -> np.ndarray:
    """Give integers of any width as uint16 of the same value.

    Raises:
        DataError: one of them is below 0 or above 65535.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise refusal(
            name,
            f"holds integers from {low} to {high}, but 0 to 65535 (16 bit) is what can be read",
            "Scale the values and save it as a 16-bit PNG or TIFF.",
        )
    return values.astype(np.uint16)


def from_floats(values: np.ndarray, name: str) -> np.ndarray:
    """Give floats from 0 to 1 as uint16 from 0 to 65535.

    Raises:
        DataError: one of them is not finite, below 0 or above 1.
    """
    refuse_not_finite(values, name)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise refusal(
            name,
            f"holds floats from {low:g} to {high:g}, but 0 to 1 is what can be read",
            "Scale the values to 0..1, or save it as a 16-bit PNG or TIFF.",
        )
    return np.rint(values.astype(np.float64) * 65535).astype(np.uint16)


def refuse_not_finite(values: np.ndarray, name: str) -> None:
    """Let values pass that are all finite.

    Raises:
        DataError: one of them is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise refusal(name, "holds values that are NaN or infinite", "Mend or leave out the image.")


def between(values: np.ndarray, low: float, high: float, dtype: Unsigned) -> np.ndarray:
    """Give values as brightness: `low` and below is 0, `high` and above the dtype's largest.

    Linear in between; all 0 where `low` and `high` are one.
    """
    top = np.iinfo(dtype).max
    scale = top / (high - low) if high > low else 0.0
    return np.rint(np.clip((values - low) * scale, 0, top)).astype(dtype)
