"""What a mask should be: small, and sure of itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def focus(
    mask: Tensor,
    *,
    size: float = 1.0,
    binary: float = 1.0,
    mean_over_ranks: Callable[[Tensor], Tensor] = lambda mean: mean,
) -> Tensor:
    """Give size * (mean M)^2 + binary * (mean 1 / (|M - 0.5| + 0.01) - 1 / 0.51), a scalar.

    Of a mask M in [0, 1] of any shape. The second part is 0 for a mask of zeros and ones and 98 for
    one of 0.5. The square is of the mean over the whole batch: on several ranks pass
    `Batch.mean_over_ranks`. HealthyGAN's public code (Rahman Siddiquee et al. 2022); always in
    float32 or better.
    """
    mask = mask.to(torch.promote_types(mask.dtype, torch.float32))
    unsure = (1 / ((mask - 0.5).abs() + 0.01)).mean() - 1 / 0.51
    return size * mean_over_ranks(mask.mean()).square() + binary * unsure
