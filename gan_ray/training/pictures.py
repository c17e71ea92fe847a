"""Pictures a training leaves in its run folder: restorations, latent space and curves."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gan_ray.detector import Detector, Latent
from gan_ray.report import figures
from gan_ray.training import latent
from gan_ray.training.run import RunFolder

Picture = NDArray[np.uint8]
"""RGBA [height, width, 4]."""

_CLASSES = 10
_WALK_TILE = 64
_WALK_WIDTH = 704


def write_samples(
    run: RunFolder,
    images: int,
    samples: Mapping[str, np.ndarray],
    *,
    map_range: tuple[float, float] = figures.MAP_RANGE,
) -> Picture:
    """Write `samples/<images>.png`: one row of pictures per entry of `samples`."""
    rows, labels = list(samples.values()), list(samples)
    return _write_grid(run, f"samples/{images:012d}.png", rows, labels, map_range=map_range)


def write_latent(
    run: RunFolder, images: int, detector: Detector, *, samples: int, seed: int
) -> dict[str, Picture]:
    """Write `latent/samples/<images>.png` and `latent/walk/<images>.png`; give both by folder.

    Nothing for a detector without a latent prior. The first has a row of `samples` drawings, of
    the same codes whatever is written when; one row for each class (ten at most) when the detector
    is told them. The walk, of the first class, is that of `latent.walk_codes`. The caller has set
    eval mode.
    """
    space = detector.latent
    if space is None:
        return {}
    codes = latent.prior_codes(space, samples, seed=seed)
    kinds = range(min(detector.image.classes, _CLASSES)) if "class" in detector.streams else [None]
    rows = [latent.draw(detector, codes, kind) for kind in kinds]
    labels = ["fixed codes of the prior" if k is None else f"class {k}" for k in kinds]
    # Large images: fewer steps rather than a picture too large for a page; odd, to have a middle.
    steps = max(5, min(11, _WALK_WIDTH // detector.image.size)) | 1
    walk = [latent.draw(detector, row) for row in latent.walk_codes(space, steps, seed=seed)]
    keys = {name: f"latent/{name}/{images:012d}.png" for name in ("samples", "walk")}
    legend = [_legend(space), *[""] * (len(walk) - 1)]
    return {
        "latent/samples": _write_grid(run, keys["samples"], rows, labels),
        "latent/walk": _write_grid(run, keys["walk"], walk, legend, tile=_WALK_TILE),
    }


def _legend(space: Latent) -> str:
    if space.size != 2:
        return "each row goes from one fixed code to the next"
    reach = "quantiles 0.05 to 0.95" if space.prior == "normal" else "-1 to 1"
    return f"left to right the first number of the code, downwards the second; {reach}"


def write_curves(run: RunFolder, rows: list[dict[str, Any]]) -> None:
    """Write `curves.png` from the reports."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        figures.save_curves(rows, path)
        run.store.upload(path, "curves.png")


def _write_grid(
    run: RunFolder,
    key: str,
    rows: list[NDArray[Any]],
    labels: list[str],
    *,
    tile: int = figures.TILE,
    map_range: tuple[float, float] = figures.MAP_RANGE,
) -> Picture:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        figures.save_grid(rows, path, labels, tile=tile, map_range=map_range)
        run.store.upload(path, key)
        return np.asarray(Image.open(path))
