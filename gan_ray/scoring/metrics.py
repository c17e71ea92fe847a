"""How well scores rank and how well a threshold decides; exact, in float64, without a loop.

Labels are 1 for abnormal and 0 for normal, scores are higher for more abnormal. A `Metric` is also
defined for resamples of the images (`Metric.over`), which is what makes bootstrap intervals cheap:
the scores are sorted once and a resample is nothing but a row of counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gan_ray.errors import ArtifactError, DataError

Array = np.ndarray


@dataclass(frozen=True)
class Resampled:
    """Images sorted by score, highest first, in runs of equal scores, with counts per resample.

    The leading axis of every array is the resample, the last one the run.
    """

    positives: Array
    """Abnormal images in each run, float64 [R, K]."""
    negatives: Array
    """Normal images in each run, float64 [R, K]."""
    above: Array
    """Whether the run counts as called abnormal when the scores are decisions 0 or 1, bool [K]."""


@dataclass(frozen=True)
class Metric:
    """A figure of labels [N] and scores [N]; call it for its value."""

    name: str
    compute: Callable[[Resampled], Array]

    def __call__(self, labels: Array, scores: Array) -> float:
        """Give the value on the images as they are.

        Raises:
            DataError: a class is missing.
            ArtifactError: a score is not finite.
        """
        return float(self.over(labels, scores, np.ones((1, len(labels))))[0])

    def over(self, labels: Array, scores: Array, counts: Array) -> Array:
        """Give the value for each of R resamples, float64 [R].

        `counts` [R, N] says how often each image occurs in each resample.
        """
        labels, scores = checked(labels, scores)
        order = np.argsort(-scores, kind="stable")
        runs = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
        ordered = np.asarray(counts, np.float64)[:, order]
        positives = np.add.reduceat(ordered * labels[order], runs, axis=1)
        negatives = np.add.reduceat(ordered, runs, axis=1) - positives
        return self.compute(Resampled(positives, negatives, scores[order][runs] > 0))


def checked(labels: Array, scores: Array) -> tuple[Array, Array]:
    """Give labels and scores as float64 [N].

    Raises:
        DataError: a class is missing.
        ArtifactError: a score is not finite.
    """
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    abnormal = int(labels.sum())
    if abnormal in (0, len(labels)):
        raise DataError(
            f"a metric needs normal and abnormal images, but there are {len(labels) - abnormal} "
            f"normal and {abnormal} abnormal ones: add the missing class to the test split."
        )
    if not np.isfinite(scores).all():
        raise ArtifactError(
            f"{np.count_nonzero(~np.isfinite(scores))} of {len(scores)} scores are not finite: the "
            "detector diverged or its weights are damaged; evaluate an earlier checkpoint."
        )
    return labels, scores


def _auroc(images: Resampled) -> Array:
    higher = np.cumsum(images.positives, axis=1) - images.positives / 2
    wins = (images.negatives * higher).sum(1)
    won: Array = wins / (images.positives.sum(1) * images.negatives.sum(1))
    return won


def _average_precision(images: Resampled) -> Array:
    hits = np.cumsum(images.positives, axis=1)
    called = hits + np.cumsum(images.negatives, axis=1)
    precision = hits / np.maximum(called, 1)  # nothing called yet: a run without weight
    average: Array = (images.positives * precision).sum(1) / hits[:, -1]
    return average


def _share(part: Array, whole: Array) -> Array:
    # Nothing called abnormal: precision counts as 0, as in scikit-learn.
    share: Array = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return share


def _sensitivity(images: Resampled) -> Array:
    return _share(images.positives[:, images.above].sum(1), images.positives.sum(1))


def _specificity(images: Resampled) -> Array:
    return _share(images.negatives[:, ~images.above].sum(1), images.negatives.sum(1))


def _precision(images: Resampled) -> Array:
    hits = images.positives[:, images.above].sum(1)
    return _share(hits, hits + images.negatives[:, images.above].sum(1))


def _f1(images: Resampled) -> Array:
    hits = images.positives[:, images.above].sum(1)
    false_alarms = images.negatives[:, images.above].sum(1)
    return _share(2 * hits, hits + images.positives.sum(1) + false_alarms)


auroc = Metric("image_auroc", _auroc)
"""P(abnormal scores higher than normal) + P(equal) / 2 (Mann-Whitney; Hanley and McNeil 1982)."""
average_precision = Metric("image_ap", _average_precision)
"""sum over thresholds of (R_k - R_(k-1)) P_k, equal scores together; no interpolation."""

DECISIONS = (
    Metric("sensitivity", _sensitivity),
    Metric("specificity", _specificity),
    Metric("precision", _precision),
    Metric("f1", _f1),
)
"""Metrics of decisions: call them with `scores > threshold` in place of scores."""


def at_threshold(labels: Array, scores: Array, threshold: float) -> dict[str, float]:
    """Give sensitivity, specificity, precision and F1 of calling scores > threshold abnormal.

    Precision is 0 where nothing is called abnormal.
    """
    return {metric.name: metric(labels, np.asarray(scores) > threshold) for metric in DECISIONS}


def pixel_auroc(masks: Array, maps: Array) -> float:
    """Give the AUROC of pixels: `masks` 0/1 and `maps` of the same shape, of all test images.

    Exact: one sort over all pixels, then midranks of the abnormal ones (Mann-Whitney).
    """
    everything, abnormal = _sorted_pixels(masks, maps)
    first = np.searchsorted(everything, abnormal, "left")
    last = np.searchsorted(everything, abnormal, "right")
    ranks = float((first + last + 1).sum()) / 2  # summed as integers: exact
    count = len(abnormal)
    return (ranks - count * (count + 1) / 2) / (count * float(len(everything) - count))


def pixel_average_precision(masks: Array, maps: Array) -> float:
    """Give the average precision of pixels; shapes as in `pixel_auroc`.

    Exact: AP is the mean over abnormal pixels of the precision at their own value.
    """
    everything, abnormal = _sorted_pixels(masks, maps)
    hits = len(abnormal) - np.searchsorted(abnormal, abnormal, "left")
    called = len(everything) - np.searchsorted(everything, abnormal, "left")
    return float((hits / called).mean())


def check_pixels(masks: Array, maps: Array) -> None:
    """Refuse masks and maps, of one shape, that no pixel metric is defined for.

    Raises:
        DataError: normal or abnormal pixels are missing.
        ArtifactError: a map is not finite.
    """
    abnormal = np.count_nonzero(masks)
    if not 0 < abnormal < maps.size:
        raise DataError(
            f"a pixel metric needs normal and abnormal pixels, but {abnormal} of {maps.size} "
            "are abnormal: give masks that mark a part of the images."
        )
    if not np.isfinite(maps).all():
        raise ArtifactError("an anomaly map is not finite: the detector diverged")


def _sorted_pixels(masks: Array, maps: Array) -> tuple[Array, Array]:
    check_pixels(masks, maps)
    return np.sort(maps, axis=None), np.sort(maps[masks > 0])
