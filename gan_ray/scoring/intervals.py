"""What chance could have made of a figure: bootstrap intervals, and paired tests between models.

Groups (patients) are drawn with replacement, an image without a group is its own. They are drawn
within strata, groups of normal images, of abnormal images and of both, so that every resample has
both classes and about their proportion. Intervals are percentile intervals (Efron 1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from gan_ray.errors import ConfigError
from gan_ray.scoring.curves import Curve
from gan_ray.scoring.metrics import (
    Array,
    Metric,
    auroc,
    average_precision,
    best_dice,
    checked,
    resampled,
)
from gan_ray.scoring.regions import LIMITS, per_region_overlap, region_weights
from gan_ray.scoring.subjects import numbered
from gan_ray.seeds import derive_seed

Verdict = Literal["no measurable difference", "a is better", "b is better"]

_BLOCK = 2_000_000  # counts held at a time: 16 MB
_BINS = 1024


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Band:
    """A curve [G] with the ends of the 95 % interval of each of its points."""

    at: Array
    value: Array
    low: Array
    high: Array

    def rounded(self) -> dict[str, list[float]]:
        """Give the fields as lists, to four decimals: a chart shows no more."""
        return {name: values.round(4).tolist() for name, values in vars(self).items()}


@dataclass(frozen=True)
class Paired:
    """The difference a - b of two models on the same images, with its 95 % interval."""

    difference: float
    low: float
    high: float
    p_value: float
    """Two-sided: twice the smaller share of resamples on one side of 0.

    Where no resample is on that side, the normal tail of the difference over the bootstrap's
    standard deviation, if it is smaller: a correction for many comparisons needs small values.
    """
    verdict: Verdict
    """A model is better when the interval leaves out 0."""


def interval(
    metric: Metric,
    labels: Array,
    scores: Array,
    groups: Array | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Give the metric's value with its interval; `groups` [N] are names, empty for none."""
    return intervals([((metric,), scores)], labels, groups, resamples, seed)[metric.name]


def intervals(
    judged: Sequence[tuple[Sequence[Metric], Array]],
    labels: Array,
    groups: Array | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Give value and interval of many metrics, by name, all in the same resamples.

    `judged` are metrics beside the scores, decisions or forecasts [N] that they judge; these are
    sorted once for all their metrics. An interval always holds its value: where chance alone
    pushes a figure up (a calibration error), the end that would leave it out is the value. A share
    of none or of all, of which no resample differs, gets the exact binomial bound.
    """
    return intervals_and_bands(judged, labels, groups, resamples, seed)[0]


def intervals_and_bands(
    judged: Sequence[tuple[Sequence[Metric | Curve], Array]],
    labels: Array,
    groups: Array | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Interval], dict[str, Band]]:
    """Give the `intervals` of the metrics and, in the same resamples, the bands of the curves."""
    values: dict[str, Interval] = {}
    bands: dict[str, Band] = {}
    drawn = resample(judged, labels, groups, resamples, seed)
    for (figures, _), found in zip(judged, drawn, strict=True):
        for figure in figures:
            value, rest = found[figure.name][0], found[figure.name][1:]
            low, high = np.quantile(rest, [0.025, 0.975], axis=0)
            low, high = np.minimum(low, value), np.maximum(high, value)
            if isinstance(figure, Curve):
                bands[figure.name] = Band(figure.at, value, low, high)
            else:
                found_interval = Interval(float(value), float(low), float(high))
                values[figure.name] = _opened(figure, found_interval, labels, groups)
    return values, bands


def _opened(metric: Metric, found: Interval, labels: Array, groups: Array | None) -> Interval:
    """Give the interval of a share of none or of all its exact other end.

    No resample of such images holds another share, whatever chance could have made of them. The
    bound is Clopper and Pearson's (1934) for as many trials as there are groups.
    """
    if metric.share_of is None or found.low < found.high or found.value not in (0.0, 1.0):
        return found
    trials = len(np.unique(numbered(groups, len(labels))[labels == metric.share_of]))
    least = 0.025 ** (1 / trials)
    ends = (0.0, 1 - least) if found.value == 0 else (least, 1.0)
    return Interval(found.value, *ends)


def resample(
    judged: Sequence[tuple[Sequence[Metric | Curve], Array]],
    labels: Array,
    groups: Array | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Array]]:
    """Give what the figures of each of `judged` are on the images and in R resamples of them.

    One dictionary for each, by the figure's name: float64 [1 + R] of a metric, [1 + R, G] of a
    curve, first of the images as they are. All are judged in the same resamples.
    """
    found: list[dict[str, list[Array]]] = [{each.name: [] for each in what} for what, _ in judged]
    as_they_are = np.ones((1, len(labels)))
    for counts in chain([as_they_are], _counts(labels, groups, resamples, seed)):
        for (figures, scores), lists in zip(judged, found, strict=True):
            images = resampled(labels, scores, counts)
            for figure in figures:
                lists[figure.name].append(figure.compute(images))
    return [{name: np.concatenate(parts) for name, parts in each.items()} for each in found]


def paired(
    metric: Metric,
    labels: Array,
    a: Array,
    b: Array,
    groups: Array | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Paired:
    """Compare the scores `a` and `b` of two models on the same images, in the same resamples.

    They are [N], or [T, N] of T trainings that differ by their seed; the mean of the metric over
    the trainings is compared then, and trainings are drawn with replacement as patients are, the
    same of both models: how far seeds carry is part of what chance makes.
    """
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    drawn = resample([((metric,), row) for row in (*a, *b)], labels, groups, resamples, seed)
    values = np.stack([each[metric.name] for each in drawn])
    each = values[: len(a)] - values[len(a) :]
    rng = np.random.default_rng(derive_seed("trainings", seed))
    picks = rng.integers(len(a), size=(len(a), each.shape[1] - 1))
    means = np.take_along_axis(each[:, 1:], picks, 0).mean(0)
    return difference(np.append(each[:, 0].mean(), means))


def difference(values: Array) -> Paired:
    """Judge the differences a - b [1 + R] of a figure: on the images, then in each resample."""
    found, differences = float(values[0]), values[1:]
    low, high = _ends(differences)
    smaller = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value, spread = 2 * (smaller + 1) / (len(differences) + 1), float(differences.std())
    if smaller == 0 and spread > 0:
        p_value = min(p_value, math.erfc(abs(found) / spread / math.sqrt(2)))
    verdict: Verdict = "no measurable difference"
    if low > 0:
        verdict = "a is better"
    elif high < 0:
        verdict = "b is better"
    return Paired(
        difference=found,
        low=low,
        high=high,
        p_value=min(1.0, p_value),
        verdict=verdict,
    )


def pixel_intervals(
    masks: Array,
    maps: Array,
    labels: Array,
    groups: Array | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Give the ends of the intervals of the pixel figures, by name; images are resampled.

    `masks` and `maps` are [N, S, S]. Map values are binned for this, at 1024 quantiles of all
    pixels and 1024 of the abnormal ones, so that a resample is a sum of histograms; that moves an
    end by less than 0.001.
    """
    quantiles = np.linspace(0, 1, _BINS)
    abnormal = maps[masks > 0]
    edges = np.unique(
        np.concatenate([np.quantile(maps, quantiles), np.quantile(abnormal, quantiles)])
    )
    bins = len(edges) + 1
    inside, overlap, outside = np.zeros((3, len(maps), bins), np.float32)
    for index, (mask, map_) in enumerate(zip(masks, maps, strict=True)):
        bin_of = np.searchsorted(edges, map_.ravel(), "right")
        everything = np.bincount(bin_of, minlength=bins)
        abnormal_bin = bin_of[mask.ravel() > 0]
        inside[index] = np.bincount(abnormal_bin, minlength=bins)
        overlap[index] = np.bincount(abnormal_bin, region_weights(mask[None]), minlength=bins)
        outside[index] = everything - inside[index]
    overlaps = {name: per_region_overlap(name, limit) for name, limit in LIMITS.items()}
    of_pixels = {"pixel_auroc": auroc, "pixel_ap": average_precision, best_dice.name: best_dice}
    values: dict[str, list[Array]] = {name: [] for name in (*of_pixels, *overlaps)}
    bin_scores, bin_labels = np.tile(np.arange(bins), 2), np.repeat([1, 0], bins)
    for counts in _counts(labels, groups, resamples, seed):
        weights = counts.astype(np.float32)
        normal = weights @ outside
        for found, metrics in ((inside, of_pixels), (overlap, overlaps)):
            pixels = np.concatenate([weights @ found, normal], axis=1)
            images = resampled(bin_labels, bin_scores, pixels)
            for name, metric in metrics.items():
                values[name].append(metric.compute(images))
    return {name: _ends(np.concatenate(parts)) for name, parts in values.items()}


def _counts(labels: Array, groups: Array | None, resamples: int, seed: int) -> Iterator[Array]:
    """Draw how often each image occurs in each resample, in blocks [R', N] of all resamples."""
    if resamples < 1:
        raise ConfigError(f"an interval needs resamples, 1000 by default, but got {resamples}")
    labels, _ = checked(labels, np.zeros(len(labels)))
    group_of, strata = _strata(labels, groups)
    rng = np.random.default_rng(derive_seed("bootstrap", seed))
    done, block = 0, max(1, _BLOCK // len(labels))
    while done < resamples:
        rows = min(block, resamples - done)
        drawn = np.zeros((rows, sum(map(len, strata))))
        for members in strata:
            size = len(members)
            picks = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
            drawn[:, members] = np.bincount(picks.ravel(), minlength=rows * size).reshape(
                rows, size
            )
        yield drawn[:, group_of]
        done += rows


def _strata(labels: Array, groups: Array | None) -> tuple[Array, list[Array]]:
    """Give each image's group number [N], and the group numbers of each stratum."""
    group_of = numbered(groups, len(labels))
    size = np.bincount(group_of)
    abnormal = np.bincount(group_of, weights=labels)
    kinds = np.where(abnormal == 0, 0, np.where(abnormal == size, 1, 2))
    strata = [np.flatnonzero(kinds == kind) for kind in range(3)]
    return group_of, [members for members in strata if len(members)]


def _ends(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
