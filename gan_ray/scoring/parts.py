"""What scores are made of: named figures of one image's evidence, and the maps behind them.

Every reduction is over the axes of one image: a part knows nothing of its batch. Results are in
float32 or better, whatever the networks computed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from gan_ray.detector import Evidence, Pair
from gan_ray.scoring.similarity import dissimilarity, dissimilarity_map


@dataclass(frozen=True)
class Part:
    """One figure [B], or one map [B, 1, S, S], of a batch; higher is more abnormal."""

    needs: str
    """The evidence it looks at, as in `Evidence.offers`."""
    measure: Callable[[Any], Tensor]
    """Of that evidence: a pair of tensors (with the image, of a reconstruction), or a logit."""

    def __call__(self, images: Tensor, evidence: Evidence) -> Tensor:
        """Measure each image of images [B, C, S, S] in [-1, 1] by its own evidence."""
        kind, _, name = self.needs.partition(".")
        seen = getattr(evidence, kind)
        return self.measure(seen[name] if name else (images, seen))


def _difference(pair: Pair) -> Tensor:
    first, second = (tensor.to(_precise(tensor)) for tensor in pair)
    return first - second


def _precise(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _mean_square(pair: Pair) -> Tensor:
    return _difference(pair).flatten(1).square().mean(1)


def _mean_absolute(pair: Pair) -> Tensor:
    return _difference(pair).flatten(1).abs().mean(1)


def _half_mean_absolute(pair: Pair) -> Tensor:
    return _mean_absolute(pair) / 2


def _norm(order: int, pair: Pair) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(_difference(pair).flatten(1), order, dim=1)
    return norm


def _absolute_map(pair: Pair) -> Tensor:
    return _difference(pair).abs().mean(1, keepdim=True)


def _negative(logit: Tensor) -> Tensor:
    return -logit.to(_precise(logit))


def _surprise(logit: Tensor) -> Tensor:
    return softplus(_negative(logit))


_sum_absolute, _euclidean = partial(_norm, 1), partial(_norm, 2)

PARTS: Mapping[str, Part] = {
    # Of the image x and its reconstruction x_hat: mean |.| / 2, in [0, 1]; mean |.|; mean (.)^2;
    # sum |.|; root of the sum of squares; (1 - SSIM) / 2.
    "residual": Part("reconstruction", _half_mean_absolute),
    "map_residual": Part("reconstruction", _mean_absolute),
    "residual_squared": Part("reconstruction", _mean_square),
    "l1": Part("reconstruction", _sum_absolute),
    "l2": Part("reconstruction", _euclidean),
    "dissimilarity": Part("reconstruction", dissimilarity),
    # Of features of the two, or of the true pair and the reconstructed one.
    "features": Part("features.critic", _mean_square),
    "features_global": Part("features.global", _mean_square),
    "features_pixel": Part("features.pixel", _mean_square),
    "map_pixel": Part("features.pixel", _mean_absolute),
    "feature_sum": Part("features.discriminator", _sum_absolute),
    "pair_features": Part("features.pair", _sum_absolute),
    "pair_features_l2": Part("features.pair", _euclidean),
    # Of the two latent codes.
    "latent": Part("latents.code", _mean_square),
    "latent_l1": Part("latents.code", _sum_absolute),
    # Of a discriminator's logit: -D, or -log s(D).
    "judged_image": Part("logits.image", _negative),
    "judged_reconstruction": Part("logits.reconstruction", _negative),
    "pair_logits": Part("logits.pair", _surprise),
}
"""Figures [B], by name."""

MAPS: Mapping[str, Part] = {
    "map_residual": Part("reconstruction", _absolute_map),
    "map_pixel": Part("features.pixel", _absolute_map),
    "map_dissimilarity": Part("reconstruction", dissimilarity_map),
}
"""Maps [B, 1, S, S]: mean over channels of |.|, so that the mean of a map is the part of its
name; (1 - SSIM) / 2 has a map of its own, see there."""
