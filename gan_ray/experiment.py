"""From a name, a variant, a preset and changes to an experiment, and from it to a detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gan_ray import architectures
from gan_ray.config import Experiment, from_dict, merge, to_dict
from gan_ray.data.recipes import recipe_settings
from gan_ray.detector import Detector, ImageSpec
from gan_ray.errors import ConfigError, needs_classes, unknown
from gan_ray.scoring.scores import make_score, settings_read
from gan_ray.seeds import derive_seed


def experiment_type(architecture: str) -> type[Experiment[Any]]:
    """Give the type of the experiments of a system, its `model` field typed by its own settings."""
    config: Any = architectures.get(architecture).Config
    return Experiment[config]


def make(
    architecture: str,
    *,
    variant: str = "",
    preset: str = "default",
    changes: Mapping[str, Any] | None = None,
) -> Experiment[Any]:
    """Lay preset, variant, recipe and `changes` (nested dict), in this order, over the defaults.

    The recipe is the one that `changes` name in data.recipe.

    Raises:
        ConfigError: a name is unknown or a change does not fit.
    """
    detector = architectures.get(architecture)
    layers: list[Mapping[str, Any]] = []
    if preset not in detector.presets:
        raise ConfigError(unknown(f"preset of {architecture}", preset, detector.presets))
    layers.append(detector.presets[preset])
    if variant:
        if variant not in detector.variants:
            raise ConfigError(unknown(f"variant of {architecture}", variant, detector.variants))
        layers.append(detector.variants[variant])
    changes = changes or {}
    layers.append({"data": recipe_settings(changes.get("data", {}).get("recipe", ""))})
    plain = to_dict(
        experiment_type(architecture)(architecture=architecture, model=detector.Config())
    )
    for layer in (*layers, changes):
        plain = merge(plain, layer)
    return parse({**plain, "variant": variant, "preset": preset})


def parse(data: Mapping[str, Any]) -> Experiment[Any]:
    """Build the experiment that `to_dict` described and check that its parts suit each other.

    Raises:
        ConfigError: an unknown key, a wrong type, or parts that do not go together.
    """
    name = str(data.get("architecture", ""))
    experiment = from_dict(experiment_type(name), data)
    detector = architectures.get(name)
    make_score(experiment.score, detector)
    train = experiment.train
    if train.select == "normal_score" and "scales" in settings_read(experiment.score, detector):
        raise ConfigError(
            f"--train.select normal_score cannot tell the checkpoints of {name} apart: this score "
            "is scaled to one mean over held-out normals. Select by aucp, validation or last, or "
            "take another score (--score.name)."
        )
    if train.min_workers > train.workers:
        raise ConfigError(
            f"train.min_workers is {train.min_workers}, but train.workers, the most there are at a "
            f"time, is {train.workers}: lower --train.min-workers."
        )
    for workers in range(train.min_workers or train.workers, train.workers + 1):
        parts = workers * train.accumulate
        if train.batch_size % parts:
            raise ConfigError(
                f"a batch of {train.batch_size} images cannot be cut into {workers} workers x "
                f"{train.accumulate} parts: set --train.batch-size to a multiple of {parts}."
            )
    return experiment


def with_absolute_paths(experiment: Experiment[Any]) -> Experiment[Any]:
    """Name data, feature network and stages by paths that hold in every directory; URIs stay."""

    def absolute(path: str) -> str:
        return path if not path or "://" in path else str(Path(path).resolve())

    data = dataclasses.replace(experiment.data, root=absolute(experiment.data.root))
    train = dataclasses.replace(
        experiment.train,
        features=absolute(experiment.train.features),
        stages=absolute(experiment.train.stages),
    )
    return dataclasses.replace(experiment, data=data, train=train)


def image_spec(experiment: Experiment[Any]) -> ImageSpec:
    """Give the images the experiment's networks are built for."""
    data = experiment.data
    return ImageSpec(size=data.image_size, channels=data.channels, classes=data.class_count)


def build_detector(experiment: Experiment[Any], *, seed: int | None = None) -> Detector:
    """Build the networks on the CPU, initialised from the experiment's seed (or `seed`).

    Leaves torch's global random state as it was.

    Raises:
        ConfigError: the image size does not suit the networks or the score, or they need the class
            of each image and the data would give the answer with it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(experiment.seed if seed is None else seed, "init"))
        cls = architectures.get(experiment.architecture)
        detector = cls(experiment.model, image_spec(experiment))
    make_score(experiment.score, detector)
    if detector.conditional:
        _refuse_leak(experiment)
    return detector


def _refuse_leak(experiment: Experiment[Any]) -> None:
    """Let a score be conditioned on a class that is told apart from normal and abnormal alone."""
    data = experiment.data
    if data.classes == "kmeans":
        reason = "k-means (--data.classes kmeans) tells those of training images alone"
    elif data.classes == "source" and data.source not in ("folder", "csv", "data-json"):
        reason = f"in source '{data.source}' the class says whether an image is normal"
    else:
        return
    raise ConfigError(needs_classes(experiment.architecture, reason))
