"""Where a latent space is looked at: fixed codes of its prior, and a walk through it.

The codes depend on nothing but the run's seed, so that the pictures of all reports show the same
places. Codes are [..., d] in float32 on the CPU; no global random state is used.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_ray.detector import Detector, Latent
from gan_ray.seeds import derive_seed

_LEGS = 4
_CHUNK = 64
_TAIL = 0.05


def prior_codes(latent: Latent, count: int, *, seed: int) -> Tensor:
    """Draw codes [count, d] from the prior; code i is the same whatever `count` is."""
    rows = []
    for number in range(count):
        generator = torch.Generator().manual_seed(derive_seed(seed, "latent", number))
        if latent.prior == "normal":
            rows.append(torch.randn(latent.size, generator=generator))
        else:
            rows.append(2 * torch.rand(latent.size, generator=generator) - 1)
    return torch.stack(rows)


def walk_codes(latent: Latent, steps: int, *, seed: int) -> Tensor:
    """Give the codes [rows, steps, d] of a walk: the whole plane for d = 2, a path otherwise.

    The plane has `steps` rows; see `plane`. The path has one row for each leg between two
    successive codes of `prior_codes`, both ends included; along a great circle for a normal prior,
    whose typical codes lie near a sphere (White 2016, arXiv:1609.04468), straight for a uniform
    one.
    """
    if latent.size == 2:
        return plane(latent, steps)
    between = spherical if latent.prior == "normal" else straight
    shares = torch.linspace(0, 1, steps, dtype=torch.float64)
    codes = prior_codes(latent, _LEGS + 1, seed=seed)
    return torch.stack([between(start, end, shares) for start, end in pairwise(codes)])


def plane(latent: Latent, steps: int) -> Tensor:
    """Give codes [steps, steps, 2]; the first number grows along a row, the second down the rows.

    Between neighbours lies an equal share of the prior: quantiles 0.05 to 0.95 of N(0, 1), or -1
    to 1.
    """
    if latent.prior == "normal":
        shares = torch.linspace(_TAIL, 1 - _TAIL, steps, dtype=torch.float64)
        levels = torch.special.ndtri(shares)
    else:
        levels = torch.linspace(-1, 1, steps, dtype=torch.float64)
    second, first = torch.meshgrid(levels, levels, indexing="ij")
    return torch.stack([first, second], dim=-1).float()


def straight(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Give (1 - t) start + t end [n, d] for the shares t [n] of the way between two codes [d]."""
    t = shares.double()[:, None]
    return ((1 - t) * start + t * end).float()


def spherical(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Give [sin((1 - t) a) start + sin(t a) end] / sin a, a being the angle between the two codes.

    Shapes as in `straight`, which it equals where the codes lie on one line through 0 (as all do
    for d = 1). Source: White 2016, arXiv:1609.04468, section 2.1.
    """
    t = shares.double()[:, None]
    start, end = start.double(), end.double()
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if torch.sin(angle) < 1e-6:
        return straight(start, end, shares)
    mixed = torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end
    return (mixed / torch.sin(angle)).float()


def draw(detector: Detector, codes: Tensor, kind: int | None = None) -> NDArray[np.float32]:
    """Draw the images [N, C, S, S] of codes [N, d], all of class `kind` where one is given.

    The caller has set eval mode.
    """
    like = next(detector.networks.parameters())
    drawn = []
    for part in torch.split(codes, _CHUNK):
        classes = None if kind is None else torch.full((len(part),), kind, device=like.device)
        with torch.no_grad():
            drawn.append(detector.draw(part.to(like), classes).float().cpu())
    return torch.cat(drawn).numpy()
