"""Optimisers of a stage: one per step name, over the parameters that step trains."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gan_ray.config import Optimizer
from gan_ray.detector import Detector, Stage

_KINDS: dict[str, Callable[[list[torch.nn.Parameter], Optimizer], torch.optim.Optimizer]] = {
    "adam": lambda parameters, settings: torch.optim.Adam(
        parameters, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True
    ),
    "rmsprop": lambda parameters, settings: torch.optim.RMSprop(
        parameters, lr=settings.lr, alpha=settings.betas[1], eps=settings.eps
    ),
}


def learning_rate(settings: Optimizer, progress: float) -> float:
    """Give the rate after a share `progress` in [0, 1] of the stage: constant, then a line to 0."""
    left, falling = 1 - progress, 1 - settings.decay_from
    return settings.lr * left / falling if left < falling else settings.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Update by `rate` from now on; a training that resumes owes nothing to earlier rates."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def make_optimizers(detector: Detector, stage: Stage) -> dict[str, torch.optim.Optimizer]:
    """Build the stage's optimisers by step name; a step listed twice has one optimiser."""
    optimizers = {}
    for step in stage.steps:
        parameters = [p for name in step.trains for p in detector.networks[name].parameters()]
        optimizers[step.name] = _KINDS[step.optimizer.kind](parameters, step.optimizer)
    return optimizers
