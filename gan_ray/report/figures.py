"""The pictures a training leaves in its run folder: curves and grids of images.

Needs neither torch nor Ray. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_ray.report.style import MUTED, NORMAL, drawing, figure, heat

Metrics = Sequence[Mapping[str, Any]]
"""Reports of a run, oldest first: the lines of metrics.jsonl."""

MAP_RANGE = (0.0, 0.5)
"""Colour scale of difference maps in sample grids: half of the largest possible |x - x_hat| / 2."""

TILE = 96
"""Pixels up to which small images are magnified in sample grids."""

_GAP = 4
_STRIP = 20
_LABEL = "#7d8894"


def curve_names(metrics: Metrics) -> list[str]:
    """Name what can be drawn over images: validation, the loss terms by step, then the speed."""
    seen = dict.fromkeys(key for report in metrics for key, v in report.items() if _plottable(v))
    named = sorted((key for key in seen if "/" in key), key=lambda key: key.split("/")[0] != "val")
    return named + [key for key in ("images_per_second",) if key in seen]


def draw_curve(axes: Any, metrics: Metrics, name: str) -> None:
    """Draw one figure of a training over its images, with a mark where a stage begins."""
    points = [report for report in metrics if name in report]
    values = [report[name] if _plottable(report[name]) else math.nan for report in points]
    marker = "o" if len(points) < 30 else ""
    axes.plot([p["images"] for p in points], values, color=NORMAL, marker=marker, markersize=2.5)
    axes.set_title(name.replace("/", " · ").replace("_", " "))
    axes.margins(x=0.02, y=0.12)
    axes.xaxis.set_major_formatter(lambda value, _: _thousands(value))
    axes.locator_params(axis="x", nbins=5)
    axes.locator_params(axis="y", nbins=5)
    first, last = metrics[0]["images"], metrics[-1]["images"]
    axes.set_xlim(first - 0.03 * (last - first or 1), last + 0.03 * (last - first or 1))
    for before, after in pairwise(metrics):
        if before.get("stage") != after.get("stage"):
            axes.axvline(before["images"], color=MUTED, linewidth=0.8, linestyle=":")
            axes.annotate(after["stage"], (before["images"], 1.0), (3, -2), color=MUTED,
                          xycoords=("data", "axes fraction"), textcoords="offset points",
                          va="top", fontsize=7)  # fmt: skip


def save_curves(metrics: Metrics, path: Path) -> None:
    """Write RUN/curves.png: every loss term, every validation figure and the speed over images.

    One panel each, since their scales differ; values that are not finite leave a gap. Without a
    single report the picture says so.
    """
    names = curve_names(metrics)
    columns = min(3, len(names)) or 1
    rows = math.ceil(len(names) / columns) or 1
    with drawing():
        drawn = figure(3.4 * columns, 2.2 * rows)
        drawn.set_facecolor("white")
        for index, name in enumerate(names):
            draw_curve(drawn.add_subplot(rows, columns, index + 1), metrics, name)
        if names:
            drawn.supxlabel("training images", fontsize=8.5, color=MUTED)
        else:
            drawn.text(0.5, 0.5, "no report yet", ha="center", color=MUTED)
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(path, dpi=110, metadata={"Software": None})


def save_grid(
    rows: Sequence[NDArray[Any]],
    path: Path,
    labels: Sequence[str],
    *,
    map_range: tuple[float, float] = MAP_RANGE,
    tile: int = TILE,
) -> None:
    """Write a sample grid: one line of tiles for each of `rows`, under its label if that has text.

    A row of images is [N, C, S, S] in [-1, 1] with C = 1 or 3. A row of maps is [N, S, S]; it is
    coloured on the fixed scale `map_range`, which its label then states. Rows may differ in N.
    Small images are magnified by a whole factor, to `tile` pixels at most, so that a pixel stays a
    pixel. Between the tiles
    the picture is transparent, to suit light and dark pages.
    """
    from PIL import Image, ImageDraw, ImageFont

    lines = [_tiles(row, map_range, tile) for row in rows]
    strips = [_STRIP if label else 0 for label in labels]
    width = max(line.shape[1] for line in lines)
    height = sum(strips) + sum(line.shape[0] + _GAP for line in lines)
    sheet = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    top = 0
    for row, line, label, strip in zip(rows, lines, labels, strips, strict=True):
        scale = f" ({map_range[0]:g} to {map_range[1]:g})" if row.ndim == 3 else ""
        pen.text((0, top + 3), label + scale, fill=_LABEL, font=font)
        sheet.paste(Image.fromarray(line), (0, top + strip))
        top += strip + line.shape[0] + _GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def _tiles(row: NDArray[Any], map_range: tuple[float, float], tile: int) -> NDArray[np.uint8]:
    """Lay a row of images or maps side by side, as RGBA [height, width, 4]."""
    if row.ndim == 3:
        rgb = heat(row, *map_range)
    else:
        levels = np.clip((np.moveaxis(row, 1, -1) + 1.0) * 127.5, 0.0, 255.0).round()
        rgb = np.broadcast_to(levels.astype(np.uint8), (*levels.shape[:3], 3))
    factor = max(1, tile // row.shape[-1])
    rgb = rgb.repeat(factor, axis=1).repeat(factor, axis=2)
    opaque = np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1)
    spaced = np.pad(opaque, ((0, 0), (0, 0), (0, _GAP), (0, 0)))
    return np.concatenate(list(spaced), axis=1)[:, :-_GAP]


def _plottable(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _thousands(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"
