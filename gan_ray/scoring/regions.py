"""Per-region overlap: how much of each abnormal region a heat map finds, large and small alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from gan_ray.errors import ConfigError
from gan_ray.scoring.metrics import Array, Metric, Resampled, check_pixels

LIMITS: Mapping[str, float] = {"pixel_aupro_30": 0.30, "pixel_aupro_05": 0.05}
"""Reported areas: largest false-positive rate of normal pixels, by name of the figure."""


def aupro(masks: Array, maps: Array, *, limit: float = 0.3) -> float:
    """Give the mean overlap with regions over false-positive rates of pixels from 0 to `limit`.

    `masks` 0/1 and `maps` are [N, S, S]. At a threshold the overlap is the share of a region's
    pixels at or above it, averaged over all regions (8-neighbours) of all images; the rate is the
    share of all normal pixels. Between thresholds both rise linearly together, so a constant map
    has limit / 2. The area under it is divided by `limit` (Bergmann et al. 2021, IJCV 129).

    Exact: overlap is a weighted count of abnormal pixels, so the area is the weighted mean of what
    each of them adds, and one sort of the normal pixels tells the rate at its value.

    Raises:
        ConfigError: `limit` is not in (0, 1].
        DataError: normal or abnormal pixels are missing.
        ArtifactError: a map is not finite.
    """
    if not 0 < limit <= 1:
        raise ConfigError(f"a limit of the false-positive rate lies in (0, 1], but is {limit}")
    check_pixels(masks, maps)
    normal, abnormal = np.sort(maps[masks == 0]), maps[masks > 0]
    order = np.argsort(abnormal)  # a sorted search stays in the cache
    before = 1 - np.searchsorted(normal, abnormal[order], "right") / len(normal)
    after = 1 - np.searchsorted(normal, abnormal[order], "left") / len(normal)
    weights = region_weights(masks)[order]
    return float(np.average(_under_ramp(before, after, limit), weights=weights) / limit)


def per_region_overlap(name: str, limit: float) -> Metric:
    """Give `aupro` as a metric of weighted pixels, for resamples of images.

    Abnormal pixels count by their `region_weights`, normal ones by their number.
    """

    def compute(pixels: Resampled) -> Array:
        normal = pixels.negatives.sum(1, keepdims=True)
        after = np.cumsum(pixels.negatives, axis=1) / normal
        area = _under_ramp(after - pixels.negatives / normal, after, limit)
        mean: Array = (pixels.positives * area).sum(1) / pixels.positives.sum(1) / limit
        return mean

    return Metric(name, compute)


def region_weights(masks: Array) -> Array:
    """Give 1 / size of its region for each abnormal pixel of masks [N, S, S], in their order.

    They add up to the number of regions; a region does not reach into the next image.
    """
    neighbours = np.zeros((3, 3, 3), bool)
    neighbours[1] = True
    labels: Any = ndimage.label(masks > 0, neighbours)[0]
    region = labels[labels > 0]
    weights: Array = 1 / np.bincount(region)[region]
    return weights


def _under_ramp(start: Array, end: Array, limit: float) -> Array:
    """Give the area on [0, limit] under a line that rises from 0 at `start` to 1 at `end`."""
    width = end - start
    rise = np.clip(limit - start, 0, width)
    slope = np.divide(rise, 2 * width, out=np.zeros_like(rise), where=width > 0)
    area: Array = np.maximum(limit - end, 0) + rise * slope
    return area
