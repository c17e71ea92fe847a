"""DeLong's test: whether two AUROCs on the same images differ, without resampling.

DeLong, DeLong and Clarke-Pearson 1988, by the midranks of Sun and Xu 2014 (IEEE Signal Processing
Letters 21, algorithm 2): N log N instead of pairs. Images must be independent; with several images
of one patient the variance comes out too small, and only the bootstrap by group holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from gan_ray.errors import DataError
from gan_ray.scoring.metrics import Array, checked


@dataclass(frozen=True)
class DeLong:
    """The difference of two AUROCs, a - b."""

    difference: float
    standard_error: float
    p_value: float
    """Two-sided, from the normal distribution of difference / standard_error."""


def delong(labels: Array, a: Array, b: Array) -> DeLong:
    """Compare the AUROCs of the scores `a` and `b` [N] of two models on the same images.

    Raises:
        DataError: fewer than two images of a class, which leaves no variance to estimate.
        ArtifactError: a score is not finite.
    """
    labels, a = checked(labels, a)
    _, b = checked(labels, b)
    abnormal = labels == 1
    fewest = min(np.count_nonzero(abnormal), np.count_nonzero(~abnormal))
    if fewest < 2:
        raise DataError(
            f"DeLong's test needs two images of each class, but one class has {fewest}: add test "
            "images or compare by the bootstrap."
        )
    won, lost = (
        first - second
        for first, second in zip(_placements(a, abnormal), _placements(b, abnormal), strict=True)
    )
    difference = float(won.mean())
    variance = float(won.var(ddof=1) / len(won) + lost.var(ddof=1) / len(lost))
    error = math.sqrt(variance)
    if error > 0:
        p_value = math.erfc(abs(difference) / error / math.sqrt(2))
    else:
        p_value = 1.0 if difference == 0 else 0.0
    return DeLong(difference, error, p_value)


def _placements(scores: Array, abnormal: Array) -> tuple[Array, Array]:
    """Give what each image adds to the AUROC.

    For each abnormal image the share of normal ones below it, for each normal image the share of
    abnormal ones above it, ties half: the rank among all less the rank among its own.
    """
    everywhere = rankdata(scores)
    ours, theirs = scores[abnormal], scores[~abnormal]
    below = (everywhere[abnormal] - rankdata(ours)) / len(theirs)
    above = 1 - (everywhere[~abnormal] - rankdata(theirs)) / len(ours)
    return below, above
