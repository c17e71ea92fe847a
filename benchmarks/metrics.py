"""What an evaluation's figures cost: all of one model, with bands too, and paired comparisons."""

from __future__ import annotations

import numpy as np

from benchmarks.core import cpu_ms
from gan_ray.scoring.calibration import calibrate
from gan_ray.scoring.comparison import compare
from gan_ray.scoring.curves import CURVES
from gan_ray.scoring.delong import delong
from gan_ray.scoring.intervals import intervals, intervals_and_bands, paired
from gan_ray.scoring.metrics import DECISIONS, RANKING, auroc
from gan_ray.scoring.reliability import RELIABILITY

_IMAGES = 2000


def run() -> dict[str, float]:
    rng = np.random.default_rng(0)
    labels = np.arange(_IMAGES) % 2
    scores, other = rng.normal(size=(2, _IMAGES)) + labels
    eight = [(str(seed), rng.normal(size=_IMAGES) + labels) for seed in range(8)]
    calibration = calibrate(rng.normal(size=200), 0.05)
    judged = [
        (RANKING, scores),
        (DECISIONS, calibration.abnormal(scores)),
        (RELIABILITY, 1 - calibration.p_values(scores)),
    ]
    works = {
        "all_image_metrics": lambda: intervals(judged, labels),
        "with_bands": lambda: intervals_and_bands([*judged, (CURVES, scores)], labels),
        "paired_auroc": lambda: paired(auroc, labels, scores, other),
        "all_pairs_of_eight": lambda: compare(eight, 8, labels, np.full(_IMAGES, ""), 1000),
        "delong": lambda: delong(labels, scores, other),
    }
    found = {name: cpu_ms(work, 3) / 1000 for name, work in works.items()}
    print(f"CPU seconds for {_IMAGES:,} images, 1,000 resamples (DeLong: none)")
    for name, seconds in found.items():
        print(f"{name:20}{seconds:8.4f}")
    return found
