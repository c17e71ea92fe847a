"""The progress line of a long verb: rate and ETA on a terminal, one line per report otherwise."""

from __future__ import annotations

import sys
import time
from typing import Any, Self, TextIO

_BOOKKEEPING = ("stage", "images", "seconds", "images_per_second", "look_seconds")


class _Line:
    """A line on standard error that is rewritten in place on a terminal; elsewhere, many."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to `stream` instead, if there is one."""
        self._stream = stream or sys.stderr
        self._open = False

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal at the start of a line, however the work ended."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()

    def _show(self, line: str) -> None:
        if self._stream.isatty():
            self._stream.write("\r\x1b[2K" + line[:200])
            self._open = True
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


class ProgressLine(_Line):
    """Tells how far a training is, on standard error; as a context it ends its line."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        """Expect `total` images."""
        super().__init__(stream)
        self._total = total
        self._started, self._first = time.monotonic(), -1

    def __call__(self, row: dict[str, Any]) -> None:
        """Show a report's row."""
        images = int(row["images"])
        if self._first < 0:
            self._first = max(0, images - round(row["images_per_second"] * row["seconds"]))
            self._started = time.monotonic() - row["seconds"]
        rate = (images - self._first) / max(time.monotonic() - self._started, 1e-9)
        left = max(0, self._total - images) / max(rate, 1e-9)
        figures = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in _BOOKKEEPING)
        self._show(
            f"{row['stage']}  {images:,}/{self._total:,} images  {rate:,.0f}/s  "
            f"ETA {_clock(left)}  {figures}"
        )


class ShardLine(_Line):
    """Tells how far a scoring job is, on standard error, after each shard; ends its line, too."""

    def __call__(self, figures: dict[str, Any]) -> None:
        """Show what `score_prefix` reports; before its first shard there is nothing to tell."""
        if figures["eta_s"] is None:
            return
        self._show(
            f"{figures['objects']:,}/{figures['total']:,} images  {figures['rate_per_s']:,.1f}/s  "
            f"ETA {_clock(figures['eta_s'])}  failed {figures['failed']}"
        )


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
