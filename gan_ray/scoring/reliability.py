"""Whether a p-value means what it says, on test images; metrics of the forecast 1 - p.

A conformal p-value promises one thing: a share of at most a of normal images has p <= a. It is no
probability of being abnormal, which would change with how many abnormal images there are, so bins
of p against the share of abnormal images (the usual calibration error) would judge a promise that
nobody made. The error here is that of the promise itself.
"""

from __future__ import annotations

import numpy as np

from gan_ray.scoring.metrics import Array, Metric, Resampled


def _brier(images: Resampled) -> Array:
    missed = images.positives @ np.square(1 - images.values)
    alarmed = images.negatives @ np.square(images.values)
    error: Array = (missed + alarmed) / (images.hits[:, -1] + images.false_alarms[:, -1])
    return error


def _calibration_error(images: Resampled) -> Array:
    rates = np.concatenate([[0.0], 1 - images.values, [1.0]])
    realised = images.false_alarms / images.false_alarms[:, -1:]
    realised = np.concatenate([np.zeros((len(realised), 1)), realised], axis=1)
    after, before = rates[1:] - realised, rates[:-1] - realised  # a - F(a) where F stands still
    area: Array = (after * np.abs(after) - before * np.abs(before)).sum(1) / 2
    return area


brier = Metric("brier", _brier)
"""Mean squared error of 1 - p as a forecast of the label (Brier 1950); lower is better.

P-values of normal images are uniform when they keep their promise, which costs 1/3 for each of
them: with a share q of normal images, a perfect detector has q / 3, p-values that know nothing
1/3. Compare models on the same images only.
"""
calibration_error = Metric("calibration_error", _calibration_error)
"""Mean over stated false-positive rates a in [0, 1] of |share of normals with p <= a, less a|.

The expected calibration error of the p-value: how far the realised false-positive rate is from
the stated one, on average over all rates. Exact, by the steps of the share; 0 is perfect, 1/2 the
worst. With n calibration images p has n + 1 values, so it is at least about 1 / (2 n + 2).
"""

RELIABILITY = (brier, calibration_error)
"""Call them with forecasts 1 - p in [0, 1] in place of scores."""
