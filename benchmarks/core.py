"""How fast this core is right now: machines are noisy, so a probe stands beside every figure."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def cpu_ms(work: Callable[[], object], repeats: int) -> float:
    """Give the mean CPU milliseconds (user and system) of a call, after one warm-up."""
    work()
    began = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - began) / repeats * 1000


def conv_gflops() -> float:
    """Give the speed of a 3x3 convolution (128 channels, 32 px, batch 8) in GFLOP per second."""
    images, kernel = torch.randn(8, 128, 32, 32), torch.randn(128, 128, 3, 3)
    flop = 2 * 8 * 128 * 128 * 9 * 32 * 32
    ms = cpu_ms(lambda: torch.nn.functional.conv2d(images, kernel, padding=1), 20)
    return flop / ms / 1e6
