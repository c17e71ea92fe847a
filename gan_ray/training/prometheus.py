"""Figures of a training for Prometheus, on the metrics port of each Ray node (docs/observing.md).

Ray puts `ray_` before the names. What concerns the whole training comes from rank 0 alone, so that
nothing is counted twice. Labels tell no path and no name of a patient.
"""

from __future__ import annotations

from typing import Any

import torch
from ray.util.metrics import Gauge

from gan_ray.config import Experiment, fingerprint
from gan_ray.training import distributed, memory
from gan_ray.training.run import RunFolder, identity
from gan_ray.training.session import WENT_ON, Written

LABELS = ("run", "stage", "rank")
GAUGES = {
    "gan_ray_images": "Images trained, those before a restart included.",
    "gan_ray_images_per_second": "Images per second since the last report, reports not counted.",
    "gan_ray_report_seconds": "Seconds of training since the last report.",
    "gan_ray_checkpoint_seconds": "Seconds that writing the last checkpoint took.",
    "gan_ray_checkpoint_bytes": "Bytes of the last checkpoint.",
    "gan_ray_restarts": "Times that the training went on from a checkpoint.",
    "gan_ray_memory_peak_bytes": "Most bytes held: by torch on the GPU since the last report, or "
    "by the process on a CPU.",
}
LOSS = "gan_ray_loss"
_NO_LOSSES = ("val/", "detector/")


class Prometheus:
    """Shows each report; used in a Ray worker."""

    def __init__(self, experiment: Experiment[Any], run: RunFolder) -> None:
        """Label what is shown by the experiment's fingerprint, as in the run's environment.json."""
        self._name, self._run = fingerprint(identity(experiment)), run
        self._gauges = {name: Gauge(name, says, LABELS) for name, says in GAUGES.items()}
        self._loss = Gauge(
            LOSS, "Mean of a raw loss term since the last report.", (*LABELS, "term")
        )
        self._restarts: int | None = None

    def show(self, row: dict[str, Any], written: Written | None, device: torch.device) -> None:
        """Set the gauges of this rank from a report's row and, on rank 0, its checkpoint."""
        rank = str(distributed.rank())
        labels = {"run": self._name, "stage": str(row["stage"]), "rank": rank}
        shown: dict[str, float] = {"memory_peak_bytes": memory.peak_bytes(device)}
        if written is not None:
            if self._restarts is None:  # those of this process are over by its first report
                self._restarts = sum(WENT_ON in line for line in self._run.log())
            shown |= {
                "images": row["images"],
                "images_per_second": row["images_per_second"],
                "report_seconds": row["seconds"],
                "checkpoint_seconds": written.seconds,
                "checkpoint_bytes": written.bytes,
                "restarts": self._restarts,
            }
            for term, value in row.items():
                if "/" in term and not term.startswith(_NO_LOSSES):
                    self._loss.set(value, {**labels, "term": term})
        for name, value in shown.items():
            self._gauges[f"gan_ray_{name}"].set(value, labels)
