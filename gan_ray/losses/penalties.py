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
    """
    with torch.autocast(real.device.type, enabled=False):
        points = points_between(real, fake, mix)
        return slope_penalty(critic(points), points)


def points_between(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Give mix*real + (1-mix)*fake, a leaf that asks for its gradient, in float32 or better."""
    precise = torch.promote_types(real.dtype, torch.float32)
    weight = mix.to(precise).view(-1, *[1] * (real.dim() - 1))
    points = torch.lerp(fake.detach().to(precise), real.detach().to(precise), weight)
    return points.requires_grad_(True)


def slope_penalty(judged: Tensor, points: Tensor) -> Tensor:
    """Mean over images of (||grad_m D(m)||_2 - 1)^2, `judged` being D(m) of the leaf m, `points`.

    For a critic of several judgements, which can share one pass. Call it without autocast.

    Deviation: 1e-12 under the root, since a zero gradient has no second derivative there.
    """
    (gradient,) = torch.autograd.grad(judged.sum(), points, create_graph=True)
    norm = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()
    return (norm - 1).square().mean()
