"""Shortcuts: features that need no model and yet tell abnormal from normal.

They speak of scanner, exposure, compression or preparation rather than of what is shown. A model
that is not better than the best of them has shown nothing, and one that is may still use it.
"""

from __future__ import annotations

import math

import numpy as np

from gan_ray.scoring.metrics import auroc

FEATURES = (
    "mean", "spread", "brightest 5 %", "sharpness", "border", "file size", "image size",
    "aspect ratio",
)  # fmt: skip
"""Mean brightness; its standard deviation; its 95th percentile; mean |4-neighbour Laplacian|; mean
of the outer sixteenth on each side; bytes as stored; pixels; width / height."""

TELLING = 0.65
"""AUROC, in either direction, above which a feature is a shortcut."""

_BEYOND_CHANCE = 3
_SAMPLES = 2**16


def trivial_features(grey: np.ndarray, stored: int) -> np.ndarray:
    """Give the features of an image [H, W], float32 in [0, 1], that takes `stored` bytes."""
    height, width = grey.shape
    thin = grey.ravel()[:: 1 + grey.size // _SAMPLES]
    values = [
        grey.mean(), grey.std(), np.percentile(thin, 95), _sharpness(grey), _border(grey), stored,
        grey.size, width / height,
    ]  # fmt: skip
    return np.array(values, np.float64)


def shortcut_aurocs(normal: np.ndarray, abnormal: np.ndarray) -> dict[str, float]:
    """Give the AUROC of each feature, as a score, over [N, F] normal and [M, F] abnormal images.

    1 means that every abnormal image has more of it than any normal one, 0 the reverse, 0.5 that it
    tells nothing.
    """
    labels = np.repeat([0, 1], [len(normal), len(abnormal)])
    values = np.concatenate([normal, abnormal]).T
    return {name: auroc(labels, row) for name, row in zip(FEATURES, values, strict=True)}


def shortcut_warning(part: str, aurocs: dict[str, float], normal: int, abnormal: int) -> str:
    """Say which features are shortcuts on so many images, and what to do; empty if none is.

    One is where its AUROC is above `TELLING`, in either direction, by more than three standard
    errors of chance (Mann and Whitney 1947): few images prove nothing.
    """
    chance = math.sqrt((normal + abnormal + 1) / (12 * normal * abnormal))
    least = max(TELLING - 0.5, _BEYOND_CHANCE * chance)
    telling = {name: value for name, value in aurocs.items() if abs(value - 0.5) > least}
    if not telling:
        return ""
    ranked = sorted(telling.items(), key=lambda one: -abs(one[1] - 0.5))
    told = ", ".join(
        f"{name} {max(value, 1 - value):.2f} ({'higher' if value > 0.5 else 'lower'} in abnormal)"
        for name, value in ranked
    )
    return (
        f"in {part}, abnormal images can be told from normal ones by trivial features; their AUROC:"
        f" {told}. Quote these beside every figure, since a model that does not beat them has "
        "shown nothing; where they come from scanner, exposure or preparation rather than from the "
        "finding, bring all images through the same preparation or compare within one source."
    )


def _sharpness(grey: np.ndarray) -> float:
    if min(grey.shape) < 3:
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.abs(around - 4 * grey[1:-1, 1:-1]).mean())


def _border(grey: np.ndarray) -> float:
    width = max(1, min(grey.shape) // 16)
    inner = grey[width:-width, width:-width]
    outside = grey.size - inner.size
    return float((grey.sum(dtype=np.float64) - inner.sum(dtype=np.float64)) / outside)
