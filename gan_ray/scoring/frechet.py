"""The Fréchet distance of two sets of features, which is called FID (Heusel et al. 2017)."""

from __future__ import annotations

import numpy as np

from gan_ray.errors import ConfigError


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Give |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of features [n, d] and [m, d].

    Means and covariances (over n - 1) are those of the rows; computed in float64, at least 0. Its
    expectation falls with n and m, so compare distances of equally many images only.

    With A and B the centred features, S_a S_b has the squared singular values of
    A B^T / sqrt((n - 1)(m - 1)) as its eigenvalues: the trace of its root is their sum. The
    triangular factors of A and B give the same ones. Nothing is inverted, so n may be below d.

    Raises:
        ConfigError: a set has fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ConfigError(
            f"FID needs 2 images or more on each side, but has {len(a)} and {len(b)}: look at more "
            "(--train.look), or select by another figure."
        )
    means, factors = zip(*(_moments(features) for features in (a, b)), strict=True)
    shared = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    spread = sum(np.square(factor).sum() for factor in factors)
    return max(0.0, float(np.square(means[0] - means[1]).sum() + spread - 2 * shared))


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and a triangular factor R [min(n, d), d] of the covariance R^T R."""
    precise = features.astype(np.float64)
    mean: np.ndarray = precise.mean(0)
    return mean, np.linalg.qr((precise - mean) / np.sqrt(len(features) - 1)).R
