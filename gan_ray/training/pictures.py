"""Pictures a training leaves in its run folder: sample grids and curves."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gan_ray.report import figures
from gan_ray.training.run import RunFolder


def write_samples(run: RunFolder, images: int, samples: Mapping[str, np.ndarray]) -> None:
    """Write `samples/<images>.png`: one row of pictures per entry of `samples`."""
    _upload(
        run,
        f"samples/{images:012d}.png",
        lambda path: figures.save_grid(list(samples.values()), path, list(samples)),
    )


def write_curves(run: RunFolder, rows: list[dict[str, Any]]) -> None:
    """Write `curves.png` from the reports."""
    _upload(run, "curves.png", lambda path: figures.save_curves(rows, path))


def _upload(run: RunFolder, key: str, draw: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        run.store.upload(path, key)
