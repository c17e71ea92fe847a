"""A threshold one can defend: from held-out normal images alone, with a stated guarantee.

Split-conformal prediction (Vovk et al. 2005; Lei et al. 2018). It assumes that new normal images
and the calibration images are exchangeable (same population, none of them seen in training), and
nothing about the score. All of it is monotone in the score and looks at one image at a time.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from scipy.special import betaincinv

from gan_ray.config import config
from gan_ray.errors import ArtifactError, ConfigError

_COLOUR_QUANTILES = (0.01, 0.999)


@config
class Bound:
    """What a threshold promises about the share of normal images above it."""

    expected: float
    """At most this on average over calibration sets: (n + 1 - k) / (n + 1), never above the fpr."""
    upper: float
    """At most this for 95 % of calibration sets: the 0.95 quantile of Beta(n + 1 - k, k)."""


@config
class Calibration:
    """Scores of held-out normals, and the threshold that they give for a false-positive rate."""

    fpr: float
    """Stated false-positive rate, in (0, 1)."""
    threshold: float
    """The k-th smallest of the n scores, k = ceil((n + 1)(1 - fpr)); abnormal is above it."""
    images: int
    """n, the number of held-out normals."""
    scores: tuple[float, ...]
    """Their scores, ascending."""
    map_range: tuple[float, float] | None = None
    """1 % and 99.9 % quantiles of their map pixels: one colour scale for all heat maps."""
    bound: Bound
    """The guarantee of the threshold for this n."""

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """Give (1 + #{calibration scores >= s}) / (n + 1) for each score s, float64 [N].

        Of normal images, a share of at most p has a p-value of p or less, on average over
        calibration sets; p <= fpr exactly when the score is above the threshold.
        """
        below = np.searchsorted(np.asarray(self.scores), np.asarray(scores, np.float64), "left")
        p_values: np.ndarray = (1 + self.images - below) / (self.images + 1)
        return p_values

    def abnormal(self, scores: np.ndarray) -> np.ndarray:
        """Say which scores are above the threshold, bool [N]."""
        decisions: np.ndarray = np.asarray(scores, np.float64) > self.threshold
        return decisions


def calibrate(scores: np.ndarray, fpr: float, maps: np.ndarray | None = None) -> Calibration:
    """Set the threshold for a false-positive rate from the scores [n] of held-out normals.

    `maps` [n, S, S] are their anomaly maps, for the colour scale.

    Raises:
        ConfigError: `fpr` is not in (0, 1), or n is too small for it: no finite threshold can
            promise a rate below 1 / (n + 1).
        ArtifactError: a score is not finite.
    """
    if not 0 < fpr < 1:
        raise ConfigError(f"a false-positive rate lies between 0 and 1, but fpr is {fpr}")
    exact = Fraction(repr(float(fpr)))  # as written: 100 * (1 - 0.45) is 55, not 55.00000000000001
    images = len(scores)
    rank = math.ceil((images + 1) * (1 - exact))
    if rank > images:
        raise ConfigError(
            f"{images} held-out normal images are too few for a false-positive rate of {fpr}: "
            f"{math.ceil(1 / exact - 1)} are needed. Hold out more (--data.holdout) or state a "
            "higher rate (--fpr)."
        )
    ordered = np.sort(np.asarray(scores, np.float64))
    if not np.isfinite(ordered).all():
        raise ArtifactError(
            f"{np.count_nonzero(~np.isfinite(ordered))} of {images} scores of held-out normals are "
            "not finite: the detector diverged; calibrate an earlier checkpoint."
        )
    return Calibration(
        fpr=float(fpr),
        threshold=float(ordered[rank - 1]),
        images=images,
        scores=tuple(ordered.tolist()),
        map_range=None if maps is None else _colour_scale(maps),
        bound=Bound(
            expected=(images + 1 - rank) / (images + 1),
            upper=float(betaincinv(images + 1 - rank, rank, 0.95)),
        ),
    )


def _colour_scale(maps: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(maps, _COLOUR_QUANTILES)
    return float(low), float(high)
