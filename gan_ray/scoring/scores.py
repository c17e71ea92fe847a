"""Scores: from what a detector says about an image to one number; higher is more abnormal.

A score is a weighted sum of parts, and so is its map. It names the evidence it needs, so a detector
that cannot feed it is refused when the score is made; an option it does not read is refused, too.

Shapes: images [B, C, S, S] in [-1, 1]; score [B]; map [B, 1, S, S].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from gan_ray.config import ScoreConfig
from gan_ray.detector import Detector, Evidence
from gan_ray.errors import ConfigError, unknown
from gan_ray.scoring.parts import MAPS, PARTS, Part
from gan_ray.scoring.similarity import refuse_small


@dataclass(frozen=True)
class Scored:
    """A batch with its scores, in float32 or better."""

    score: Tensor
    """[B]; higher is more abnormal."""
    map: Tensor | None = None
    """[B, 1, S, S], where the image is abnormal; None for a detector without reconstruction."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """[B] each: the unweighted components of the score, by name."""


class Score(Protocol):
    """Turns evidence into scores."""

    @property
    def needs(self) -> frozenset[str]:
        """Names of the evidence it reads, as in `Evidence.offers`."""

    def __call__(self, images: Tensor, evidence: Evidence) -> Scored:
        """Score each image by its own evidence alone."""


@dataclass(frozen=True)
class WeightedSum:
    """Sum of weight * part / scale; its map is the same sum of maps, mean_c |x - x_hat| by default.

    A part of weight 0 counts for nothing and needs no evidence; it is told where there is some.
    """

    weights: Mapping[str, float]
    """By name of the part (see `parts.PARTS`)."""
    map_weights: Mapping[str, float] = field(default_factory=lambda: {"map_residual": 1.0})
    """By name of the map (see `parts.MAPS`)."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """By name of the part or map; 1 where there is none."""

    @property
    def needs(self) -> frozenset[str]:
        """The evidence of each part that counts."""
        return frozenset(PARTS[name].needs for name, weight in self.weights.items() if weight)

    def __call__(self, images: Tensor, evidence: Evidence) -> Scored:
        """Score each image by its own evidence."""
        offers = evidence.offers

        def measure(table: Mapping[str, Part], names: Iterable[str]) -> dict[str, Tensor]:
            return {n: table[n](images, evidence) for n in names if table[n].needs in offers}

        parts = measure(PARTS, self.weights)
        maps = measure(MAPS, (name for name, weight in self.map_weights.items() if weight))
        score = self._sum(self.weights, parts)
        return Scored(score, self._sum(self.map_weights, maps) if maps else None, parts)

    def _sum(self, weights: Mapping[str, float], parts: Mapping[str, Tensor]) -> Tensor:
        counted = [name for name in parts if weights[name]]
        terms = [weights[name] * parts[name] / self.scales.get(name, 1.0) for name in counted]
        return torch.stack(terms).sum(0)


@dataclass(frozen=True)
class Pooled:
    """Another score with its map blurred, and its number the mean of the map's top share.

    `smooth` is the Gaussian's standard deviation in pixels; with `top` 0 the number is kept. A
    share below one pixel takes the largest one.
    """

    score: Score
    smooth: float
    top: float

    @property
    def needs(self) -> frozenset[str]:
        """What the other score needs, and a reconstruction to make a map of."""
        return self.score.needs | {"reconstruction"}

    def __call__(self, images: Tensor, evidence: Evidence) -> Scored:
        """Score, then blur and pool each map by itself."""
        scored = self.score(images, evidence)
        assert scored.map is not None
        blurred = _blur(scored.map, self.smooth) if self.smooth else scored.map
        if not self.top:
            return Scored(scored.score, blurred, scored.parts)
        pixels = blurred.flatten(1)
        count = max(1, math.ceil(self.top * pixels.shape[1]))
        return Scored(pixels.topk(count, dim=1).values.mean(1), blurred, scored.parts)


@dataclass(frozen=True)
class _Recipe:
    """How a score is made: of the settings it `reads`, given by name."""

    make: Callable[..., WeightedSum]
    reads: tuple[str, ...] = ()
    check_size: Callable[[int], None] = lambda size: None
    """Raises ConfigError for images whose side of so many pixels is too small for it."""

    def made(self, config: ScoreConfig) -> WeightedSum:
        return self.make(**{setting: getattr(config, setting) for setting in self.reads})


def _sum_of(**weights: float) -> _Recipe:
    return _Recipe(partial(WeightedSum, weights))


def _scaled(feature_weight: float, pixel_weight: float, scales: Mapping[str, float]) -> WeightedSum:
    """A = a_R + kappa_g a_g + kappa_p a_p, and for each pixel M = m_R + kappa_p m_p.

    a are mean squares over an image, m mean absolute values over the channels of a pixel, of
    x - x_hat, f_g - f_g_hat and f_p - f_p_hat, each divided by its mean over held-out normals.
    Deviation: the published code of F-UNetGAN adds one number for all features of a batch to the
    map, and has no score of an image.
    """
    weights = {"residual_squared": 1.0, "features_global": feature_weight,
               "features_pixel": pixel_weight, "map_residual": 0.0, "map_pixel": 0.0}  # fmt: skip
    return WeightedSum(weights, {"map_residual": 1.0, "map_pixel": pixel_weight}, scales)


_RECIPES: Mapping[str, _Recipe] = {
    # The translation systems: HealthyGAN (Rahman Siddiquee et al. 2022), Brainomaly (2024), SAGAN.
    "residual": _Recipe(partial(WeightedSum, {"residual": 1.0}, {"map_residual": 0.5})),
    # f-AnoGAN's A(x) = A_R + kappa A_D (Schlegl et al. 2019, eq. 4), and A_R or A_D alone.
    "residual_squared": _sum_of(residual_squared=1.0, features=0.0),
    "residual_features": _Recipe(
        lambda feature_weight: WeightedSum({"residual_squared": 1.0, "features": feature_weight}),
        reads=("feature_weight",),
    ),
    "features": _sum_of(residual_squared=0.0, features=1.0),
    # AnoGAN's A(x) = (1 - lambda) R + lambda D, sums as in the paper (Schlegl et al. 2017).
    "search": _Recipe(
        lambda feature_share: WeightedSum({"l1": 1 - feature_share, "feature_sum": feature_share}),
        reads=("feature_share",),
    ),
    # Global and per-pixel features of a U-Net critic.
    "scaled_features": _Recipe(_scaled, reads=("feature_weight", "pixel_weight", "scales")),
    # GANomaly (Akcay et al. 2018): its code takes the mean square, eq. 5 the L1 norm.
    "latent": _sum_of(latent=1.0, residual=0.0),
    "latent_l1": _sum_of(latent_l1=1.0, residual=0.0),
    # ALOCC's OCC1 and OCC2 (Sabokrou et al. 2018), before the sigmoid, which saturates.
    "occ1": _sum_of(judged_image=1.0, judged_reconstruction=0.0),
    "occ2": _sum_of(judged_image=0.0, judged_reconstruction=1.0),
    # Structural dissimilarity, (1 - SSIM) / 2 (Wang et al. 2004).
    "ssim": _Recipe(
        partial(WeightedSum, {"dissimilarity": 1.0}, {"map_dissimilarity": 1.0}),
        check_size=refuse_small,
    ),
    # ALAD's scores (Zenati et al. 2018, arXiv:1812.02288), and EGBAD's sums (arXiv:1802.06222).
    "l1": _sum_of(l1=1.0),
    "l2": _sum_of(l2=1.0),
    "pair_features": _sum_of(pair_features=1.0),
    "pair_features_l2": _sum_of(pair_features_l2=1.0),
    "pair_logits": _sum_of(pair_logits=1.0),
    "l1_pair_features": _Recipe(
        lambda feature_weight: WeightedSum({"l1": 1.0, "pair_features": feature_weight}),
        reads=("feature_weight",),
    ),
    "l1_pair_logits": _Recipe(
        lambda feature_weight: WeightedSum({"l1": 1.0, "pair_logits": feature_weight}),
        reads=("feature_weight",),
    ),
}


def offered(detector: type[Detector] | Detector) -> tuple[str, ...]:
    """Name the scores that a detector can feed, the paper's first: all whose evidence it offers."""
    usual = ScoreConfig()
    able = (n for n, recipe in _RECIPES.items() if recipe.made(usual).needs <= detector.offers)
    return tuple(dict.fromkeys((detector.score, *able)))


def make_score(config: ScoreConfig, detector: type[Detector] | Detector) -> Score:
    """Give the score that `config` names; an empty name means the paper's.

    Raises:
        ConfigError: the name is unknown, the detector lacks the evidence it needs, its images are
            too small for it, a number is out of range, or a setting is changed that this score does
            not read.
    """
    name, recipe = _recipe(config, detector)
    _check_ranges(config)
    score: Score = recipe.made(config)
    if config.smooth or config.top:
        score = Pooled(score, config.smooth, config.top)
    missing = score.needs - detector.offers
    if missing:
        raise ConfigError(
            f"score '{name}' needs {_listed(score.needs)}; {detector.name} offers "
            f"{_listed(detector.offers)} and lacks {_listed(missing)}. Choose another score "
            f"(--score.name): {', '.join(offered(detector))}; leave --score.smooth and --score.top "
            "at 0 without a reconstruction."
        )
    _refuse_idle(config, name, offered(detector))
    if isinstance(detector, Detector):
        recipe.check_size(detector.image.size)
    return score


def settings_read(config: ScoreConfig, detector: type[Detector] | Detector) -> frozenset[str]:
    """Name the settings that not every score reads and this one does, such as `feature_weight`.

    Raises:
        ConfigError: the name is unknown.
    """
    return frozenset(_recipe(config, detector)[1].reads)


def _recipe(config: ScoreConfig, detector: type[Detector] | Detector) -> tuple[str, _Recipe]:
    name = config.name or detector.score
    if name not in _RECIPES:
        raise ConfigError(unknown(f"score of {detector.name}", name, offered(detector)))
    return name, _RECIPES[name]


def _check_ranges(config: ScoreConfig) -> None:
    ranges = {
        "smooth": ("0 or more", config.smooth >= 0),
        "top": ("0 to 1", 0 <= config.top <= 1),
        "feature_weight": ("0 or more", config.feature_weight >= 0),
        "pixel_weight": ("0 or more", config.pixel_weight >= 0),
        "feature_share": ("0 to 1", 0 <= config.feature_share <= 1),
        "scales": ("above 0", not any(scale <= 0 for scale in config.scales.values())),
    }
    odd = [f"{setting}={getattr(config, setting)} (allowed: {allowed})"
           for setting, (allowed, fine) in ranges.items() if not fine]  # fmt: skip
    if odd:
        raise ConfigError(f"score settings are out of range: {', '.join(odd)}.")


def _refuse_idle(config: ScoreConfig, name: str, others: Sequence[str]) -> None:
    """Refuse changed settings that have no effect on the score `name`."""
    usual, optional = ScoreConfig(), {s for recipe in _RECIPES.values() for s in recipe.reads}
    for setting in sorted(optional - set(_RECIPES[name].reads)):
        if getattr(config, setting) != getattr(usual, setting):
            readers = [other for other in others if setting in _RECIPES[other].reads]
            choice = f", or choose --score.name {' or '.join(readers)}" if readers else ""
            raise ConfigError(
                f"score '{name}' does not read score.{setting}={getattr(config, setting)}: leave "
                f"it at {getattr(usual, setting)}{choice}."
            )


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _blur(maps: Tensor, deviation: float) -> Tensor:
    radius = math.ceil(4 * deviation)
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = kernel / kernel.sum()
    wide = pad(maps, (radius, radius, radius, radius), mode="replicate")
    return conv2d(conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
