"""Dotted settings: `{"model.weights.identity": 5.0}` read from and laid over an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gan_ray.config import Experiment, to_dict
from gan_ray.experiment import parse
from gan_ray.training.run import EXECUTION


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give the leaves of a nested dict by their dotted paths."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def with_settings(experiment: Experiment[Any], settings: Mapping[str, Any]) -> Experiment[Any]:
    """Lay dotted `settings` over an experiment.

    Raises:
        ConfigError: a key is unknown, a value does not fit, or the parts do not go together.
    """
    plain = to_dict(experiment)
    for key, value in settings.items():
        *parents, name = key.split(".")
        place = plain
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return parse(plain)


def identity(experiment: Experiment[Any]) -> dict[str, Any]:
    """Give what makes it this experiment, flat: not where the data are or how it is carried out."""
    carried_out = {f"train.{name}" for name in EXECUTION} | {"data.root"}
    flat = flatten(to_dict(experiment))
    return {key: value for key, value in flat.items() if key not in carried_out}
