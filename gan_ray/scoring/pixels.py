"""The pixel figures of an evaluation with their intervals."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

from gan_ray.scoring.intervals import Interval, pixel_intervals
from gan_ray.scoring.metrics import (
    Array,
    best_dice,
    pixel_auroc,
    pixel_average_precision,
    pixel_best_dice,
)
from gan_ray.scoring.regions import LIMITS, aupro


def pixel_figures(
    masks: Array, maps: Array, labels: Array, groups: Array, resamples: int
) -> dict[str, Interval]:
    """Give pixel AUROC, AP, best Dice and AUPRO over all pixels of all images, by name.

    `masks` are 0/1 [N, H, W], `maps` [N, S, S], `labels` and `groups` [N]; nothing is given when no
    pixel is marked. Maps are resized bilinearly (not masks to the map's size), so that a small
    lesion keeps its outline and detectors of different sizes are judged on the same pixels.
    """
    if not masks.any():
        return {}
    resized = np.empty(masks.shape, np.float32)
    for start in range(0, len(maps), 64):
        batch = torch.from_numpy(maps[start : start + 64])[:, None]
        size = (masks.shape[1], masks.shape[2])
        resized[start : start + 64] = interpolate(batch, size, mode="bilinear")[:, 0].numpy()
    ends = pixel_intervals(masks, resized, labels, groups, resamples)
    values = {
        "pixel_auroc": pixel_auroc(masks, resized),
        "pixel_ap": pixel_average_precision(masks, resized),
        best_dice.name: pixel_best_dice(masks, resized),
    } | {name: aupro(masks, resized, limit=limit) for name, limit in LIMITS.items()}
    return {name: Interval(value, *ends[name]) for name, value in values.items()}
