"""How a raw map becomes an image: links between an image and a generator's raw output.

Images are [B, C, S, S] in [-1, 1]; the raw map is unbounded: [B, C or 1, S, S], broadcast over the
channels, where it is added; [B, C + 1, S, S] where it is a candidate and its mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ResidualLink = Literal["tanh_sum", "logit_sum"]


def tanh_sum(images: Tensor, raw: Tensor) -> Tensor:
    """tanh(x + G(x)) (Brainomaly, eq. of h).

    A raw map of 0 is not the identity: |tanh(x) - x| is up to 0.238, and an x of +-1 is never
    reached, so a black background leaves a nearly constant residual.
    """
    return torch.tanh(images + raw)


def logit_sum(images: Tensor, raw: Tensor) -> Tensor:
    """tanh(atanh(0.999 x) + G(x)): a raw map of 0 leaves the image alone, up to 0.001."""
    return torch.tanh(torch.atanh(0.999 * images) + raw)


RESIDUAL_LINKS: dict[ResidualLink, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh_sum": tanh_sum,
    "logit_sum": logit_sum,
}


@dataclass(frozen=True)
class MaskBlend:
    """An image x and a candidate B, blended by a mask M both ways (HealthyGAN)."""

    healthy: Tensor
    """h = M B + (1 - M) x: [B, C, S, S], the candidate where the mask says so."""
    restored: Tensor
    """x_rec = M x + (1 - M) B: [B, C, S, S], the image where the mask says so."""
    candidate: Tensor
    """B = tanh(r[:, :C]): [B, C, S, S] in [-1, 1], the authors' intermediate image."""
    mask: Tensor
    """M = (tanh(r[:, C]) + 1) / 2: [B, 1, S, S] in [0, 1]."""

    @classmethod
    def of(cls, images: Tensor, raw: Tensor) -> MaskBlend:
        """Blend images [B, C, S, S] with what raw maps r [B, C + 1, S, S] hold."""
        bounded, channels = torch.tanh(raw), images.shape[1]
        candidate, mask = bounded[:, :channels], (bounded[:, channels:] + 1) / 2
        rest = 1 - mask
        return cls(
            healthy=mask * candidate + rest * images,
            restored=mask * images + rest * candidate,
            candidate=candidate,
            mask=mask,
        )
