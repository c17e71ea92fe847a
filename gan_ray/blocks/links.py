"""How an additive map becomes an image: links between an image and a generator's raw output.

Images are [B, C, S, S] in [-1, 1]; the raw map is [B, C or 1, S, S], unbounded, and is broadcast
over the channels.
"""

from __future__ import annotations

from collections.abc import Callable
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
