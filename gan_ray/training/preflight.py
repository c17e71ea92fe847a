"""What can be found wrong with a training before a device is asked for or a file is written."""

from __future__ import annotations

from typing import Any

import torch

from gan_ray import architectures
from gan_ray.config import Experiment
from gan_ray.data.kinds import number_kinds, refuse_unknown
from gan_ray.data.sources import list_training
from gan_ray.data.streams import check_streams
from gan_ray.experiment import build_detector
from gan_ray.training.validation import check_selection

CALIBRATION = 19
"""Held-out normals that a threshold at 5 % false alarms needs at least."""


def preflight(experiment: Experiment[Any]) -> list[str]:
    """Check networks, data listing, streams and selection; give warnings in words.

    No image is decoded.

    Raises:
        ArtifactError: the bundle of the feature network cannot be used.
        ConfigError: parts that do not go together.
        DataError: data that cannot be used, or images without the class that scoring needs.
    """
    with torch.device("meta"):
        detector = build_detector(experiment)
    items = list_training(experiment.data)
    if detector.conditional and experiment.data.classes == "source":
        numbers = number_kinds(items.normal, experiment.data)
        refuse_unknown([*items.unlabeled, *items.held_out_mix, *items.abnormal], numbers)
    offered = ["normal", "class", *(["unlabeled"] if items.unlabeled else [])]
    check_streams(architectures.get(experiment.architecture).streams, offered)
    check_selection(experiment, unlabeled=bool(items.unlabeled), labelled=bool(items.abnormal))
    held_out = len(items.calibrate)
    if held_out >= CALIBRATION:
        return [*items.notes]
    return [
        *items.notes,
        f"{held_out} normal images are held out for calibration, but a threshold at 5 % false "
        f"alarms needs {CALIBRATION}: raise --data.holdout, or calibrate at a higher rate.",
    ]
