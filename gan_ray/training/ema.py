"""Moving averages of weights, for networks that are scored by them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gan_ray.detector import Detector


class MovingAverage:
    """Exponential moving average of the parameters of some networks, one update per tick.

    Buffers (running statistics, power-iteration vectors) are those of the live networks.
    """

    def __init__(self, detector: Detector, names: Iterable[str], decay: float) -> None:
        """Start from the current weights; `decay` in [0, 1) per tick."""
        self.decay = decay
        self.averages: dict[str, Tensor] = {
            f"{name}.{key}": parameter.detach().clone()
            for name in names
            for key, parameter in detector.networks[name].named_parameters()
        }

    @torch.no_grad()
    def update(self, detector: Detector) -> None:
        """Move the averages towards the live weights."""
        if self.averages:
            live = dict(detector.networks.named_parameters())
            targets: list[Tensor] = [live[key] for key in self.averages]
            torch._foreach_lerp_(list(self.averages.values()), targets, 1 - self.decay)
