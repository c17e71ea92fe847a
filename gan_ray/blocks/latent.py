"""Where an encoder's code may lie: the last, parameter-free layer of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

Bound = Literal[
    "tanh", "tanh_3", "tanh_half", "linear", "clip_1", "clip_3", "clip_half", "stochastic_clip"
]

_BOUNDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda code: code,
    "tanh": torch.tanh,
    "tanh_3": lambda code: 3 * torch.tanh(code),
    "tanh_half": lambda code: 0.5 * torch.tanh(code),
    "clip_1": lambda code: code.clamp(-1, 1),
    "clip_3": lambda code: code.clamp(-3, 3),
    "clip_half": lambda code: code.clamp(-0.5, 0.5),
    "stochastic_clip": lambda code: code.clamp(-3, 3),
}


class LatentHead(nn.Module):
    """Bounds a code [B, d] as f-AnoGAN's `z_reg` does (Schlegl et al. 2019, appendix, and code).

    The prior N(0, 1) lies mostly within 3; tanh keeps the code in the inner cube, `linear` leaves
    it free. `stochastic_clip` replaces coordinates beyond 3 by the `noise` it is given (training)
    and clips them when there is none (scoring), so that a score has no randomness.
    """

    def __init__(self, bound: Bound) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, code: Tensor, noise: Tensor | None = None) -> Tensor:
        """Bound `code`; `noise` is N(0, 1) of its shape and only the stochastic clip reads it."""
        if self.bound == "stochastic_clip" and noise is not None:
            return torch.where(code.abs() > 3, noise, code)
        return _BOUNDS[self.bound](code)
