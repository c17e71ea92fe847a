"""Penalties that keep a critic smooth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    mix: Tensor,
) -> Tensor:
    """Mean over images of (||grad_m D(m)||_2 - 1)^2 at m = mix*real + (1-mix)*fake.

    Gulrajani et al. 2017, arXiv:1704.00028, eq. 3. `real` and `fake` are [B, C, S, S]; `mix` is
    [B] in [0, 1], one weight per image; the norm is over all elements of an image. A critic that
    answers with a map is differentiated through the sum of its map. Always in float32 or better.

    Deviation: 1e-12 under the root, since a zero gradient has no second derivative there.
    """
    with torch.autocast(real.device.type, enabled=False):
        precise = torch.promote_types(real.dtype, torch.float32)
        real, fake = real.detach().to(precise), fake.detach().to(precise)
        weight = mix.to(precise).view(-1, *[1] * (real.dim() - 1))
        between = torch.lerp(fake, real, weight).requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        norm = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()
        return (norm - 1).square().mean()
