"""Cutting maps into square grids of windows, and putting them back."""

from __future__ import annotations

from torch import Tensor


def window_partition(maps: Tensor, grid: int) -> Tensor:
    """Cut maps [B, C, H, W] into grid x grid windows each: [B * grid**2, C, H / grid, W / grid].

    The windows of one map follow each other row by row, then come those of the next map. H and W
    must be multiples of `grid`. Inverse of `window_reverse`.
    """
    batch, channels, height, width = maps.shape
    rows, columns = height // grid, width // grid
    cut = maps.reshape(batch, channels, grid, rows, grid, columns).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(batch * grid**2, channels, rows, columns)


def window_reverse(windows: Tensor, grid: int) -> Tensor:
    """Put windows [B * grid**2, C, h, w] back into maps [B, C, grid * h, grid * w].

    Inverse of `window_partition`.
    """
    count, channels, rows, columns = windows.shape
    batch = count // grid**2
    cut = windows.reshape(batch, grid, grid, channels, rows, columns).permute(0, 3, 1, 4, 2, 5)
    return cut.reshape(batch, channels, grid * rows, grid * columns)
