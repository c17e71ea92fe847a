"""One training from its experiment to its run folder, on one rank; Ray is not needed.

`train --local` runs it in this process, a Ray Train worker runs it on its rank, a sweep's trial in
its actor. Rank 0 validates and writes; every rank calls `on_report` equally often.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tensorboardX import SummaryWriter

from gan_ray import heap
from gan_ray.config import Experiment, fingerprint, to_dict
from gan_ray.data.sources import TrainingData, load_training
from gan_ray.data.streams import Streams
from gan_ray.errors import ConfigError, OutOfMemoryError
from gan_ray.experiment import build_detector
from gan_ray.scoring.selection import Selection
from gan_ray.training import distributed, memory
from gan_ray.training.loop import PRECISIONS, Report, fit, unwatched
from gan_ray.training.node_data import once_per_node
from gan_ray.training.pictures import Picture, write_curves, write_latent, write_samples
from gan_ray.training.profile import Profile
from gan_ray.training.reuse import StageReuse, replay
from gan_ray.training.run import RunFolder, identity
from gan_ray.training.state import Snapshot, encode
from gan_ray.training.validation import Validation

WENT_ON = " went on from "
"""Stands in the line of `log.txt` that tells of a restart."""


@dataclass(frozen=True)
class Written:
    """A checkpoint that has just been written."""

    key: str
    """Its folder in the run folder."""
    bytes: int
    seconds: float


OnReport = Callable[[dict[str, Any], Written | None], None]
"""Sees each report's row and, on rank 0, its checkpoint."""


def run_session(
    experiment: Experiment[Any],
    run: RunFolder,
    *,
    device: torch.device | str = "cpu",
    on_report: OnReport = lambda row, written: None,
    on_resume: Callable[[dict[str, Any]], None] = lambda row: None,
    trained: RunFolder | None = None,
) -> None:
    """Train from the newest complete checkpoint of `run` to the end, reporting and writing.

    `on_resume` sees the rows of an earlier process before anything is trained, on rank 0. Stages
    that another training has left in `train.stages` are taken over; see `reuse`. From `trained`, a
    finished run that differs in its score alone, everything is: the checkpoints that it has kept
    are judged by the score of `experiment`, for one process.

    Raises:
        DataError: the data cannot be used, or are not those that the run began with.
        ConfigError: the data lack a stream that the architecture needs.
        DivergedError: a loss term stopped being finite.
        OutOfMemoryError: images, networks, a batch, a step or the look at held-out images did not
            fit.
    """
    train = experiment.train
    device = torch.device(device)
    torch.set_num_threads(train.threads)
    heap.keep_freed_memory()
    load = partial(load_training, experiment.data)
    cpu, build = torch.device("cpu"), partial(build_detector, experiment)
    data = once_per_node(lambda: memory.attempt(load, cpu, _images_do_not_fit))
    detector = memory.attempt(build, cpu, _networks_do_not_fit)
    streams = Streams(
        data,
        detector.streams,
        seed=experiment.seed,
        device=device,
        dtype=PRECISIONS[train.precision],
        flip=experiment.data.flip,
    )
    watched = train.profile and distributed.rank() == 0
    with StageReuse(experiment, run.uri, detector, data=data.fingerprint, device=device) as reuse:
        resume = run.newest() if trained is not None else reuse.begin(run.newest())
        writer = _Writer(experiment, run, data, resume, reuse)
        training = (
            replay(detector, trained, resume, device=device, dtype=PRECISIONS[train.precision])
            if trained is not None
            else fit(
                detector,
                streams,
                train,
                seed=experiment.seed,
                device=device,
                resume=resume,
                watch=Profile(run, device) if watched else unwatched,
            )
        )
        if distributed.rank() == 0:
            for known in writer.rows:
                on_resume(known)
        figures: Mapping[str, float] | None = None
        while True:
            try:
                report = training.send(figures) if figures is not None else next(training)
            except StopIteration:
                break
            distributed.assert_in_sync(report.state.detector)
            row: dict[str, Any] = {}
            written: Written | None = None
            peak = distributed.maximum(memory.peak_bytes(device), device)
            if distributed.rank() == 0:
                row, written = memory.attempt(
                    partial(writer.write, report, device, peak), device, _look_does_not_fit
                )
            row = distributed.from_first_rank(row)
            figures = numbers(row)
            on_report(row, written)
            memory.forget_peak(device)
            writer.resume_clock()
    if distributed.rank() == 0:
        writer.finish()


def _images_do_not_fit(seen: memory.Shortage) -> OutOfMemoryError:
    return seen.error(
        "reading the images",
        "Lower --data.image-size, or give each worker a node with more memory.",
    )


def _networks_do_not_fit(seen: memory.Shortage) -> OutOfMemoryError:
    return seen.error(
        "building the networks",
        "Lower their sizes (--model.…) or --data.image-size, or take a node with more memory.",
    )


def _look_does_not_fit(seen: memory.Shortage) -> OutOfMemoryError:
    return seen.error(
        "looking at held-out images",
        "Lower --train.look or --train.samples, or take a device with more memory.",
    )


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Give the figures of a row: what a checkpoint keeps and `Stage.until` sees."""
    return {key: value for key, value in row.items() if isinstance(value, (int, float))}


def _stamp() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


class _Writer:
    """What rank 0 leaves in the run folder at each report."""

    def __init__(
        self,
        experiment: Experiment[Any],
        run: RunFolder,
        data: TrainingData,
        resume: Snapshot | None,
        reuse: StageReuse,
    ) -> None:
        self._experiment, self._run, self._reuse = experiment, run, reuse
        self._validation = Validation(experiment, data)
        self._images = resume.images if resume else 0
        self.rows = run.reports(resume, earlier=reuse.rows)
        own = {row["images"] for row in run.metrics()}
        taken_over = [row for row in reuse.rows if row["images"] not in own]
        self._lines = run.log()
        self._board: SummaryWriter | None = None
        if distributed.rank() == 0:
            self._same_data(data)
            if resume is not None:
                self._put_rows()
                did = " took over " if taken_over else WENT_ON
                self._lines.append(f"{_stamp()}{did}{resume.images} images\n")
            if run.directory is not None:
                self._board = SummaryWriter(str(run.directory / "tb"))
            for row in taken_over:
                self._log(row, {})
        self.resume_clock()

    def resume_clock(self) -> None:
        """Count time of training only, not of reports."""
        self._started = time.perf_counter()

    def write(
        self, report: Report, device: torch.device, peak: float
    ) -> tuple[dict[str, Any], Written]:
        """Validate, select, checkpoint; give the report's row and what was written of it.

        `peak` is the most memory in bytes that a rank held since the last report.
        """
        seconds = time.perf_counter() - self._started
        row: dict[str, Any] = {"stage": report.stage.name, "images": report.images}
        row["seconds"] = round(seconds, 3)
        row["images_per_second"] = round((report.images - self._images) / max(seconds, 1e-9), 2)
        if device.type == "cuda":
            row["gpu_peak_gib"] = round(peak / memory.GIB, 3)
        row |= report.metrics
        # What a detector counts by itself, such as fresh starts of a discriminator.
        own = report.state.detector.named_buffers(recurse=False)
        row |= {f"detector/{name}": float(count) for name, count in own if count.numel() == 1}
        self._images = report.images
        pictures: dict[str, Picture] = {}
        samples, seed = self._experiment.train.samples, self._experiment.seed
        with report.state.scoring() as detector:
            if report.stage.scores:
                began = time.perf_counter()
                seen = self._validation.look(detector, device)
                row["look_seconds"] = round(time.perf_counter() - began, 3)
                row |= seen.figures
                self._run.store.put("scores/val.parquet", seen.table())
                if samples:
                    pictures["samples"] = write_samples(
                        self._run, report.images, seen.samples, map_range=seen.map_range
                    )
            if samples:
                pictures |= write_latent(
                    self._run, report.images, detector, samples=samples, seed=seed
                )
        # The checkpoint comes before what speaks of it; a kill between the two loses nothing.
        began = time.perf_counter()
        files = encode(report.state, numbers(row))
        key = self._run.put_checkpoint(report.images, files)
        taken = time.perf_counter() - began
        self.rows.append(row)
        self._reuse.put(report, files, self.rows)
        best = self._put_rows()
        keep = best.images if best is not None else None
        self._run.retain(self._experiment.train.keep_checkpoints, keep)
        self._log(row, pictures)
        return row, Written(key, sum(map(len, files.values())), taken)

    def finish(self) -> None:
        """Leave a training that is over complete, however it ended and whenever it was killed."""
        if self.rows:
            self._put_rows()
            write_curves(self._run, self.rows)
        if self._board is not None:
            self._board.close()  # a flush leaves behind what its thread has not taken up yet

    def _put_rows(self) -> Selection | None:
        self._run.put_metrics(self.rows)
        best = self._validation.best(self.rows)
        if best is not None:
            self._run.put_json("selection.json", to_dict(best))
        return best

    def _log(self, row: Mapping[str, Any], pictures: Mapping[str, Picture]) -> None:
        """Add the row to `log.txt`; where the run folder is a directory, all to TensorBoard."""
        lines = [f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()]
        self._lines.append(f"{_stamp()} {' '.join(lines)}\n")
        self._run.store.put("log.txt", "".join(self._lines).encode())
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, row["images"])
            for name, picture in pictures.items():
                self._board.add_image(name, picture, row["images"], dataformats="HWC")
            self._board.flush()

    def _same_data(self, data: TrainingData) -> None:
        known = self._run.get_json("environment.json")
        if known is not None and self.rows and known["data"] != data.fingerprint:
            raise ConfigError(
                f"{self._run.uri} was trained on other data (fingerprint {known['data']}, now "
                f"{data.fingerprint}). Point --data.root at the same images, choose another --out, "
                "or start over with --fresh."
            )
        packages = ("gan-ray", "torch", "numpy", "ray", "pillow")
        environment = {
            "experiment": fingerprint(identity(self._experiment)),
            "data": data.fingerprint,
            "stages": self._reuse.key,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "world_size": distributed.world_size(),
            "threads": torch.get_num_threads(),
            "cuda": torch.version.cuda,
            **{name: importlib.metadata.version(name) for name in packages},
        }
        self._run.put_json("environment.json", environment)
