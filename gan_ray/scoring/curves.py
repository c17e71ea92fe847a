"""ROC and precision-recall curves of resamples on a fixed grid, which is what bands are made of.

Between two thresholds a curve follows the counts: of images with equal scores any share may be
called, so both counts grow in a straight line. In the ROC that is a straight line too, in
precision and recall a hyperbola (Davis and Goadrich 2006); straight lines there would be too kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gan_ray.scoring.metrics import Array, Resampled


@dataclass(frozen=True)
class Curve:
    """A figure of labels and scores at each of G places; the counterpart of `metrics.Metric`."""

    name: str
    at: Array
    """The places on the horizontal axis, float64 [G], rising."""
    compute: Callable[[Resampled], Array]
    """Gives the curve of each resample, float64 [R, G]."""


_PERCENT = np.arange(101)


def _sensitivity(images: Resampled) -> Array:
    allowed = _PERCENT * images.false_alarms[:, -1:]  # in hundredths of images: exact
    hits = _along(100 * images.false_alarms, images.hits, allowed, "right")
    share: Array = hits / images.hits[:, -1:]
    return share


def _precision(images: Resampled) -> Array:
    asked = _PERCENT[1:] * images.hits[:, -1:]
    false_alarms = _along(100 * images.hits, images.false_alarms, asked, "left")
    share: Array = asked / (asked + 100 * false_alarms)
    return share


def _along(x: Array, y: Array, at: Array, side: Literal["left", "right"]) -> Array:
    """Give y [R, G] at places `at` [R, G] of lines from (0, 0) through (x, y) [R, K], both rising.

    Where x stands still while y rises, `left` takes the lowest y and `right` the highest.
    """
    x, y = (np.pad(each, ((0, 0), (1, 0))) for each in (x, y))
    rows, points = x.shape
    apart = np.arange(rows)[:, None] * (x[:, -1].max() + 1)  # one sorted line of all resamples
    found = np.searchsorted((x + apart).ravel(), (at + apart).ravel(), side).reshape(at.shape)
    after = np.clip(found - np.arange(rows)[:, None] * points, 1, points - 1)
    (x_before, y_before), (x_after, y_after) = (
        (np.take_along_axis(x, index, 1), np.take_along_axis(y, index, 1))
        for index in (after - 1, after)
    )
    width = x_after - x_before
    share = np.divide(at - x_before, width, out=np.ones_like(width), where=width > 0)
    reached: Array = y_before + share * (y_after - y_before)
    return reached


roc = Curve("roc", _PERCENT / 100, _sensitivity)
"""The highest sensitivity at each false-positive rate 0, 0.01, ..., 1."""
precision_recall = Curve("precision_recall", _PERCENT[1:] / 100, _precision)
"""The highest precision at each recall 0.01, ..., 1; at recall 0 nothing need be called."""

CURVES = (roc, precision_recall)
