"""Scales of a score: what each of its parts is on normal images, so that parts can be added up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from gan_ray.config import ScoreConfig
from gan_ray.data.sources import Split
from gan_ray.detector import Detector
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score, settings_read


def fit_scales(
    config: ScoreConfig,
    detector: Detector,
    normals: Split,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> ScoreConfig:
    """Fill `scales` with the mean of each part over held-out normals, 1 for a mean of 0.

    `normals` are those of selection, never those of calibration, whose threshold would no longer
    be conformal. A score that does not scale gives `config` back without a look at them.
    """
    if "scales" not in settings_read(config, detector):
        return config
    unscaled = make_score(dataclasses.replace(config, scales={}), detector)
    scorer = Scorer(detector, unscaled, device=device, batch_size=batch_size)
    parts = scorer.score_images(normals.images, classes=normals.classes).parts
    return dataclasses.replace(config, scales=scales_of(parts))


def scales_of(parts: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Give the scales that `parts` [N] of N held-out normals make: their means, 1 for a 0."""
    return {name: float(part.mean(dtype=np.float64)) or 1.0 for name, part in parts.items()}
