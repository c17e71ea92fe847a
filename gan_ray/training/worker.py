"""What one Ray Train worker does: its rank of the session, reported to Ray."""

from __future__ import annotations

from typing import Any

import ray.train
import ray.train.torch
from ray.train import Checkpoint, CheckpointUploadMode

from gan_ray.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    DivergedError,
    GanRayError,
    OutOfMemoryError,
)
from gan_ray.experiment import parse
from gan_ray.storage.arrow import arrow_filesystem
from gan_ray.training import distributed
from gan_ray.training.prometheus import Prometheus
from gan_ray.training.run import RunFolder
from gan_ray.training.session import Written, run_session


def train_worker(config: dict[str, Any]) -> GanRayError | None:
    """Train on this worker; `config` holds the experiment as a dict and the run folder's URI.

    Checkpoints are written by the session, in our one format; Ray is handed the same folder. An
    error that would come again is given back instead of raised: Ray has nothing to retry.
    """
    run = RunFolder(config["run"])
    filesystem, root = arrow_filesystem(run.uri)

    def on_report(row: dict[str, Any], written: Written | None) -> None:
        figures.show(row, written, device)
        where = None if written is None else f"{root}/{written.key}"
        ray.train.report(
            row,
            checkpoint=None if where is None else Checkpoint(where, filesystem),
            checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
            delete_local_checkpoint_after_upload=False,
        )

    try:
        experiment = parse(config["experiment"])
        device = ray.train.torch.get_device()
        figures = Prometheus(experiment, run)
        run_session(experiment, run, device=device, on_report=on_report)
    except (ConfigError, DataError, ArtifactError, DivergedError) as error:
        return error
    except OutOfMemoryError as error:
        if distributed.world_size() > 1:
            raise  # the other ranks wait for this one; only a failure ends their waiting
        return error
    return None
