"""Scores: from what a detector says about an image to one number; higher is more abnormal.

A score names the evidence it needs, so a detector that cannot feed it is refused when the score is
made. Every reduction is over the axes of one image: a score knows nothing of its batch.

Shapes: images [B, C, S, S] in [-1, 1]; score [B]; map [B, 1, S, S].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad, softplus

from gan_ray.config import ScoreConfig
from gan_ray.detector import Detector, Evidence, Pair
from gan_ray.errors import ConfigError, unknown


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
class Residual:
    """mean |x - x_hat| / 2 over channels and pixels, in [0, 1]; its map is the mean over channels.

    The translation systems: HealthyGAN (Rahman Siddiquee et al. 2022), Brainomaly (2024), SAGAN.
    """

    needs = frozenset({"reconstruction"})

    def __call__(self, images: Tensor, evidence: Evidence) -> Scored:
        """Score each image by its own reconstruction."""
        residual = _residual(images, evidence) / 2
        score = residual.flatten(1).mean(1)
        return Scored(score, residual, {"residual": score})


@dataclass(frozen=True)
class SquaredDistance:
    """image_weight * mean (x - x_hat)^2 + feature_weight * mean (f - f_hat)^2, f of the critic.

    f-AnoGAN's A(x) = A_R + kappa A_D (Schlegl et al. 2019, eq. 4) with both weights, A_R or A_D
    with one of them; a weight of 0 needs no evidence of its kind. The map is mean_c |x - x_hat|.
    """

    image_weight: float
    feature_weight: float

    @property
    def needs(self) -> frozenset[str]:
        """The image's side, the features' side, or both."""
        sides = {"reconstruction": self.image_weight, "features.critic": self.feature_weight}
        return frozenset(name for name, weight in sides.items() if weight)

    def __call__(self, images: Tensor, evidence: Evidence) -> Scored:
        """Score each image by its own reconstruction and features."""
        parts = {}
        if evidence.reconstruction is not None:
            parts["residual_squared"] = _mean_square((images, evidence.reconstruction))
        if "critic" in evidence.features:
            parts["features"] = _mean_square(evidence.features["critic"])
        weights = {"residual_squared": self.image_weight, "features": self.feature_weight}
        score = torch.stack([weights[name] * part for name, part in parts.items()]).sum(0)
        return Scored(score, _map(images, evidence), parts)


@dataclass(frozen=True)
class AbsoluteDistance:
    """(1 - lambda) sum |x - x_hat| + lambda sum |f - f_hat|, f of the discriminator.

    AnoGAN's A(x), sums as in the paper (Schlegl et al. 2017). The map is mean_c |x - x_hat|.
    """

    feature_share: float
    needs = frozenset({"reconstruction", "features.discriminator"})

    def __call__(self, images: Tensor, evidence: Evidence) -> Scored:
        """Score each image by its own reconstruction and features."""
        assert evidence.reconstruction is not None
        image = _sum_absolute((images, evidence.reconstruction))
        features = _sum_absolute(evidence.features["discriminator"])
        score = (1 - self.feature_share) * image + self.feature_share * features
        return Scored(score, _map(images, evidence), {"image_sum": image, "feature_sum": features})


@dataclass(frozen=True)
class LatentDistance:
    """Distance of the two latent codes: mean (z - z_hat)^2, or sum |z - z_hat| for order 1.

    GANomaly: the authors' code takes the mean square, the paper prints the L1 norm (Akcay et al.
    2018, eq. 5). The map is mean_c |x - x_hat|, ours: the reference has none.
    """

    order: int
    needs = frozenset({"latents.code"})

    def __call__(self, images: Tensor, evidence: Evidence) -> Scored:
        """Score each image by its own pair of codes."""
        code = evidence.latents["code"]
        distance = _difference(code).flatten(1)
        score = distance.abs().sum(1) if self.order == 1 else distance.square().mean(1)
        residual = _map(images, evidence)
        parts = {"latent": score}
        if residual is not None:
            parts["residual"] = residual.flatten(1).mean(1) / 2
        return Scored(score, residual, parts)


@dataclass(frozen=True)
class PairDistance:
    """Weighted sum of how far an image is from its reconstruction, by name of the part.

    l1: sum |x - x_hat|; l2: its root of the sum of squares. pair_features, pair_features_l2: the
    same two of a discriminator's features of the true pair and of the reconstructed pair.
    pair_logits: -log s(D) of the reconstructed pair. ALAD's scores (Zenati et al. 2018,
    arXiv:1812.02288), and EGBAD's sum of l1 and one of the others (arXiv:1802.06222). The map is
    mean_c |x - x_hat|, ours: the references have none.
    """

    weights: Mapping[str, float]

    @property
    def needs(self) -> frozenset[str]:
        """The evidence of each weighted part."""
        return frozenset(_PAIR_PARTS[name][0] for name in self.weights)

    def __call__(self, images: Tensor, evidence: Evidence) -> Scored:
        """Score each image by its own reconstruction, features and logit."""
        parts = {name: _PAIR_PARTS[name][1](images, evidence) for name in self.weights}
        score = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum(0)
        return Scored(score, _map(images, evidence), parts)


_PAIR_PARTS: Mapping[str, tuple[str, Callable[[Tensor, Evidence], Tensor]]] = {
    "l1": ("reconstruction", lambda images, evidence: _norm(_images(images, evidence), 1)),
    "l2": ("reconstruction", lambda images, evidence: _norm(_images(images, evidence), 2)),
    "pair_features": ("features.pair", lambda _, evidence: _norm(evidence.features["pair"], 1)),
    "pair_features_l2": ("features.pair", lambda _, evidence: _norm(evidence.features["pair"], 2)),
    "pair_logits": ("logits.pair", lambda _, evidence: softplus(-evidence.logits["pair"].float())),
}


@dataclass(frozen=True)
class Judgement:
    """-D(x) of the image (`image`) or of its reconstruction (`reconstruction`), D a logit.

    OCC1 and OCC2 of ALOCC (Sabokrou et al. 2018), before the sigmoid, which saturates.
    Both are parts. The map is mean_c |x - x_hat|, ours: the reference has none.
    """

    of: str

    @property
    def needs(self) -> frozenset[str]:
        """The logit it goes by."""
        return frozenset({f"logits.{self.of}"})

    def __call__(self, images: Tensor, evidence: Evidence) -> Scored:
        """Score each image by its own logit."""
        precise = torch.promote_types(images.dtype, torch.float32)
        parts = {f"judged_{name}": -logit.to(precise) for name, logit in evidence.logits.items()}
        return Scored(parts[f"judged_{self.of}"], _map(images, evidence), parts)


@dataclass(frozen=True)
class Pooled:
    """Another score with its map blurred, and its number the mean of the map's top share.

    `smooth` is the Gaussian's standard deviation in pixels; with `top` 0 the number is kept.
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


_SCORES: Mapping[str, Callable[[ScoreConfig], Score]] = {
    "residual": lambda config: Residual(),
    "residual_squared": lambda config: SquaredDistance(1.0, 0.0),
    "residual_features": lambda config: SquaredDistance(1.0, config.feature_weight),
    "features": lambda config: SquaredDistance(0.0, 1.0),
    "search": lambda config: AbsoluteDistance(config.feature_share),
    "latent": lambda config: LatentDistance(2),
    "latent_l1": lambda config: LatentDistance(1),
    "occ1": lambda config: Judgement("image"),
    "occ2": lambda config: Judgement("reconstruction"),
    "l1": lambda config: PairDistance({"l1": 1.0}),
    "l2": lambda config: PairDistance({"l2": 1.0}),
    "pair_features": lambda config: PairDistance({"pair_features": 1.0}),
    "pair_features_l2": lambda config: PairDistance({"pair_features_l2": 1.0}),
    "pair_logits": lambda config: PairDistance({"pair_logits": 1.0}),
    "l1_pair_features": lambda config: PairDistance(
        {"l1": 1.0, "pair_features": config.feature_weight}
    ),
    "l1_pair_logits": lambda config: PairDistance(
        {"l1": 1.0, "pair_logits": config.feature_weight}
    ),
}


def make_score(config: ScoreConfig, detector: type[Detector] | Detector) -> Score:
    """Give the score that `config` names; an empty name means the detector's first, the paper's.

    Raises:
        ConfigError: the name is unknown, the detector does not list it or lacks the evidence it
            needs, or a number is out of range.
    """
    name = config.name or detector.scores[0]
    if name not in _SCORES:
        raise ConfigError(unknown("score", name, _SCORES))
    if name not in detector.scores:
        raise ConfigError(unknown(f"score of {detector.name}", name, detector.scores))
    if not (config.smooth >= 0 and 0 <= config.top <= 1 and config.feature_weight >= 0):
        raise ConfigError(
            f"score settings are out of range: smooth={config.smooth} (allowed: 0 or more), "
            f"top={config.top} (0 to 1), feature_weight={config.feature_weight} (0 or more)"
        )
    if not 0 <= config.feature_share <= 1:
        raise ConfigError(f"score.feature_share={config.feature_share} must lie between 0 and 1.")
    score = _SCORES[name](config)
    if config.smooth or config.top:
        score = Pooled(score, config.smooth, config.top)
    missing = score.needs - detector.offers
    if missing:
        raise ConfigError(
            f"score '{name}' needs {_listed(score.needs)}; {detector.name} offers "
            f"{_listed(detector.offers)} and lacks {_listed(missing)}. Choose another score "
            "(--score.name), or leave --score.smooth and --score.top at 0 without a reconstruction."
        )
    return score


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _difference(pair: Pair) -> Tensor:
    first, second = pair
    precise = torch.promote_types(first.dtype, torch.float32)
    return first.to(precise) - second.to(precise)


def _norm(pair: Pair, order: int) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(_difference(pair).flatten(1), order, dim=1)
    return norm


def _images(images: Tensor, evidence: Evidence) -> Pair:
    assert evidence.reconstruction is not None
    return images, evidence.reconstruction


def _mean_square(pair: Pair) -> Tensor:
    return _difference(pair).flatten(1).square().mean(1)


def _sum_absolute(pair: Pair) -> Tensor:
    return _difference(pair).flatten(1).abs().sum(1)


def _residual(images: Tensor, evidence: Evidence) -> Tensor:
    assert evidence.reconstruction is not None
    return _difference((images, evidence.reconstruction)).abs().mean(1, keepdim=True)


def _map(images: Tensor, evidence: Evidence) -> Tensor | None:
    return None if evidence.reconstruction is None else _residual(images, evidence)


def _blur(maps: Tensor, deviation: float) -> Tensor:
    radius = math.ceil(4 * deviation)
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = kernel / kernel.sum()
    wide = pad(maps, (radius, radius, radius, radius), mode="replicate")
    return conv2d(conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
