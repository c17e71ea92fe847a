"""The two sides of the game, for Wasserstein critics and for discriminators that answer logits.

Inputs are logits or critic values of any shape with the image first; results are scalars, the mean
over all elements.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Wasserstein critic: mean D(fake) - mean D(real) (Arjovsky et al. 2017, alg. 1)."""
    return _mean(fake) - _mean(real)


def generator_loss(fake: Tensor) -> Tensor:
    """Wasserstein generator: -mean D(fake) (Arjovsky et al. 2017, alg. 1)."""
    return -_mean(fake)


def real_or_fake(real: Tensor, fake: Tensor) -> Tensor:
    """Discriminator: mean -log s(real) + mean -log(1 - s(fake)), s the sigmoid of the logits.

    Goodfellow et al. 2014, eq. 1. Sum of the two halves.
    """
    return _mean(softplus(-real)) + _mean(softplus(fake))


def judged_real(fake: Tensor) -> Tensor:
    """Non-saturating generator: mean -log s(fake) (Goodfellow et al. 2014, section 3)."""
    return _mean(softplus(-fake))


def _mean(values: Tensor) -> Tensor:
    """Mean in float32 or better: bfloat16 has eight bits, too few for a mean."""
    return values.mean(dtype=torch.promote_types(values.dtype, torch.float32))
