"""What an image looks like from afar, and which of many images looks most like it.

A sketch is an image averaged to 32 x 32 areas, less its mean and of length 1. The product of two
sketches is the correlation of two images at that size, in whatever size, depth, brightness, format
or compression each was saved.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 32
"""Areas an image is averaged to, on each axis."""

_COARSE = 8
_BLANK = 1e-4
_ROWS, _COLUMNS = 1024, 4096
_ROUNDING = 1e-4


def sketch(grey: np.ndarray) -> np.ndarray:
    """Give the sketch, float16 [1024], of an image [H, W], float32 in [0, 1].

    All zeros, which resemble nothing, for an image that is even at this size.
    """
    # Areas that overlap, weighted towards their middle: means of whole pixels tell two sizes of one
    # picture apart by up to 0.01 of correlation, these by 0.0005 (measured on brain slices).
    areas = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(areas, np.float64).ravel()
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return np.asarray(values / length if length > _BLANK else 0 * values, np.float16)


def most_similar(
    sketches: np.ndarray, among: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Give for each of N sketches the index of the most similar of `among`, and the correlation.

    -1 and `least` where none reaches that. Exact up to rounding, in blocks of a few megabytes: by
    Cauchy-Schwarz, two sketches correlate at most as their 8 x 8 averages do, plus the product of
    what these leave; only those for which that bound suffices are compared in full.
    """
    best = np.full(len(sketches), -1, np.int64)
    correlation = np.full(len(sketches), least, np.float32)
    outlines = _outlines(among)
    for start in range(0, len(sketches), _ROWS):
        rows = slice(start, start + _ROWS)
        outline = _outlines(sketches[rows])
        for left in range(0, len(among), _COLUMNS):
            bound = outline @ outlines[left : left + _COLUMNS].T + _ROUNDING
            hopeful = bound >= correlation[rows, None]
            if not hopeful.any():
                continue
            found, there = (np.flatnonzero(hopeful.any(axis)) for axis in (1, 0))
            full = _unit(sketches[start + found]) @ _unit(among[left + there]).T
            nearest, found = full.argmax(1), start + found
            value = full.max(1)
            better = value >= correlation[found]
            best[found[better]] = left + there[nearest[better]]
            correlation[found[better]] = value[better]
    return best, correlation


def detail_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Give the correlation [N] of what 8 x 8 averages leave of two times N sketches.

    Pictures of the same kind agree in the large; only the same picture agrees in this.
    """
    rests = [rows - _spread(_averages(rows)) for rows in (_unit(first), _unit(second))]
    return np.asarray((_unit(rests[0]) * _unit(rests[1])).sum(1))


def _outlines(sketches: np.ndarray) -> np.ndarray:
    """Give [N, 65]: 8 x 8 averages as coordinates, and the length of what they leave."""
    parts = []
    for start in range(0, len(sketches), _ROWS):
        rows = _unit(sketches[start : start + _ROWS])
        coarse = _averages(rows).reshape(len(rows), -1) * (SIDE // _COARSE)
        rest = np.square(rows).sum(1) - np.square(coarse).sum(1)
        parts.append(np.column_stack([coarse, np.sqrt(np.maximum(rest, 0))]))
    return np.concatenate(parts) if parts else np.zeros((0, _COARSE**2 + 1), np.float32)


def _averages(rows: np.ndarray) -> np.ndarray:
    step = SIDE // _COARSE
    averages: np.ndarray = rows.reshape(len(rows), _COARSE, step, _COARSE, step).mean((2, 4))
    return averages


def _spread(averages: np.ndarray) -> np.ndarray:
    step = SIDE // _COARSE
    return averages.repeat(step, 1).repeat(step, 2).reshape(-1, SIDE * SIDE)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Give rows as float32 of length 1, and rows of zeros as they are."""
    rows = rows.astype(np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1))
