"""What keeps a critic from growing without bound: one choice for every system that leaves it open.

    gradient_penalty  a term of the critic's loss (losses.penalties), Gulrajani et al. 2017,
                      arXiv:1704.00028
    weight_clipping   every parameter stays within [-c, c], Arjovsky et al. 2017, arXiv:1701.07875
    spectral_norm     every layer's largest singular value is 1, Miyato et al. 2018,
                      arXiv:1802.05957
    none              nothing: a Wasserstein critic then diverges sooner or later

A system takes it up in its `Config` (`critic_regulariser: CriticRegulariser = "gradient_penalty"`,
`clip: Clip = 0.01`), at the end of `__init__` (`regularise_`), around the critic's step
(`regularised`) and in its loss, which has the penalty's term only where it was chosen.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import pydantic
from torch import nn

from gan_ray.blocks.spectral import bound_spectrum_
from gan_ray.detector import Step
from gan_ray.ranges import Choice

Regulariser = Literal["gradient_penalty", "weight_clipping", "spectral_norm", "none"]

CriticRegulariser = Annotated[
    Regulariser, Choice("gradient_penalty", "weight_clipping", "spectral_norm")
]
"""A setting that may be searched; `none` is for comparison, not worth a trial."""

Clip = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
"""The c of weight clipping."""


def regularise_(critic: nn.Module, kind: Regulariser) -> None:
    """Bound the spectrum of a critic whose weights are initialised, where `kind` says so.

    Draws from torch's global RNG, and renames the parameters: build and initialise all networks
    before it.
    """
    if kind == "spectral_norm":
        bound_spectrum_(critic)


def regularised(step: Step, kind: Regulariser, clip: float) -> Step:
    """Give a critic's step with what `kind` asks of the loop."""
    return dataclasses.replace(
        step,
        second_order=kind == "gradient_penalty",
        clip_weights=clip if kind == "weight_clipping" else 0.0,
    )
