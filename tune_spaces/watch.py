"""What can be watched of a sweep: `sweep.json`, `sweep.html`, TensorBoard, a line on the terminal.

The page is drawn when a trial ends, but not more often than every `PAUSE`, and at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from gan_ray import names
from gan_ray.report import html
from gan_ray.report.sources import Search
from gan_ray.training.run import RunFolder
from tune_spaces.budget import trim
from tune_spaces.importance import importance
from tune_spaces.overview import duration
from tune_spaces.plan import ARCHITECTURE, system_name
from tune_spaces.record import Record

Progress = Callable[[dict[str, Any]], None]

PAGE = "sweep.html"
PAUSE = 30.0
"""Seconds between two pages at least: one takes about half a second."""


class Watch:
    """Shows a sweep to whoever looks, and keeps its checkpoints within `keep_bytes`."""

    def __init__(
        self,
        record: Record,
        *,
        keep_bytes: int | None,
        progress: Progress | None,
        say: Callable[[str], None],
    ) -> None:
        """Show nothing yet."""
        self._record, self._keep_bytes = record, keep_bytes
        self._progress, self._say = progress, say
        self._due = 0.0

    def ended(self, number: int) -> None:
        """Show that a trial is over."""
        content = self._shown(finished=False)
        row = next(row for row in content["trials"] if row["number"] == number)
        self._tried("TensorBoard", partial(write_settings, row))
        if self._progress is not None:
            self._progress(row)
        self._say(queue_line(content["queue"]) + time_left(content))

    def finished(self) -> dict[str, Any]:
        """Show the sweep as it is left; give the content of `sweep.json`."""
        return self._shown(finished=True)

    def _shown(self, *, finished: bool) -> dict[str, Any]:
        if self._keep_bytes is not None:
            trim(self._record, self._keep_bytes, over=finished)
        drawn = finished or time.monotonic() >= self._due
        if drawn:
            self._tried("importance", self._weigh)
        content = self._record.write()
        if drawn:
            self._tried(PAGE, partial(self._draw, content, again=not finished))
            self._due = time.monotonic() + PAUSE
        return content

    def _weigh(self) -> None:
        self._record.importance = importance(self._record.studies())

    def _draw(self, content: Mapping[str, Any], *, again: bool) -> None:
        name = self._record.uri.rsplit("/", 1)[-1]
        text = html.text([Search(name, content)], title=f"Sweep {name}", again=again)
        self._record.store.put(PAGE, text.encode())

    def _tried(self, what: str, work: Callable[[], None]) -> None:
        """Do what only shows the sweep: a fault of it must not end days of training."""
        try:
            work()
        except Exception as error:
            self._say(f"warning: {what} is left as it was: {names.why(error)}")


def write_settings(row: Mapping[str, Any]) -> None:
    """Tell TensorBoard a trial's settings and what came of them; only in a directory.

    `tensorboard --logdir OUT/trials` has them on its tab HPARAMS.
    """
    folder = RunFolder(row["run"]).directory
    if folder is None or row["value"] is None:
        return
    figures = {f"trial/{name}": row[name] for name in ("value", "images", "seconds")}
    with SummaryWriter(str(folder / "tb"), filename_suffix=".hparams") as board:
        for summary in hparams(dict(row["params"]), figures):
            board.file_writer.add_summary(summary)
        for name, value in figures.items():
            board.add_scalar(name, value, row["images"])


def queue_line(queue: Mapping[str, Any]) -> str:
    """Say what is over, what runs and what waits, in the order in which it will run."""
    running = ", ".join(map(str, queue["running"])) or "none"
    waiting = [f"{count} {name}" for name, count in queue["waiting"].items() if count]
    return f"queue: {queue['done']} done; running: {running}; waiting: {', '.join(waiting) or '0'}"


def time_left(content: Mapping[str, Any]) -> str:
    """Say what the trials to come will take, by those of their study that were not in vain.

    These were stopped early and took stages over as often as others will be, of which the estimate
    before a sweep knows nothing. Nothing is said before there is one.
    """
    took: dict[str, list[float]] = {}
    left = dict(content["queue"]["waiting"])
    for row in content["trials"]:
        joint = content["study"] == ARCHITECTURE
        study = ARCHITECTURE if joint else system_name(row["architecture"], row["variant"])
        if row["state"] == "running":
            left[study] += 1
        elif row["state"] != "failed":
            took.setdefault(study, []).append(row["seconds"] + row["look_seconds"])
    seconds = sum(count * mean(took[study]) for study, count in left.items() if study in took)
    if not seconds:
        return ""
    unknown = [study for study, count in left.items() if count and study not in took]
    return (
        f"; left: about {duration(seconds)} of one worker"
        f"{' and all of ' if unknown else ''}{', '.join(unknown)}"
    )
