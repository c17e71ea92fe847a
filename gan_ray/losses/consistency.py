"""A critic of pixels must judge a mixture of images as the mixture of its judgements.

Schönfeld, Schiele, Khoreva 2020, arXiv:2002.12655, section 3.2, with CutMix; f-UNetGAN (Nafti,
Besbes et al. 2024) with Mixup. Shares of the real image come from a `Batch`, so that N ranks see
together what one would see alone.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from gan_ray.detector import Batch
from gan_ray.losses.reconstruction import squared


def mixup_consistency(mixed: Tensor, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Mean over images and pixels of (D(m) - (s D(x) + (1-s) D(G(z))))^2, m = s x + (1-s) G(z).

    Maps [B, 1, S, S]: judgements of the mixture, the real and the fake image; `share` is s, [B]
    for one number per image or [B, 1, S, S] for a mask. The target has gradient too. In float32 or
    better.
    """
    precise = torch.promote_types(mixed.dtype, torch.float32)
    weight = share.to(precise).view(len(share), 1, *(share.shape[2:] or (1, 1)))
    return squared(torch.lerp(fake.to(precise), real.to(precise), weight), mixed.to(precise))


def symmetric_beta(batch: Batch, alpha: float) -> Tensor:
    """Draw Beta(alpha, alpha), one number in [0, 1] per image: [rows]; alpha > 0.

    Bailey 1994, Math. Comp. 62, polar form: 1/2 + t / (2 sqrt(2 alpha + t^2)) with Student's t of
    2 alpha degrees of freedom. Two draws, no rejection.
    """
    small = batch.uniform() ** (1 / alpha)
    cosine = torch.cos(2 * pi * batch.uniform())
    square = (1 - small) * cosine.square()
    return (1 + cosine.sign() * (square / (small + square)).sqrt()) / 2


def cutmix_mask(batch: Batch, size: int) -> Tensor:
    """Draw masks [rows, 1, size, size]: 0 in one square box per image, 1 around it.

    The box has the side sqrt(1 - u) `size`, u ~ U(0, 1), and a centre uniform over the image, at
    whose border it is cut off (Yun et al. 2019, arXiv:1905.04899, CutMix).
    """
    draws = batch.uniform(3)
    half = (1 - draws[:, :1]).sqrt() * size / 2
    places = torch.arange(size, device=draws.device, dtype=draws.dtype) + 0.5
    row, column = ((places - size * draws[:, i : i + 1]).abs() < half for i in (1, 2))
    box = row[:, None, :, None] & column[:, None, None, :]
    return (~box).to(draws.dtype)
