"""The progress line of a long verb: rate and ETA on a terminal, one line per report otherwise."""

from __future__ import annotations

import sys
import time
from typing import Any, Self, TextIO

_BOOKKEEPING = ("stage", "images", "seconds", "images_per_second", "look_seconds")


class ProgressLine:
    """Tells how far a training is, on standard error; as a context it ends its line."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        """Expect `total` images."""
        self._total, self._stream = total, stream or sys.stderr
        self._started, self._first = time.monotonic(), -1
        self._open = False

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal at the start of a line, however training ended."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()

    def __call__(self, row: dict[str, Any]) -> None:
        """Show a report's row."""
        images = int(row["images"])
        if self._first < 0:
            self._first = max(0, images - round(row["images_per_second"] * row["seconds"]))
            self._started = time.monotonic() - row["seconds"]
        rate = (images - self._first) / max(time.monotonic() - self._started, 1e-9)
        left = max(0, self._total - images) / max(rate, 1e-9)
        figures = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in _BOOKKEEPING)
        line = (
            f"{row['stage']}  {images:,}/{self._total:,} images  {rate:,.0f}/s  "
            f"ETA {int(left // 60)}:{int(left % 60):02d}  {figures}"
        )
        if self._stream.isatty():
            self._stream.write("\r\x1b[2K" + line[:200])
            self._open = True
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


class ShardLines:
    """Tells how far a scoring job is, on standard error: one line per finished shard."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Expect what `score_prefix` reports: once before its shards, then after each."""
        self._stream = stream or sys.stderr
        self._first: tuple[int, float] | None = None

    def __call__(self, figures: dict[str, Any]) -> None:
        """Show a report; the first one tells only what an earlier call had done already."""
        objects, total, seconds = figures["objects"], figures["total"], figures["seconds"]
        if self._first is None:
            self._first = objects, seconds
            return
        rate = (objects - self._first[0]) / max(seconds - self._first[1], 1e-9)
        left = (total - objects) / max(rate, 1e-9)
        self._stream.write(
            f"{objects:,}/{total:,} images  {rate:,.1f}/s  "
            f"ETA {int(left // 60)}:{int(left % 60):02d}  failed {figures['failed']}\n"
        )
        self._stream.flush()
