"""Every model against every other on the same images, and what many comparisons make of chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gan_ray.scoring.delong import delong
from gan_ray.scoring.intervals import difference, resample
from gan_ray.scoring.metrics import Array, auroc, average_precision
from gan_ray.scoring.subjects import repeat


def compare(
    rows: Sequence[tuple[str, Array]],
    models: int,
    labels: Array,
    groups: Array,
    resamples: int,
) -> list[dict[str, Any]]:
    """Compare each of the first `models` rows with all rows that follow it, in AUROC and AP.

    A row is a name with scores [N]; `labels` and `groups` are [N]. Each entry holds `a`, `b`,
    `metric` and the fields of `intervals.Paired`; `p_delong`, of AUROCs only, None where images
    are not independent because a group has several, or a class has one image; and `p_holm`,
    `p_value` corrected over all entries.
    """
    independent = not repeat(groups) and min(np.bincount(labels.astype(int), minlength=2)) > 1
    metrics = (auroc, average_precision)
    drawn = resample([(metrics, scores) for _, scores in rows], labels, groups, resamples)
    entries = []
    for first in range(models):
        for second in range(first + 1, len(rows)):
            (a, a_scores), (b, b_scores) = rows[first], rows[second]
            exact = delong(labels, a_scores, b_scores).p_value if independent else None
            for metric in metrics:
                found = difference(drawn[first][metric.name] - drawn[second][metric.name])
                p_delong = exact if metric is auroc else None
                entries.append(
                    {"a": a, "b": b, "metric": metric.name}
                    | dataclasses.asdict(found)
                    | {"p_delong": p_delong}
                )
    corrected = holm(np.array([entry["p_value"] for entry in entries])).tolist()
    return [entry | {"p_holm": p} for entry, p in zip(entries, corrected, strict=True)]


def holm(p_values: Array) -> Array:
    """Give p-values [M] corrected for their number, float64 [M], in their order (Holm 1979).

    Calling those of at most 5 % differences makes one false call or more in at most 5 % of such
    families, however the tests depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return corrected
