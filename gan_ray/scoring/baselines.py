"""What needs no GAN: trivial detectors, fitted on training normals, that stand beside a model.

A detector that does not beat them has shown nothing. Pixels are in [0, 1]; images above 64 pixels
are reduced to 64 for the mean image and PCA, those above 32 to 32 for kNN (bilinear with
antialiasing). Sharpness is taken at the size of evaluation, and its AUROC depends on that size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch.nn.functional import interpolate

from gan_ray.artifacts.bundle import Bundle
from gan_ray.data.sources import Split
from gan_ray.data.transforms import to_unit
from gan_ray.experiment import build_detector
from gan_ray.scoring.scales import fit_scales
from gan_ray.scoring.scorer import Result, Scorer
from gan_ray.scoring.scores import make_score

_MOST_NORMALS = 10_000
_BATCH = 256

Judgement = tuple[np.ndarray, np.ndarray | None]
"""Scores [N], and residuals [N, C, s, s] that make the map, if there is one."""


class Judge(Protocol):
    """Whatever scores images as `Scorer` does."""

    def score_images(
        self,
        images: np.ndarray,
        *,
        classes: np.ndarray | None = None,
        maps: bool = False,
        reconstructions: bool = False,
    ) -> Result:
        """Score images [N, C, S, S], uint8 or uint16."""


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline; a `Judge` without reconstructions."""

    name: str
    title: str
    """What it computes, in words."""
    size: int
    """Largest side it looks at."""
    judge: Callable[[np.ndarray], Judgement]

    def score_images(
        self,
        images: np.ndarray,
        *,
        classes: np.ndarray | None = None,
        maps: bool = False,
        reconstructions: bool = False,
    ) -> Result:
        """Score images [N, C, S, S], uint8 or uint16, in batches of 256; classes do not matter."""
        starts = range(0, len(images), _BATCH)
        pairs = [self.judge(_pixels(images[s : s + _BATCH], self.size)) for s in starts]
        scores = np.concatenate([scores for scores, _ in pairs]).astype(np.float32)
        residuals = [residual.mean(1) for _, residual in pairs if residual is not None]
        kept = np.concatenate(residuals) if maps and residuals else None
        return Result(scores=scores, parts={}, maps=kept)


def fit_baselines(normals: np.ndarray) -> tuple[Baseline, ...]:
    """Fit all of them on training normals [N, C, S, S]; of more than 10,000, evenly spaced ones."""
    picks = np.unique(np.linspace(0, len(normals) - 1, _MOST_NORMALS).astype(int))
    normals = normals[picks]
    small = _pixels(normals, 64)
    components = min(32, len(small), small[0].size)
    return (
        Baseline("mean_image", "mean |x - mean of normals|", 64, _mean_image(small)),
        Baseline(
            f"pca{components}",
            f"mean squared residual after {components} principal components",
            64,
            _principal_components(small, components),
        ),
        Baseline(
            "knn5_standardised",
            "mean distance to 5 nearest normals, each image standardised",
            32,
            _nearest_normals(_pixels(normals, 32)),
        ),
        Baseline("sharpness", "minus mean |4-neighbour Laplacian|", normals.shape[-1], _sharpness),
    )


def untrained(bundle: Bundle, normals: Split, *, device: torch.device | str = "cpu") -> Scorer:
    """Give the bundle's own networks as they were before training: same experiment, same seed.

    A score that scales its parts does so by theirs on the held-out `normals`.
    """
    detector = build_detector(bundle.experiment).requires_grad_(False)
    score = fit_scales(bundle.score, detector, normals, device=device)
    return Scorer(detector, make_score(score, detector), device=device)


def _mean_image(normals: np.ndarray) -> Callable[[np.ndarray], Judgement]:
    mean = normals.mean(0, dtype=np.float64).astype(np.float32)

    def judge(images: np.ndarray) -> Judgement:
        residuals = np.abs(images - mean)
        return residuals.mean((1, 2, 3)), residuals

    return judge


def _principal_components(normals: np.ndarray, count: int) -> Callable[[np.ndarray], Judgement]:
    pca: Any = PCA(count, random_state=0).fit(normals.reshape(len(normals), -1))

    def judge(images: np.ndarray) -> Judgement:
        flat = images.reshape(len(images), -1)
        residuals = flat - pca.inverse_transform(pca.transform(flat))
        return np.square(residuals).mean(1), np.abs(residuals).reshape(images.shape)

    return judge


def _nearest_normals(normals: np.ndarray) -> Callable[[np.ndarray], Judgement]:
    def standardised(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1)
        spread = np.maximum(flat.std(1, keepdims=True), 1e-6)  # an even image has none
        result: np.ndarray = (flat - flat.mean(1, keepdims=True)) / spread
        return result

    neighbours: Any = NearestNeighbors(n_neighbors=min(5, len(normals)), algorithm="brute")
    neighbours.fit(standardised(normals))

    def judge(images: np.ndarray) -> Judgement:
        distances, _ = neighbours.kneighbors(standardised(images))
        return distances.mean(1), None

    return judge


def _sharpness(images: np.ndarray) -> Judgement:
    centre = images[:, :, 1:-1, 1:-1]
    vertical = images[:, :, :-2, 1:-1] + images[:, :, 2:, 1:-1]
    horizontal = images[:, :, 1:-1, :-2] + images[:, :, 1:-1, 2:]
    return -np.abs(vertical + horizontal - 4 * centre).mean((1, 2, 3)), None


def _pixels(images: np.ndarray, size: int) -> np.ndarray:
    """Give images in [0, 1], float32 [N, C, s, s], reduced to at most `size` pixels."""
    parts = []
    for start in range(0, len(images), _BATCH):
        unit = (to_unit(images[start : start + _BATCH], torch.device("cpu")) + 1) / 2
        if unit.shape[-1] > size:
            unit = interpolate(unit, (size, size), mode="bilinear", antialias=True)
        parts.append(unit.numpy())
    return np.concatenate(parts)
