"""How well scores rank and how well a threshold decides; exact, in float64, without a loop.

Labels are 1 for abnormal and 0 for normal, scores are higher for more abnormal. A `Metric` is also
defined for resamples of the images (`Metric.over`), which is what makes bootstrap intervals cheap:
the scores are sorted once and a resample is nothing but a row of counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

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
    values: Array
    """The score of each run, float64 [K], falling."""

    @cached_property
    def hits(self) -> Array:
        """Abnormal images at or above each run, [R, K]."""
        return np.cumsum(self.positives, axis=1)

    @cached_property
    def false_alarms(self) -> Array:
        """Normal images at or above each run, [R, K]."""
        return np.cumsum(self.negatives, axis=1)

    @property
    def above(self) -> Array:
        """Whether the run is called abnormal when the scores are decisions 0 or 1, bool [K]."""
        called: Array = self.values > 0
        return called


@dataclass(frozen=True)
class Metric:
    """A figure of labels [N] and scores [N]; call it for its value."""

    name: str
    compute: Callable[[Resampled], Array]
    share_of: int | None = None
    """The label whose images it counts, where it is no more than a share of them."""

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
        return self.compute(resampled(labels, scores, counts))


def resampled(labels: Array, scores: Array, counts: Array) -> Resampled:
    """Sort the images once, for all metrics of these scores; arguments as of `Metric.over`.

    Raises:
        DataError: a class is missing.
        ArtifactError: a score is not finite.
    """
    labels, scores = checked(labels, scores)
    order = np.argsort(-scores, kind="stable")
    runs = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    ordered = np.asarray(counts, np.float64)[:, order]
    positives = np.add.reduceat(ordered * labels[order], runs, axis=1)
    negatives = np.add.reduceat(ordered, runs, axis=1) - positives
    return Resampled(positives, negatives, scores[order][runs])


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
    wins = (images.negatives * (images.hits - images.positives / 2)).sum(1)
    won: Array = wins / (images.positives.sum(1) * images.negatives.sum(1))
    return won


def _average_precision(images: Resampled) -> Array:
    called = images.hits + images.false_alarms
    precision = images.hits / np.maximum(called, 1)  # nothing called yet: a run without weight
    average: Array = (images.positives * precision).sum(1) / images.hits[:, -1]
    return average


def _pr_auc(images: Resampled) -> Array:
    called = images.hits + images.false_alarms
    precision = np.divide(images.hits, called, out=np.ones_like(called), where=called > 0)
    before = np.concatenate([np.ones((len(called), 1)), precision[:, :-1]], axis=1)
    area: Array = (images.positives * (before + precision)).sum(1) / 2 / images.hits[:, -1]
    return area


def _sensitivity_at_95(images: Resampled) -> Array:
    allowed = 20 * images.false_alarms <= images.false_alarms[:, -1:]  # in whole images: exact
    found: Array = (images.hits * allowed).max(1) / images.hits[:, -1]
    return found


def _specificity_at_95(images: Resampled) -> Array:
    normal = images.false_alarms[:, -1]
    enough = 20 * images.hits >= 19 * images.hits[:, -1:]
    passed: Array = ((normal[:, None] - images.false_alarms) * enough).max(1) / normal
    return passed


def _best_dice(images: Resampled) -> Array:
    called = images.hits + images.false_alarms
    best: Array = (2 * images.hits / (called + images.hits[:, -1:])).max(1)
    return best


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


def _accuracy(images: Resampled) -> Array:
    hits = images.positives[:, images.above].sum(1)
    passes = images.negatives[:, ~images.above].sum(1)
    return _share(hits + passes, images.positives.sum(1) + images.negatives.sum(1))


def _balanced_accuracy(images: Resampled) -> Array:
    mean: Array = (_sensitivity(images) + _specificity(images)) / 2
    return mean


def _f1(images: Resampled) -> Array:
    hits = images.positives[:, images.above].sum(1)
    false_alarms = images.negatives[:, images.above].sum(1)
    return _share(2 * hits, hits + images.positives.sum(1) + false_alarms)


auroc = Metric("image_auroc", _auroc)
"""P(abnormal scores higher than normal) + P(equal) / 2 (Mann-Whitney; Hanley and McNeil 1982)."""
average_precision = Metric("image_ap", _average_precision)
"""sum over thresholds of (R_k - R_(k-1)) P_k, equal scores together; no interpolation.

This is the area under the precision-recall curve that we stand by; `pr_auc` is for comparison.
"""
pr_auc = Metric("image_pr_auc", _pr_auc)
"""Area under the precision-recall curve by trapezoids, from recall 0 with precision 1.

As papers with `auc(recall, precision)` have it; straight lines between the points promise a
precision that no threshold reaches (Davis and Goadrich 2006). Prefer `average_precision`.
"""
sensitivity_at_95 = Metric("sensitivity_at_95", _sensitivity_at_95)
"""The highest sensitivity of a threshold with a specificity of 95 % or more.

The threshold is one of the scores, chosen on these very images (nothing is interpolated), so it
tells what the ranking could do; `DECISIONS` tell what the calibrated threshold does.
"""
specificity_at_95 = Metric("specificity_at_95", _specificity_at_95)
"""The highest specificity of a threshold with a sensitivity of 95 % or more, chosen likewise."""

RANKING = (auroc, average_precision, pr_auc, sensitivity_at_95, specificity_at_95)
"""Metrics of the order of the scores alone."""

best_dice = Metric("pixel_best_dice", _best_dice)
"""`pixel_best_dice` of counted pixels."""

DECISIONS = (
    Metric("sensitivity", _sensitivity, share_of=1),
    Metric("specificity", _specificity, share_of=0),
    Metric("precision", _precision),
    Metric("f1", _f1),
    Metric("accuracy", _accuracy),
    Metric("balanced_accuracy", _balanced_accuracy),
)
"""Metrics of decisions: call them with `scores > threshold` in place of scores."""


def at_threshold(labels: Array, scores: Array, threshold: float) -> dict[str, float]:
    """Give the `DECISIONS` of calling scores > threshold abnormal, by name.

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
    hits, called = _at_abnormal_pixels(masks, maps)
    return float((hits / called).mean())


def pixel_best_dice(masks: Array, maps: Array) -> float:
    """Give the highest Dice that one threshold for all maps reaches; shapes as in `pixel_auroc`.

    Dice is 2 TP / (abnormal + called) over the pixels of all test images together. It is an
    oracle's: the threshold is chosen with the masks, as nobody can in use. Exact: the best
    threshold is the value of an abnormal pixel.
    """
    hits, called = _at_abnormal_pixels(masks, maps)
    return float((2 * hits / (len(hits) + called)).max())


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


def _at_abnormal_pixels(masks: Array, maps: Array) -> tuple[Array, Array]:
    """Give how many abnormal pixels, and how many in all, are at or above each abnormal one."""
    everything, abnormal = _sorted_pixels(masks, maps)
    hits = len(abnormal) - np.searchsorted(abnormal, abnormal, "left")
    return hits, len(everything) - np.searchsorted(everything, abnormal, "left")


def _sorted_pixels(masks: Array, maps: Array) -> tuple[Array, Array]:
    check_pixels(masks, maps)
    return np.sort(maps, axis=None), np.sort(maps[masks > 0])
