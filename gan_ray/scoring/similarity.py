"""Structural dissimilarity of an image and its reconstruction (Wang et al. 2004).

SSIM compares mean, contrast and structure of the two under a Gaussian window; dissimilarity is
(1 - SSIM) / 2, in [0, 1]. The window has 11 x 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, the
data range is 2; the same numbers as scikit-image with `gaussian_weights=True,
use_sample_covariance=False`, to 1e-12: in float64, since a variance in float32, a difference of two
means, is off by 1e-4 of SSIM where an image is flat and bright.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gan_ray.detector import Pair
from gan_ray.errors import ConfigError

WINDOW = 11
"""Side of the window in pixels: no image may be smaller."""

_SIGMA = 1.5
_C1, _C2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
_MARGIN = WINDOW // 2


def dissimilarity(pair: Pair) -> Tensor:
    """Give the mean [B] over channels and over the windows that lie inside the image, float64.

    Raises:
        ConfigError: images [B, C, S, S] are smaller than the window.
    """
    return _under_windows(*_checked(pair)).flatten(1).mean(1)


def dissimilarity_map(pair: Pair) -> Tensor:
    """Give the map [B, 1, S, S], the mean over channels, float64.

    At the border the image goes on mirrored (d c b a | a b c d), so that every pixel has a window;
    the mean of the map is therefore not the figure.

    Raises:
        ConfigError: images [B, C, S, S] are smaller than the window.
    """
    first, second = _checked(pair)
    size = first.shape[-1]
    around = torch.arange(-_MARGIN, size + _MARGIN, device=first.device)
    mirrored = torch.where(around < 0, -1 - around, around).minimum(2 * size - 1 - around)
    wide = (side[..., mirrored, :][..., mirrored] for side in (first, second))
    return _under_windows(*wide).mean(1, keepdim=True)


def refuse_small(size: int) -> None:
    """Refuse images whose side of `size` pixels is below the window's.

    Raises:
        ConfigError: they are.
    """
    if size < WINDOW:
        raise ConfigError(
            f"score 'ssim' looks through windows of {WINDOW} x {WINDOW} pixels, and these images "
            f"have {size} x {size}: choose another score (--score.name), or train at "
            f"--data.image-size {WINDOW} or more."
        )


def _checked(pair: Pair) -> Pair:
    refuse_small(pair[0].shape[-1])
    return pair[0].double(), pair[1].double()


def _under_windows(x: Tensor, y: Tensor) -> Tensor:
    """From [B, C, S, S] to (1 - SSIM) / 2 of each window inside, [B, C, S - 10, S - 10]."""
    mean_x, mean_y = _windowed(x), _windowed(y)
    product, power = mean_x * mean_y, mean_x.square() + mean_y.square()
    covariance = _windowed(x * y) - product
    variances = _windowed(x.square() + y.square()) - power
    likeness = (2 * product + _C1) * (2 * covariance + _C2)
    return (1 - likeness / ((power + _C1) * (variances + _C2))) / 2


def _windowed(planes: Tensor) -> Tensor:
    """Average under the Gaussian window, along rows and then along columns.

    As sums of shifted images: on a CPU a float64 convolution of one channel takes ten times longer.
    """
    offsets = torch.arange(-_MARGIN, _MARGIN + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    for axis in (-1, -2):
        inside = planes.shape[axis] - 2 * _MARGIN
        mean = torch.zeros_like(planes.narrow(axis, 0, inside))
        for start, share in enumerate((weights / weights.sum()).tolist()):
            mean.add_(planes.narrow(axis, start, inside), alpha=share)
        planes = mean
    return planes
